"""From a folder of transformers, of Marian or of fairseq, to one of ours."""

import shutil
from collections.abc import Callable
from pathlib import Path

from transformer.errors import CheckpointError
from transformer.exchange.fairseq import read_fairseq
from transformer.exchange.foreign import shown
from transformer.exchange.marian import read_marian
from transformer.exchange.reading import ForeignModel, read_model
from transformer.io.checkpoint_folder import complete_steps
from transformer.io.workdir import Workdir

# Settings of others' searches that ours has not, and what they are when they do nothing.
_NOT_HERE = {
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "diversity_penalty": 0.0,
    "num_beam_groups": 1,
    "do_sample": False,
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
    "sequence_bias": {},
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "renormalize_logits": False,
    "word-penalty": 0.0,
    "shortlist": [],
}


def import_hf(
    source: str | Path,
    target: str | Path,
    languages: tuple[str, str] = ("", ""),
    allow_pickle: bool = False,
    note: Callable[[str], None] = print,
) -> None:
    """Makes a model directory of a folder that `save_pretrained` wrote.

    Args:
      source: that folder, with config.json, model.safetensors and the tokenizer's files.
      target: the new folder; it gets what a run has, and `imported.json`: where it came from.
      languages: codes of source and target, for models that need them.
      allow_pickle: tensors that PyTorch pickled are read where there are no safetensors.
      note: takes a line for the user.

    Raises:
      CheckpointError: if it cannot be read, or with all reasons why our model cannot be that one.
    """
    _import(lambda: read_model(Path(source), languages, allow_pickle), target, note)


def import_marian(source: str | Path, target: str | Path, note: Callable[[str], None] = print) -> None:
    """Makes a model directory of a folder with Marian's own files.

    Args:
      source: that folder, with model.npz, vocabularies, and decoder.yml if there is one.
      target, note: as for `import_hf`.

    Raises:
      CheckpointError: if it cannot be read, or with all reasons why our model cannot be that one.
    """
    _import(lambda: read_marian(Path(source)), target, note)


def import_fairseq(source: str | Path, target: str | Path, note: Callable[[str], None] = print) -> None:
    """Makes a model directory of a folder with a state of fairseq's `transformer`.

    Args:
      source: that folder, with config.json or config.yaml, model.safetensors, dictionaries and
        SentencePiece models.
      target, note: as for `import_hf`.

    Raises:
      CheckpointError: if it cannot be read, or with all reasons why our model cannot be that one.
    """
    _import(lambda: read_fairseq(Path(source)), target, note)


def _import(read: Callable[[], ForeignModel], target: str | Path, note: Callable[[str], None]) -> None:
    workdir = Workdir(target)
    if workdir.config_file.exists() or complete_steps(workdir.checkpoints):
        raise CheckpointError(f"{target}: holds a run already; choose another --to, or remove it")
    found = read()
    from transformer.exchange.placing import place_model  # needs JAX, which hostile folders do not come to

    fresh = not workdir.root.exists()
    try:
        count = place_model(found, workdir)
    except BaseException:
        if fresh:
            shutil.rmtree(workdir.root, ignore_errors=True)
        raise
    for line in found.foreign.told:
        note(line)
    said = found.foreign.generation
    if ignored := [
        f"{key}={shown(said[key])}" for key, off in _NOT_HERE.items() if said.get(key, off) not in (off, None)
    ]:
        note(f"{', '.join(ignored)}: our search has no such rules; outputs may differ from theirs there")
    note(f"{target}: {found.kind}, {count:,} parameters, {found.tokenizer.source_vocab:,} source pieces")
