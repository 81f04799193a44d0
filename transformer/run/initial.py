"""Parameters that a new run starts from: those of another model directory (`config.init`)."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from transformer.config import BASE_SECTIONS, Config, InitConfig
from transformer.config_mapping import to_dict
from transformer.data.languages import with_languages
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.io.agreement import everywhere, of_first
from transformer.io.digests import digest_arrays
from transformer.io.workdir import Origin, Workdir, write_json
from transformer.paths import by_path, chosen
from transformer.run.moments import NO_MOMENTS, base_moments, moments_in
from transformer.run.transplant import transplanted
from transformer.steps.state import TrainState, count_numbers, trained_part

_BY_PIECE = ("embedding", "logits_bias")  # names of parameters with a row for each piece
_HEAD = ("output/embedding", "logits_bias")  # names of those with a row for each label
_OTHER_MODEL = "leave config.model as it is there, or leave the parameter out with config.init.exclude"


class Given(NamedTuple):
    """What a run takes of its base, on its devices: arrays by path.

    Attributes:
      params: of the model.
      moments: of the optimizer's state.
    """

    params: dict[str, jax.Array]
    moments: dict[str, jax.Array]


class Choice(NamedTuple):
    """Paths of parameters: `taken` from the base, `left` there, and `new`, drawn at random."""

    taken: list[str]
    left: list[str]
    new: list[str]


def base_tokenizer(config: Config) -> Tokenizer:
    """Returns the tokenizer of the model that the run starts from, for the run's languages.

    Raises:
      ConfigError: if `config.tokenizer` asks for another one, or it knows of no languages.
    """
    base = Workdir(config.init.model)
    ours, theirs = to_dict(config)["tokenizer"], to_dict(base.load_config())["tokenizer"]
    if changed := [key for key in ours if ours[key] != theirs[key]]:
        listed = ", ".join(f"{key} (there {theirs[key]!r}, here {ours[key]!r})" for key in changed)
        raise ConfigError(
            f"config.tokenizer: the run takes the tokenizer of {base.root}, which has other settings: "
            f"{listed}; leave config.tokenizer as it is there"
        )
    tokenizer, init = Tokenizer.load(base.tokenizer), config.init
    if not (init.source_language or init.target_language):
        return tokenizer
    return with_languages(tokenizer, init.source_language, init.target_language)


def initial_parameters(
    config: Config, workdir: Workdir, tokenizer: Tokenizer, like: TrainState, note: Callable[[str], None]
) -> tuple[Given, dict[str, Any]]:
    """Reads the base of a run, and records which it was.

    Args:
      config: the run; `init.model` is given.
      workdir: its folder.
      tokenizer: its tokenizer.
      like: its state, as jax.ShapeDtypeStruct with shardings.
      note: takes a line for the user.

    Returns:
      (what the run takes, a report for metrics.jsonl).

    Raises:
      CheckpointError: if the base is not the one that the run began with, or with every array of another
        shape or dtype.
      ConfigError: if no parameter is chosen.
    """
    init, (base, origin) = config.init, _load(config, workdir)
    had = jax.tree.map(np.asarray, by_path(base.params))
    wanted = by_path(like.params if like.fixed is None else like.fixed)
    moments = moments_in(like.opt_state, wanted) if init.optimizer else {}
    had |= base_moments(origin.model, base, config.optim.name, moments) if init.optimizer else {}
    coverage: dict[str, Any] = {}
    if init.vocabulary == "transplant" or init.source_language or init.target_language:
        pair = base.tokenizer, tokenizer
        had, found = transplanted(had, base.config.model, *pair, init.language_like)
        coverage = {"pieces": {side: counts._asdict() for side, counts in found.items()}}
    others = _HEAD if base.tokenizer.labels != tokenizer.labels else ()
    choice = choose({path: x for path, x in had.items() if path not in moments}, wanted, init, others)
    faults = _misfits(had, wanted, choice.taken, _OTHER_MODEL) + _misfits(had, moments, moments, NO_MOMENTS)
    if init.optimizer:
        faults += [f"{path} begins at random, its moments cannot; {NO_MOMENTS}" for path in choice.new]
    if not coverage:
        faults += _other_pieces(base, tokenizer, choice)
    if config.lora.rank:
        grown = [path for path, x in by_path(base.params).items() if x.shape != had[path].shape]
        faults += [f"has not all of {path}, and adapters alone are saved" for path in choice.new + grown]
    if faults:
        raise CheckpointError("\n".join(f"config.init.model: {init.model}: {f}" for f in faults))
    if jax.process_index() == 0:
        write_json(workdir.init_file, origin._asdict())
    sizes = {
        "trained": count_numbers(trained_part(like.params, config.optim.freeze)),
        "parameters": count_numbers(wanted),
    }
    source = {"model": origin.model, "checkpoint": origin.step, "digest": origin.digest}
    report = {**choice._asdict(), "moments": len(moments), **source, **sizes, **coverage}
    note(report_line(report))
    return Given(_placed(had, {path: wanted[path] for path in choice.taken}), _placed(had, moments)), report


def _placed(arrays: Mapping[str, np.ndarray], like: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the arrays that `like` has; each process puts its share on its own devices."""
    return {
        path: jax.make_array_from_callback(x.shape, x.sharding, arrays[path].__getitem__)
        for path, x in like.items()
    }


def check_origin(config: Config, workdir: Workdir) -> None:
    """Refuses to continue a run with another base than it began with; the same one is not read again.

    Raises:
      CheckpointError: saying so.
    """
    recorded = workdir.load_origin()
    if recorded is None and config.init.model:
        raise CheckpointError(
            f"{workdir.root}: its run did not begin with the parameters of {config.init.model}; "
            "leave config.init.model out, or choose another --workdir"
        )
    if not recorded or not config.init.model:
        return
    if recorded.model != _absolute(config.init.model):
        _load(config, workdir)
    elif config.init.checkpoint not in ("best", "last", str(recorded.step)):
        raise CheckpointError(
            f"{workdir.root}: began with step {recorded.step:,} of {recorded.model}, not "
            f"{config.init.checkpoint}; give that as config.init.checkpoint, or choose another --workdir"
        )


def choose(
    had: Mapping[str, Any], wanted: Mapping[str, Any], init: InitConfig, others: Iterable[str] = ()
) -> Choice:
    """Returns which parameters are taken; `had` and `wanted` are the base's and the run's, by path.

    `others` are none of the base's, though it has their names: a head of other labels.

    Raises:
      ConfigError: if an expression is found in no path, or nothing is left to take.
    """
    known = [*wanted, *(path for path in had if path not in wanted)]
    included = chosen(init.include, known, "init.include") or set(known)
    included -= chosen(init.exclude, known, "init.exclude") | set(others)
    taken = [path for path in wanted if path in had and path in included]
    if not taken:
        raise ConfigError(
            f"config.init: no parameter of {init.model} is one of this run's and chosen; "
            "leave config.model as it is there, and check config.init.include and exclude"
        )
    left, new = ([path for path in tree if path not in taken] for tree in (had, wanted))
    return Choice(taken, left, new)


def report_line(report: Mapping[str, Any]) -> str:
    """Returns the report as a line for a person."""
    listed = [
        f"{len(report[kind]):,} {kind}" + (f" ({', '.join(report[kind])})" if report[kind] else "")
        for kind in ("left", "new")
    ]
    trained, every = report["trained"], report["parameters"]
    moments = f"; {report['moments']:,} arrays of its optimizer taken" if report["moments"] else ""
    pieces = "".join(
        f"; {side} pieces: {counts['equal']:,} as they were, {counts['composed']:,} composed of old ones, "
        f"{counts['unknown']:,} with unknown characters"
        for side, counts in report.get("pieces", {}).items()
    )
    return (
        f"init: {report['model']}, step {report['checkpoint']:,}: {len(report['taken']):,} parameters taken, "
        f"{', '.join(listed)}; {trained:,} of the model's {every:,} are trained ({trained / every:.2%})"
        f"{pieces}{moments}"
    )


def _load(config: Config, workdir: Workdir) -> tuple[LoadedModel, Origin]:
    """Reads a base, and compares it with the one that was recorded, if there is one."""
    recorded, folder = workdir.load_origin(), _absolute(config.init.model)
    again = recorded is not None and recorded.model == folder
    base = load_model(folder, str(recorded.step) if recorded and again else config.init.checkpoint)
    digest = digest_arrays(by_path(base.params))
    if recorded is not None and digest != recorded.digest:
        raise CheckpointError(
            f"{workdir.root}: began with the parameters of {recorded.model}, step {recorded.step:,}; those of"
            f" {folder}, step {base.step:,}, are others; give the old ones, or choose another --workdir"
        )
    first = of_first(int(digest[:7], 16))
    if not everywhere(first == int(digest[:7], 16)):
        raise CheckpointError(f"{folder}: another process reads other parameters there; name its checkpoint")
    settings = to_dict(base.config)
    return base, Origin(folder, base.step, digest, {name: settings[name] for name in BASE_SECTIONS})


def _absolute(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())


def _other_pieces(base: LoadedModel, tokenizer: Tokenizer, choice: Choice) -> list[str]:
    rows = [path for path in choice.taken if path.split("/")[-1] in _BY_PIECE]
    if base.tokenizer.pieces_digest == tokenizer.pieces_digest or not rows:
        return []
    return [
        f"{', '.join(rows)}: rows are those of its own tokenizer, and this run has another; remove the run's "
        "folder tokenizer/, or set --config.init.vocabulary=transplant"
    ]


def _misfits(
    had: Mapping[str, Any], wanted: Mapping[str, Any], paths: Iterable[str], remedy: str
) -> list[str]:
    """Returns a line for each array of another shape or dtype."""
    lines = []
    for path in paths:
        theirs, ours = (f"{x.dtype}{list(x.shape)}" for x in (had[path], wanted[path]))
        if theirs != ours:
            lines.append(f"{path} is {theirs}, this run's is {ours}; {remedy}")
    return lines
