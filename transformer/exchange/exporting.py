"""From one of our model directories to a folder that `from_pretrained` of transformers loads."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.config import ModelConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError
from transformer.exchange.card import Said, model_card
from transformer.exchange.families import FAMILIES
from transformer.exchange.folders import new_folder
from transformer.exchange.foreign import Foreign
from transformer.exchange.layout import all_names, their_tensors
from transformer.exchange.reading import EARLY
from transformer.exchange.refitting import differences, refit, refitted
from transformer.exchange.verifying import transformers_runtime, verify
from transformer.exchange.vocabularies import LANGUAGE_IN_TEXT
from transformer.exchange.written_vocabularies import Written, ids_of, pieces, written_tokenizer
from transformer.inference.model_directory import LoadedModel, check_kind, check_reads_text, load_model
from transformer.io.origins import read_origin
from transformer.io.weights import DTYPES, save_arrays
from transformer.io.workdir import Workdir, write_json
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer, unrolled, unstack_layers

_USE = """from transformers import AutoTokenizer, {title}
tokenizer, model = AutoTokenizer.from_pretrained("{target}"), {title}.from_pretrained("{target}")
ids = model.generate(**tokenizer(["..."], return_tensors="pt"))
print(tokenizer.batch_decode(ids, skip_special_tokens=True))"""
# What transformers keeps of a search, of all that an imported model's settings say.
_OF_SEARCH = (
    "max_length",
    "num_beams",
    "early_stopping",
    "length_penalty",
    "min_length",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "pad_token_id",
    "use_cache",
)


class _Plan(NamedTuple):
    """A family, and what a model of ours is in it.

    Attributes:
      kind: its name.
      model: our configuration, as the family has it.
      fields: the same as it is read from `config`.
      config: config.json.
      tokenizer: its files.
      reasons: why it cannot be; empty if it can.
    """

    kind: str
    model: ModelConfig
    fields: dict[str, Any]
    config: dict[str, Any]
    tokenizer: Written
    reasons: list[str]


def export_hf(
    model: str | Path,
    target: str | Path,
    checkpoint: str = "best",
    said: Said | None = None,
    lines: Sequence[str] | None = None,
    note: Callable[[str], None] = print,
) -> tuple[str, str]:
    """Writes a folder that a class of transformers loads.

    Nothing gets the name `target` before our own importer has read everything back as it is here.

    Args:
      model: one of our model directories.
      target: the new folder: config.json, generation_config.json, model.safetensors, the tokenizer.
      checkpoint: "best", "last", or a step.
      said: for the card, README.md.
      lines: to compare translations on; empty: random ones; None: nothing is compared.
      note: takes a line for the user.

    Returns:
      (the name of the class, what was compared in words).

    Raises:
      CheckpointError: if there is no such model, or with all reasons why no family has it.
    """
    with new_folder(target) as folder:
        loaded, (imported, origin) = load_model(model, checkpoint), read_origin(Workdir(model))
        check_kind(loaded.config.model, "encoder_decoder")
        check_reads_text(loaded.config.model)
        plan = _plan(loaded, origin, Path(target))
        family = FAMILIES[plan.kind]
        module = Transformer(plan.model, loaded.model.source_vocab, loaded.model.target_vocab)
        params = refit(unstack_layers(loaded.params), unrolled(loaded.model), plan.model)
        tensors = their_tensors(params, all_names(family.name, plan.fields, parameter_shapes(module)))
        dtypes = _as_before(tensors, origin.get("tensors", {}), note)
        config = {**plan.config, **_told_dtypes(plan.config, tensors, dtypes)}
        for name, content in plan.tokenizer.contents.items():
            (folder / name).write_bytes(content)
        kept = imported.imported_tokenizer
        if kept.exists() and origin.get("tokenizer_digest") == loaded.tokenizer.digest:
            shutil.copyfile(kept, folder / "tokenizer.json")
        write_json(folder / "tokenizer_config.json", plan.tokenizer.settings)
        write_json(folder / "config.json", config)
        write_json(folder / "generation_config.json", _generation(loaded, origin))
        save_arrays(folder / "model.safetensors", tensors, {"format": "pt"}, dtypes)
        _read_back(folder, plan, loaded.tokenizer, note)
        use = _USE.format(target=Path(target).name, title=family.title)
        card = model_card(Path(model), Path(target).name, loaded, said or Said(), use)
        (folder / "README.md").write_text(card, encoding="utf-8")
        compared = "" if lines is None else _verified(folder, family.title, loaded, lines)
    if plan.config.get("tie_word_embeddings") and plan.config.get("scale_decoder_outputs") is False:
        note("its tables are tied and its logits not scaled: transformers 4 (UMT5: before 5.24) scales them")
    decode = loaded.config.decode
    if decode.rules == "paper" and decode.beam_size > 1:
        note("config.decode.rules is 'paper': transformers ranks the outputs of a beam by other rules")
    return family.title, compared


def _verified(folder: Path, title: str, loaded: LoadedModel, lines: Sequence[str]) -> str:
    special = loaded.tokenizer.special
    runtime = transformers_runtime(folder, title, special.pad, special.start)
    if runtime is None:
        return "nothing was compared: transformers and torch are not installed"
    return verify(loaded, runtime, lines)


def _plan(loaded: LoadedModel, origin: Mapping[str, Any], target: Path) -> _Plan:
    """Returns the family that has the model.

    Raises:
      CheckpointError: with the reasons against the nearest one.
    """
    kinds = [kind for kind in FAMILIES if kind == origin.get("family")]
    plans = []
    for kind in [*kinds, *(kind for kind in FAMILIES if kind not in kinds)]:
        plan = _in_family(kind, loaded, origin if kind in kinds else {}, target)
        if not plan.reasons:
            return plan
        plans.append(plan)
    nearest = plans[0] if kinds else min(plans, key=lambda plan: len(plan.reasons))
    raise CheckpointError(
        f"{target}: no class of transformers has this model; {FAMILIES[nearest.kind].title} comes nearest, "
        f"but: {'; '.join(nearest.reasons)}; configs/hf_compatible.py is a recipe for models that fit"
    )


def _in_family(kind: str, loaded: LoadedModel, origin: Mapping[str, Any], target: Path) -> _Plan:
    family, tokenizer, model = FAMILIES[kind], loaded.tokenizer, loaded.config.model
    rows = tokenizer.source_vocab, tokenizer.target_vocab
    fields = {**dataclasses.asdict(model), "head_size": model.key_size}
    written = {**family.config(fields, rows), **ids_of(tokenizer.special)}
    common = {"model_type": kind, "architectures": [family.title], "is_encoder_decoder": True}
    before = origin.get("config", {})
    # The settings that it came with stay word by word, if they still say the same.
    for config in (before, {**common, **before, **written}):
        told = {"config.json": config, "tokenizer_config.json": origin.get("tokenizer", {})}
        foreign = Foreign(target, told)
        found = family.model(foreign, model.tied_embeddings in ("inputs", "none"))
        fitted = refitted(model, ModelConfig(**found))
        reasons = [*foreign.reasons, *differences(fitted, ModelConfig(**found))]
        for key, count in zip(("vocab_size", "decoder_vocab_size"), rows, strict=True):
            if config.get(key, count) != count:
                reasons.append(f"{key} is {count}, not {config[key]}")
        if not reasons:
            break
    if rows[0] != rows[1] and model.tied_embeddings in ("all", "inputs"):
        reasons.append(f"tokenizer: {rows[0]} source pieces, {rows[1]} target pieces")
    unchanged = origin.get("tokenizer_digest") == tokenizer.digest
    files = written_tokenizer(
        kind, tokenizer, origin.get("tokenizer", {}), unchanged, str(before.get("tokenizer_class") or "")
    )
    return _Plan(kind, fitted, found, config, files, [*reasons, *files.reasons])


def _generation(loaded: LoadedModel, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Returns generation_config.json: what an imported model came with, and what differs from it now."""
    said, config = origin.get("generation", {}), origin.get("config", {})
    kept = {key: said[key] for key in said if key in _OF_SEARCH or key not in config}
    # New tokens are in the lengths, which they would override. The flag has transformers 4 take config.json's
    # search in place of this one.
    for key in ("min_new_tokens", "max_new_tokens", "_from_model_config", "transformers_version"):
        kept.pop(key, None)
    special, decode = loaded.tokenizer.special, loaded.config.decode
    words = {ours: word for word, ours in EARLY.items()}
    early = words.get(decode.rules, "False")
    wanted: dict[str, Any] = {
        "num_beams": decode.beam_size,
        "early_stopping": early if early == "never" else early == "True",
        "min_length": decode.min_length,
        "no_repeat_ngram_size": decode.no_repeat_ngram_size,
        **ids_of(special),
    }
    if decode.rules != "paper":
        wanted["length_penalty"] = decode.length_penalty
    if special.forbidden:
        wanted["bad_words_ids"] = [[i] for i in special.forbidden]
    if special.given:
        wanted["forced_bos_token_id"] = special.given[0]
    if not origin:
        wanted |= {"max_length": loaded.config.model.max_length, "forced_eos_token_id": special.end}
    if decode.length_limit:
        wanted["max_length"] = decode.length_limit + 1  # with the decoder's start
    defaults = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0}
    defaults |= {"min_length": 0, "no_repeat_ngram_size": 0}
    differ = {
        k: v for k, v in wanted.items() if v != (kept[k] if kept.get(k) is not None else defaults.get(k))
    }
    return {**kept, **differ}


def _as_before(
    tensors: Mapping[str, np.ndarray], before: Mapping[str, str], note: Callable[[str], None]
) -> dict[str, str]:
    """Returns the dtypes that tensors were imported with, where those hold today's numbers exactly."""
    known = {name: before[name] for name in tensors if name in before}
    kept = {name: dtype for name, dtype in known.items() if _holds(dtype, tensors[name])}
    if wider := len(known) - len(kept):
        note(f"{wider} tensors were imported with fewer bits than they need now: written as float32")
    return kept


def _told_dtypes(
    config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], dtypes: Mapping[str, str]
) -> dict[str, str]:
    """Returns what `config` says of dtypes, put right: transformers casts to what it reads there."""
    written = {np.dtype(DTYPES[dtypes[name]]) if name in dtypes else x.dtype for name, x in tensors.items()}
    told = {
        key: str(config[key]).removeprefix("torch.") for key in ("dtype", "torch_dtype") if config.get(key)
    }
    return {
        key: "float32" for key, name in told.items() if np.dtype(np.float32) in written and name != "float32"
    }


def _holds(dtype: str, array: np.ndarray) -> bool:
    if array.dtype == DTYPES[dtype]:
        return True
    with np.errstate(over="ignore"):
        return np.array_equal(array.astype(DTYPES[dtype]).astype(array.dtype), array)


def _read_back(folder: Path, plan: _Plan, tokenizer: Tokenizer, note: Callable[[str], None]) -> None:
    """Refuses if the importer does not find in `folder` what is here.

    A target's language that is a piece of the text there (MADLAD-400's) is the caller's to write.
    """
    foreign = Foreign(folder)
    rows = tokenizer.source_vocab, tokenizer.target_vocab
    found = FAMILIES[plan.kind].tokenizer(foreign, rows, ("", ""))
    special, told = tokenizer.special, tokenizer.source_pieces(tokenizer.special.source_prefix)
    if told and all(re.fullmatch(LANGUAGE_IN_TEXT, piece) for piece in told):
        special = special._replace(source_prefix=())
        note(f"the tokenizer of {plan.kind} adds no language: begin each line with {' '.join(told)}")
    for name, value in special._asdict().items():
        if name != "hidden" and (other := getattr(found.special, name)) != value:
            foreign.refuse(f"tokenizer: {name} is {value}, and would be read as {other}")
    if pieces(found) != pieces(tokenizer):
        foreign.refuse("tokenizer: pieces have other ids than this family's tokenizer gives them")
    foreign.check()
