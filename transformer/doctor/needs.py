"""What a configuration needs of this machine: data files, disk, and the size of what is saved."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from transformer.config import Config, DataConfig
from transformer.data.corpus import Split, open_corpora
from transformer.data.lines import LineFile
from transformer.data.tokenizer import Tokenizer
from transformer.doctor.findings import Finding, bytes_text
from transformer.errors import CheckpointError, UserError
from transformer.io.checkpoint_folder import check_space
from transformer.io.workdir import Workdir
from transformer.model.size import count_parameters
from transformer.model.transformer import Transformer
from transformer.steps.state import TrainState, init_state
from transformer.training.optimizer import make_optimizer

_SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_SAMPLE, _PIECE = 64_000_000, 8_000_000  # bytes written to measure a disk
_GRACE = 30  # seconds between SIGTERM and SIGKILL in Slurm and Kubernetes, unless they are told otherwise


def check_config(config: Config, root: str | None) -> Iterator[Finding]:
    """Yields what was found about data files, model and disk.

    Args:
      config: of the run.
      root: its folder; None: the current one.

    Raises:
      CheckpointError: if the folder has a tokenizer that is damaged.
    """
    yield from check_data(config.data, config.is_masked)
    workdir = Workdir(root or ".")
    pieces = vocabularies(config, workdir)
    items = saved_items(config, *pieces)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(items))
    parameters = count_parameters(_model(config, *pieces))["total"]
    yield Finding("ok", "model", f"{parameters:,} parameters; a checkpoint has {bytes_text(size)}")
    yield from check_disk(workdir, size, config.run.keep_latest + config.run.keep_best)


def vocabularies(config: Config, workdir: Workdir) -> tuple[int, int]:
    """Returns the source and target pieces of the run's tokenizer, or of the one that it will have."""
    of_base = config.init.model and config.init.vocabulary == "base"
    if of_base and not Tokenizer.exists(workdir.tokenizer):
        workdir = Workdir(config.init.model)
    if not Tokenizer.exists(workdir.tokenizer):
        return config.tokenizer.vocab_size, config.tokenizer.vocab_size
    tokenizer = Tokenizer.load(workdir.tokenizer)
    return tokenizer.source_vocab, tokenizer.target_vocab


def saved_items(config: Config, source_vocab: int, target_vocab: int) -> dict[str, Any]:
    """Returns the shapes of what a checkpoint holds: pytrees by the names of its items."""
    tx = make_optimizer(config.model, config.optim, config.run.num_steps)
    model = _model(config, source_vocab, target_vocab)
    shapes: TrainState = jax.eval_shape(lambda: init_state(model, tx, config))
    return shapes.items()


def _model(config: Config, source_vocab: int, target_vocab: int) -> Transformer:
    return Transformer(config.model, source_vocab, target_vocab)


def check_data(data: DataConfig, alone: bool = False) -> Iterator[Finding]:
    """Yields the number of lines of each data file, side by side.

    Args:
      data: what is read.
      alone: text has no targets.
    """
    with tempfile.TemporaryDirectory() as unpacked:
        if data.kind == "text":
            found = []
            for split in _SPLITS:
                sources, targets = getattr(data, f"{split}_source"), getattr(data, f"{split}_target")
                for i in range(max(len(sources), len(targets))):
                    given = (*sources[i : i + 1], *targets[i : i + 1])
                    found.append(_pair_of_files(data, split, given, unpacked, alone))
            yield from found
            if all(finding.status == "ok" for finding in found):
                yield from _opened_alike(data, Path(unpacked), alone)
        elif data.kind == "cldr":
            pair = f"{data.source_language}-{data.target_language}"
            yield Finding("ok", "data", f"{data.cldr_pairs:,} training pairs {pair}, generated when needed")
        else:
            yield from (_opened(data, split, Path(unpacked)) for split in _SPLITS)


def _pair_of_files(
    data: DataConfig, split: str, given: tuple[str, ...], unpacked: str, lone: bool
) -> Finding:
    """Returns what there is to say of a pair of files, or of a `lone` one."""
    name, counts = f"data {split}", []
    try:
        for file in given:
            counts.append(len(LineFile(Path(data.root, file).expanduser(), Path(unpacked))))
    except UserError as error:
        return Finding("problem", name, str(error))
    text = " | ".join(f"{file}: {count:,} lines" for file, count in zip(given, counts, strict=True))
    if len(given) < 2 and not lone:
        cure = f"name as many files in config.data.{split}_source as in {split}_target"
        return Finding("problem", name, f"{text}, without a file of the other side", cure)
    if counts[0] != counts[-1]:
        cure = 'line n of one must translate line n of the other; lines end at "\\n" only'
        return Finding("problem", name, text, cure)
    if not counts[0]:
        return Finding("problem", name, text, "put sentences in, or name other files")
    return Finding("ok", name, text)


def _opened_alike(data: DataConfig, unpacked: Path, alone: bool) -> Iterator[Finding]:
    """Yields what training would refuse of text whose files are good one by one."""
    for split in _SPLITS:
        try:
            open_corpora(data, split, unpacked, alone)
        except UserError as error:
            yield Finding("problem", f"data {split}", str(error))


def _opened(data: DataConfig, split: Split, unpacked: Path) -> Finding:
    try:
        corpora = open_corpora(data, split, unpacked)
    except UserError as error:
        return Finding("problem", f"data {split}", str(error))
    text = ", ".join(f"{corpus.name}: {len(corpus):,} pairs" for corpus in corpora)
    if not all(map(len, corpora)):
        return Finding("problem", f"data {split}", text, "put text in, or name other files")
    return Finding("ok", f"data {split}", text or "none is named")


def check_disk(workdir: Workdir, checkpoint_bytes: int, kept: int) -> Iterator[Finding]:
    """Yields free space and write speed where a run will lie, beside what its checkpoints need.

    Args:
      workdir: of the run; may not exist yet.
      checkpoint_bytes: size of one checkpoint.
      kept: how many are kept.
    """
    folder = workdir.root
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    try:
        check_space(workdir.checkpoints, checkpoint_bytes, kept)
    except CheckpointError as error:
        yield Finding("problem", "free space", str(error))
    else:
        needed = f"{kept + 1} checkpoints need {bytes_text((kept + 1) * checkpoint_bytes)}"
        yield Finding("ok", "free space", f"{bytes_text(free)} in {folder}; {needed}")
    try:
        speed = write_speed(folder)
    except OSError as error:
        yield Finding("problem", "write speed", f"{folder}: {error.strerror}", "give a --workdir to write to")
        return
    seconds = checkpoint_bytes / speed
    text = f"{speed / 1e6:,.0f} MB/s in {folder}; a checkpoint takes {seconds:,.1f} s"
    if seconds > _GRACE:
        cure = f"many clusters kill a preempted run after {_GRACE} s: use a faster disk, or ask for more time"
        yield Finding("warning", "write speed", text, cure)
    else:
        yield Finding("ok", "write speed", text)


def write_speed(folder: Path) -> float:
    """Returns the bytes a second that reach the disk below a folder; leaves nothing behind.

    Raises:
      OSError: if they cannot be written.
    """
    piece = os.urandom(_PIECE)  # some file systems keep zeros in no space at all
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-speed-") as file:
        began = time.monotonic()
        for _ in range(_SAMPLE // _PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        return _SAMPLE / (time.monotonic() - began)
