"""Speed and memory of training and decoding as one size grows, and the slopes.

    python benchmarks/curves.py                        model, length, vocabulary, batch
    python benchmarks/curves.py beam --model RUN       decoding
    python benchmarks/curves.py corpus                 start-up with 10^5 to 10^7 pairs, needs 8 GB of disk
    python benchmarks/curves.py --show                 tables and pictures of what is there already

Every point is measured in a process of its own and kept in FOLDER/AXIS/VALUE.json, so that the same command
goes on where it was stopped. Tables (Markdown) go to standard output, pictures to FOLDER/AXIS.png.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
Row = dict[str, float]


class Axis(NamedTuple):
    """What grows.

    Attributes:
      title: of the first column and of the picture.
      points: {value: words of the command that measures it}.
      columns: figures of a row; the first two are drawn.
      grows: figure against which slopes are taken; "": the value itself.
    """

    title: str
    points: Mapping[float, Sequence[str | Path]]
    columns: Sequence[str]
    grows: str = ""


_TRAIN = ("target tokens/s", "peak GiB", "step s", "MFLOP/token", "MFU %")
_DECODE = ("sentences/s", "peak GiB", "output tokens/s", "BLEU")
_CORPUS = ("first start s", "first peak GiB", "second start s", "second peak GiB", "reading once s")


def train_point(preset: str, vocabulary: int, length: int, tokens: int) -> list[str]:
    """Returns the words of a short training benchmark on synthetic pairs of half the row on the mean."""
    words = ["-m", "transformer", "benchmark", "train", "--preset", preset, "--vocab_size", str(vocabulary)]
    words += ["--mean_length", str(length // 2), f"--config.model.max_length={length}"]
    return [*words, f"--config.data.batch_tokens={tokens}", "--steps", "5", "--warmup", "2"]


def axes(model: str | None) -> dict[str, Axis]:
    """Returns what can grow; `model` is the run whose beam does."""
    sizes = {"tiny": 128, "small": 256, "base": 512, "big": 1024}
    lengths = [2**k for k in range(6, 13)]
    found = {
        "model": Axis(
            "d_model", {d: train_point(p, 8000, 64, 2048) for p, d in sizes.items()}, _TRAIN, "MFLOP/token"
        ),
        "length": Axis("row length", {n: train_point("small", 8000, n, 4096) for n in lengths}, _TRAIN),
        "vocabulary": Axis(
            "vocabulary",
            {v: train_point("small", v, 64, 2048) for v in (8_000, 32_000, 128_000, 256_000)},
            _TRAIN,
        ),
        "batch": Axis(
            "batch tokens", {2**k: train_point("small", 8000, 64, 2**k) for k in range(10, 15)}, _TRAIN
        ),
        "corpus": Axis(
            "pairs", {10**k: [HERE / "corpus_start.py", "--pairs", str(10**k)] for k in (5, 6, 7)}, _CORPUS
        ),
    }
    if model:
        words = ["-m", "transformer", "benchmark", "decode", "--model", model, "--lines", "384"]
        words += ["--batch_sizes", "64", "--repeats", "2"]
        beams = {w: [*words, "--beam_sizes", str(w)] for w in (1, 2, 4, 8, 16)}
        found["beam"] = Axis("beam size", beams, _DECODE)
    return found


def read(found: dict[str, Any]) -> Row:
    """Returns the figures of a point from the JSON that its command wrote."""
    if "figures" in found:
        value = {name: figure["value"] for name, figure in found["figures"].items()}
        return {
            "target tokens/s": value["target_tokens_per_second_awaited"],
            "peak GiB": value["peak_memory"] / 2**30,
            "step s": value["step_time_median"],
            "MFLOP/token": value["model_flops_per_target_token"] / 1e6,
            "MFU %": 100
            * value["target_tokens_per_second_awaited"]
            * value["model_flops_per_target_token"]
            / value["gemm_peak"],
        }
    if "settings" in found:
        (row,) = found["settings"]
        return {
            "sentences/s": row["sentences_per_second"]["median"],
            "peak GiB": found["peak_memory_bytes"] / 2**30,
            "output tokens/s": row["output_tokens_per_second"]["median"],
            "BLEU": row["bleu"],
        }
    return found


def measure(axis: Axis, folder: Path) -> None:
    """Measures the points that `folder` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    for value, words in axis.points.items():
        file = folder / f"{value}.json"
        if file.exists():
            continue
        print(f"{axis.title} {value:,}", file=sys.stderr, flush=True)
        temporary = file.with_suffix(".tmp")
        done = subprocess.run(
            [sys.executable, *map(str, words), "--json", str(temporary)], stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            print(f"{axis.title} {value:,}: failed with exit code {done.returncode}", file=sys.stderr)
            continue
        temporary.rename(file)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns the exponent k of y = c x^k that fits best (least squares of the logarithms)."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def table(axis: Axis, rows: Mapping[float, Row]) -> list[str]:
    """Returns Markdown: a row for each value, and the exponents over all and over the last two rows."""
    lines = [f"| {axis.title} | {' | '.join(axis.columns)} |", "|---" * (1 + len(axis.columns)) + "|"]
    for value, row in rows.items():
        lines.append(f"| {value:,} | {' | '.join(_shown(row[name]) for name in axis.columns)} |")
    for title, kept in (("slope", list(rows)), ("slope at the end", list(rows)[-2:])):
        if len(kept) > 1:
            x = [rows[v][axis.grows] if axis.grows else v for v in kept]
            slopes = [slope(x, [rows[v][name] for v in kept]) for name in axis.columns]
            lines.append(f"| {title} | {' | '.join(f'{k:.2f}' for k in slopes)} |")
    return lines


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def draw(axis: Axis, rows: Mapping[float, Row], file: Path) -> None:
    """Draws the first two columns over the values, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for panel, name in zip(panels, axis.columns, strict=False):
        y = [row[name] for row in rows.values()]
        panel.loglog(list(rows), y, "o-")
        panel.set_ylim(min(y) / 1.6, max(y) * 1.6)  # what hardly changes looks level
        panel.set_xlabel(axis.title)
        panel.set_ylabel(name)
        panel.set_xticks(list(rows), [f"{value:,}" for value in rows], rotation=30)
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))  # a curve may stay within a decade
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        panel.grid(alpha=0.3)
    figure.savefig(file, dpi=90)
    plt.close(figure)


def main() -> None:
    """Measures what is asked for and shows all that is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("axes", nargs="*", metavar="AXIS", help="default: model length vocabulary batch")
    parser.add_argument("--model", metavar="RUN", help="of the axis `beam`")
    parser.add_argument("--folder", type=Path, default=HERE / "scratch" / "curves")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    args = parser.parse_args()
    known = axes(args.model or "RUN" if args.show else args.model)
    for name in args.axes:
        if name not in known:
            parser.error(f"no axis '{name}'; known: {', '.join(known)}; beam needs --model")
    for name in args.axes or ("model", "length", "vocabulary", "batch"):
        if not args.show:
            measure(known[name], args.folder / name)
    for name in args.axes or known:
        axis, folder = known[name], args.folder / name
        there = [value for value in axis.points if (folder / f"{value}.json").exists()]
        rows = {value: read(json.loads((folder / f"{value}.json").read_text())) for value in there}
        if rows:
            print("\n".join(table(axis, rows)) + "\n", flush=True)
            draw(axis, rows, args.folder / f"{name}.png")


if __name__ == "__main__":
    main()
