"""`transformer benchmark decode`: how fast a model translates, and the score of what it wrote at that speed.

Text to text, as a user has it: splitting into pieces, search, and joining are inside the time; loading
and compiling are not.
"""

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from transformer.benchmark import report
from transformer.benchmark.resources import counted_compilations, peak_memory
from transformer.config import MeshConfig
from transformer.data.corpus import open_corpora
from transformer.errors import ConfigError, DataError
from transformer.inference.model_directory import LoadedModel, check_kind, check_reads_text, load_model
from transformer.inference.translator import Translation, Translator
from transformer.io.devices import make_mesh
from transformer.io.progress import Progress
from transformer.io.text import check_output, read_lines
from transformer.io.workdir import Workdir
from transformer.metrics.scores import score
from transformer.run.prepare import decodable


@dataclasses.dataclass(frozen=True)
class TestLines:
    """What is translated.

    Attributes:
      name: of the set.
      sources: lines of text.
      references: their translations.
      lengths: source tokens of each line, end mark included.
    """

    name: str
    sources: list[str]
    references: list[str]
    lengths: list[int]


@dataclasses.dataclass
class Setting:
    """One way to decode, and what was measured of it.

    Attributes:
      beam_size: 1 is greedy.
      batch_size: sentences together; at 1 every sentence is a call of its own.
      source: which lengths, for the reader: "all", "1-16", ...
      lines: places of its lines in `TestLines`.
      first_seconds: of the first, uncounted pass, in which programs are compiled.
      compilations: programs compiled in it, or loaded from JAX's cache.
      seconds: of each repeat.
      calls: seconds of each call of each repeat.
      outputs: of the last repeat.
    """

    beam_size: int
    batch_size: int
    source: str
    lines: list[int]
    first_seconds: float = 0.0
    compilations: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)
    calls: list[float] = dataclasses.field(default_factory=list)
    outputs: list[Translation] = dataclasses.field(default_factory=list)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the verb; `run` reads them."""
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="folder of a run or an averaged model")
    add("--checkpoint", default="best", metavar="WHICH", help="best (default), last, or a step")
    add("--split", choices=("dev", "test"), default="test", help="the run's own set (default test)")
    add("--source", metavar="FILE", help="other text to translate")
    add("--reference", metavar="FILE", help="its reference translations")
    add("--lines", type=int, metavar="N", help="the first N lines only")
    add("--beam_sizes", default="1,5", metavar="N,N", help="beams; 1 is greedy (default 1,5)")
    add("--batch_sizes", default="1,16,64", metavar="N,N", help="sentences together (default 1,16,64)")
    add("--lengths", metavar="N,N", help="source tokens: measure lines up to N, up to the next N, ... apart")
    add("--latency_lines", type=int, default=200, metavar="N", help="lines at batch size 1 (default 200)")
    add("--repeats", type=int, default=3, metavar="N", help="passes over the settings in turn (default 3)")
    add("--json", metavar="FILE", help="write the measurements there")


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table, writes JSON if asked; returns the exit code 0.

    Raises:
      UserError: if the model, the text or an option cannot be used.
    """
    beams, batches = (_sizes(getattr(args, name), name) for name in ("beam_sizes", "batch_sizes"))
    uppers = _sizes(args.lengths, "lengths") if args.lengths else []
    for name in ("lines", "latency_lines", "repeats"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigError(f"--{name}: got {getattr(args, name)}, expected 1 or more")
    check_output(args.json)
    loaded = load_model(args.model, args.checkpoint)
    if not loaded.config.model.reads_source:
        raise ConfigError(
            f"--model {args.model}: is a language model of text alone, and what is measured are sentences of "
            "sources; give a model that reads them"
        )
    check_kind(loaded.config.model, "encoder_decoder", "decoder_only")
    check_reads_text(loaded.config.model)
    test = _test_lines(args, loaded)
    settings = plan(test, beams, batches, uppers, args.latency_lines)
    progress = Progress()
    measure(Translator.of(loaded), test, settings, args.repeats, progress)
    progress.close()
    rows = [_row(setting, test, loaded.config.run.bleu_tokenize) for setting in settings]
    memory, of = peak_memory(make_mesh(MeshConfig()))
    result = {
        "model": str(args.model),
        "step": loaded.step,
        "set": test.name,
        "length_penalty": loaded.config.decode.length_penalty,
        "repeats": args.repeats,
        "peak_memory_bytes": memory,
        "peak_memory_of": of,
        **report.surroundings(loaded.config),
        "settings": rows,
    }
    print(table(result), flush=True)
    report.write(args.json, result)
    return 0


def plan(
    test: TestLines, beams: Sequence[int], batches: Sequence[int], uppers: Sequence[int], latency_lines: int
) -> list[Setting]:
    """Returns the settings to measure, without results.

    Args:
      test: the lines.
      beams, batches: sizes, combined with each other.
      uppers: rising upper lengths, in source tokens, of groups of lines that are measured apart; none:
        all lines together.
      latency_lines: at batch size 1 this many lines are enough, drawn evenly from the set.

    Raises:
      DataError: if no line has one of the lengths.
    """
    groups = {"all": list(range(len(test.sources)))}
    if uppers:
        edges = [0, *sorted(uppers)]
        groups = {
            f"{low + 1}-{high}": [i for i, n in enumerate(test.lengths) if low < n <= high]
            for low, high in itertools.pairwise(edges)
        }
    for name, lines in groups.items():
        if not lines:
            raise DataError(f"--lengths: no line of {test.name} has {name} tokens; leave that group out")
    settings = []
    for name, lines in groups.items():
        few = [lines[i * len(lines) // latency_lines] for i in range(min(latency_lines, len(lines)))]
        few = few if len(lines) > latency_lines else lines
        settings += [
            Setting(beam, batch, name, few if batch == 1 else lines) for batch in batches for beam in beams
        ]
    return settings


def measure(
    translator: Translator,
    test: TestLines,
    settings: Sequence[Setting],
    repeats: int,
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Runs each setting once to compile it, then all in turn `repeats` times; fills in the results."""
    for number, setting in enumerate(settings, 1):
        progress.show(f"compiling {number} of {len(settings)}: {_name(setting)}")
        with counted_compilations() as compiled:
            setting.first_seconds = sum(_pass(translator, test, setting, clock)[0])
        setting.compilations = compiled.total
    # In turn, not one after the other: a machine that slows down slows all of them down.
    for repeat in range(1, repeats + 1):
        for setting in settings:
            progress.show(f"repeat {repeat} of {repeats}: {_name(setting)}")
            calls, setting.outputs = _pass(translator, test, setting, clock)
            setting.calls += calls
            setting.seconds.append(sum(calls))


def _pass(
    translator: Translator, test: TestLines, setting: Setting, clock: Callable[[], float]
) -> tuple[list[float], list[Translation]]:
    """Translates the setting's lines; returns the seconds of each call, and the outputs."""
    lines = [test.sources[i] for i in setting.lines]
    calls, outputs = [], []
    for block in [[line] for line in lines] if setting.batch_size == 1 else [lines]:
        start = clock()
        found = translator.translate_n_best(
            block, 1, beam_size=setting.beam_size, batch_size=setting.batch_size
        )
        calls.append(clock() - start)
        outputs += [best[0] for best in found]
    return calls, outputs


def _row(setting: Setting, test: TestLines, tokenize: str) -> dict[str, Any]:
    """Returns the results of a setting as JSON values."""
    tokens = sum(output.length for output in setting.outputs)
    references = [test.references[i] for i in setting.lines]
    found = score([output.text for output in setting.outputs], [references], tokenize)
    row: dict[str, Any] = {
        "beam_size": setting.beam_size,
        "batch_size": setting.batch_size,
        "source_tokens": setting.source,
        "lines": len(setting.lines),
        "output_tokens": tokens,
        "sentences_per_second": _spread([len(setting.lines) / s for s in setting.seconds]),
        "output_tokens_per_second": _spread([tokens / s for s in setting.seconds]),
        "compile_seconds": max(setting.first_seconds - float(np.median(setting.seconds)), 0.0),
        "compilations": setting.compilations,
        "bleu": found.bleu,
        "bleu_signature": found.bleu_signature,
    }
    if setting.batch_size == 1:
        p50, p99 = np.percentile(setting.calls, [50, 99])
        row["latency_seconds"] = {"p50": float(p50), "p99": float(p99), "calls": len(setting.calls)}
    return row


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def table(result: dict[str, Any]) -> str:
    """Returns the measurements as text."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    devices, host = result["devices"], result["host"]
    lines = [
        f"{result['model']} step {result['step']}, {result['set']}",
        f"{devices['count']} x {devices['kind']}, {host['processor']}, {host['usable_cores']} cores",
        versions,
        f"median of {result['repeats']} interleaved repeats (lowest-highest); peak memory "
        f"{result['peak_memory_bytes'] / 2**30:.2f} GiB ({result['peak_memory_of']})",
        f"{'beam':>4} {'batch':>5} {'source':>8} {'lines':>6} {'sentences/s':>12} {'spread':>16} "
        f"{'tokens/s':>9} {'p50 ms':>7} {'p99 ms':>7} {'compile s':>9} {'programs':>8} {'BLEU':>6}",
    ]
    for row in result["settings"]:
        speed, tokens = row["sentences_per_second"], row["output_tokens_per_second"]
        latency = row.get("latency_seconds")
        p50, p99 = (f"{1e3 * latency[p]:.1f}" if latency else "-" for p in ("p50", "p99"))
        spread = f"({speed['min']:,.1f}-{speed['max']:,.1f})"
        lines.append(
            f"{row['beam_size']:>4} {row['batch_size']:>5} {row['source_tokens']:>8} {row['lines']:>6,} "
            f"{speed['median']:>12,.1f} {spread:>16} {tokens['median']:>9,.0f} {p50:>7} {p99:>7} "
            f"{row['compile_seconds']:>9.1f} {row['compilations']:>8} {row['bleu']:>6.2f}"
        )
    return "\n".join(lines)


def _name(setting: Setting) -> str:
    return f"beam {setting.beam_size}, batch {setting.batch_size}, source {setting.source}"


def _sizes(text: str, option: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--{option}: got '{text}', expected whole numbers from 1 up, such as 1,16,64")
    return [int(part) for part in parts]


def _test_lines(args: argparse.Namespace, loaded: LoadedModel) -> TestLines:
    """Returns the lines that `args` names; by default the first set of the run's own split."""
    if (args.source is None) != (args.reference is None):
        raise ConfigError("--source and --reference: give both, or neither for the run's own set")
    if args.source is not None:
        name, sources, references = args.source, read_lines(args.source), read_lines(args.reference)
        if len(sources) != len(references):
            raise DataError(f"{name} has {len(sources):,} lines, {args.reference} {len(references):,}")
    else:
        corpora = open_corpora(loaded.config.data, args.split, Workdir(args.model).data)
        if not corpora:
            raise ConfigError(
                f"config.data.{args.split}_source: the run has no {args.split} set; "
                "give --source and --reference"
            )
        name = corpora[0].name
        pairs = decodable(corpora[0])
        sources, references = [s for s, _ in pairs], [t for _, t in pairs]
    sources, references = sources[: args.lines], references[: args.lines]
    if not sources:
        raise DataError(f"{name}: has no lines to translate")
    lengths = [len(ids) for ids in loaded.tokenizer.encode_source(sources)]
    return TestLines(name, sources, references, lengths)
