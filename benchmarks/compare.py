"""Ours and its peers in turn (A, B, A, B, ...) on this machine: medians, spread, ratios.

    python benchmarks/compare.py train --data DIR [--size small|base|big] [--rounds N] [--json FILE]
    python benchmarks/compare.py decode --model RUN [--rounds N] [--beam_sizes 1,5] [--json FILE]
    python benchmarks/compare.py show FILE...

Run it with the project's Python. A peer that is not installed is skipped by name.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contenders import (
    HERE,
    Contender,
    Result,
    decode_contenders,
    load,
    peer_python,
    processor,
    train_contenders,
)

_TRAIN = (
    ("target tokens/s", "target_tokens_per_second", 1, ",.0f"),
    ("source tokens/s", "source_tokens_per_second", 1, ",.0f"),
    ("step s", "step_time_median", 1, ".2f"),
    ("p90 s", "step_time_p90", 1, ".2f"),
    ("MFU %", "mfu", 0.01, ".1f"),
    ("peak GiB", "peak_memory", 2**30, ".2f"),
    ("cores", "cores_busy", 1, ".2f"),
    ("per core s", "target_tokens_per_core_second", 1, ",.0f"),
    ("compile s", "compile_time", 1, ".1f"),
)
_DECODE = (
    ("sentences/s", "sentences_per_second", 1, ",.1f"),
    ("tokens/s", "output_tokens_per_second", 1, ",.0f"),
    ("BLEU", "bleu", 1, ".2f"),
    ("peak GiB", "peak_memory", 2**30, ".2f"),
)
Columns = Sequence[tuple[str, str, float, str]]


def run_rounds(contenders: Sequence[Contender], rounds: int, finish: Any = None) -> dict[str, list[Result]]:
    """Runs all contenders in turn, each in a process of its own, `rounds` times; returns what each reached.

    Args:
      contenders: in the order of a round.
      rounds: how often.
      finish: is given the file that a contender wrote before it is read.

    A contender that fails is told of and left out from then on.
    """
    results: dict[str, list[Result]] = {c.name: [] for c in contenders}
    out: set[str] = set()
    for number in range(1, rounds + 1):
        for contender in contenders:
            if contender.name in out:
                continue
            say(f"round {number} of {rounds}: {contender.name}")
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "result.json"
                command = [*map(str, contender.command), "--json", str(file)]
                environment = {**os.environ, **contender.environment}
                done = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                if done.returncode:
                    say(f"{contender.name}: failed with exit code {done.returncode}:\n{done.stdout[-2000:]}")
                    out.add(contender.name)
                    continue
                if finish is not None:
                    finish(contender, file)
                results[contender.name].append(per_core(contender.read(load(file))))
    return {name: found for name, found in results.items() if found}


def per_core(result: Result) -> Result:
    """Adds target tokens per second of one core, which says something even where others use the machine."""
    if "target_tokens_per_second" in result:
        rate = result["target_tokens_per_second"] / result["cores_busy"]
        return {**result, "target_tokens_per_core_second": rate}
    return result


def add_mfu(results: dict[str, list[Result]]) -> None:
    """Adds `mfu` to all: FLOPs that the sentences need over the peak, both as ours found them."""
    ours = [r for name, found in results.items() if name.startswith("ours") for r in found]
    if not ours:
        return
    needed = statistics.median(r["model_flops_per_target_token"] for r in ours)
    peak = max(r["gemm_peak"] for r in ours)
    for result in (r for found in results.values() for r in found):
        result["mfu"] = result["target_tokens_per_second"] * needed / peak


def table(results: dict[str, list[Result]], columns: Columns) -> list[str]:
    """Returns a line for each contender: medians of its rounds, the first column's spread, and ours over it.

    Tuned contenders are compared with ours tuned, where that ran.
    """
    speed = columns[0][1]
    rate = {name: statistics.median(r[speed] for r in found) for name, found in results.items()}
    width = max(map(len, results))
    head = f"{'':<{width}}  " + "".join(f"{title:>16}" for title, *_ in columns)
    lines = [head + f"{'spread':>18}{'ours / it':>11}"]
    for name, found in results.items():
        cells = []
        for _, key, unit, form in columns:
            values = [r[key] / unit for r in found if r.get(key) is not None]
            cells.append(f"{format(statistics.median(values), form) if values else '-':>16}")
        values = [r[speed] for r in found]
        spread = f"{format(min(values), columns[0][3])}-{format(max(values), columns[0][3])}"
        reference = rate.get("ours, tuned" if name.endswith(", tuned") else "ours")
        ratio = f"{reference / rate[name]:.2f}" if reference else "-"
        lines.append(f"{name:<{width}}  {''.join(cells)}{spread:>18}{ratio:>11}")
    return lines


def heading(title: str, rounds: int) -> dict[str, Any]:
    """Returns what is measured, where and when."""
    vendor, name = processor()
    return {
        "title": title,
        "processor": name,
        "vendor": vendor,
        "usable_cores": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "load_before": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def show(found: dict[str, Any]) -> None:
    """Prints one comparison."""
    results, columns = found["results"], _DECODE if found["title"].startswith("decoding") else _TRAIN
    print(found["title"])
    print(
        f"{found['date']}, {found['processor']} ({found['vendor']}), {found['usable_cores']} cores, load "
        f"{found['load_before']:.1f} before; medians of {found['rounds']} interleaved rounds"
    )
    if found["vendor"] != "AuthenticAMD":
        print("MKL takes its fast path on this processor by itself: no work-around was tried")
    for name, rounds in results.items():
        versions = " ".join(f"{key} {value}" for key, value in rounds[0]["versions"].items())
        print(f"{name}: {rounds[0]['device']}, {rounds[0]['threads']} threads; {versions}")
    print("\n".join(table(results, columns)) + "\n", flush=True)


def show_files(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints the comparisons of files written earlier."""
    for file in args.files:
        for found in json.loads(Path(file).read_text()):
            show(found)
    return []


def compare_train(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Prepares pairs once, runs the rounds, prints the table; returns everything for JSON."""
    scratch = Path(args.scratch) / args.size
    recipe = HERE / "recipes" / f"{args.size}.py"
    bridge("pairs", recipe=recipe, data=args.data, scratch=scratch, output=scratch / "pairs.npz")
    found = heading(f"training, {args.size}, {args.steps} steps a round", args.rounds)
    contenders = train_contenders(
        args.size,
        args.data,
        scratch,
        args.steps,
        args.warmup,
        args.target_tokens,
        args.device,
        args.torch_python,
    )
    results = found["results"] = run_rounds(choose(contenders, args.only), args.rounds)
    add_mfu(results)
    show(found)
    return [found]


def compare_decode(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Writes weights and text once, runs the rounds of each beam, prints tables; returns all for JSON."""
    scratch = Path(args.scratch) / "decode"
    scratch.mkdir(parents=True, exist_ok=True)
    model = dict(model=args.model, checkpoint=args.checkpoint)
    bridge("text", **model, output=scratch, lines=args.lines)
    bridge("weights", **model, output=scratch / "weights.npz")
    if peer_python("ctranslate2").exists() and args.device == "cpu":
        export_ctranslate2(args.model, args.checkpoint, scratch)

    def finish(contender: Contender, file: Path) -> None:
        if contender.needs is not None:
            bridge("score", model=args.model, reference=scratch / "reference.txt", json=file)

    comparisons = []
    for beam in map(int, args.beam_sizes.split(",")):
        found = heading(f"decoding, beam {beam}, batches of {args.batch_size}", args.rounds)
        contenders = decode_contenders(
            args.model, args.checkpoint, scratch, beam, args.batch_size, args.device, args.torch_python
        )
        found["results"] = run_rounds(choose(contenders, args.only), args.rounds, finish)
        show(found)
        comparisons.append(found)
    return comparisons


def export_ctranslate2(model: str, checkpoint: str, scratch: Path) -> None:
    """Writes the model for CTranslate2, with this Python and the package from the peer's environment."""
    (packages,) = peer_python("ctranslate2").parents[1].glob("lib/python*/site-packages")
    seen = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(packages))))
    for kind in ("float32", "int8"):
        shutil.rmtree(scratch / kind, ignore_errors=True)
        export = [sys.executable, "-m", "transformer", "export", "ctranslate2", "--model", model]
        export += ["--checkpoint", checkpoint, "--to", str(scratch / kind), "--quantization", kind]
        subprocess.run(export, check=True, env={**os.environ, "PYTHONPATH": seen})


def choose(contenders: Sequence[Contender], only: str | None) -> list[Contender]:
    """Returns those that can run here, of those asked for; says which cannot."""
    names = [c.name for c in contenders]
    wanted = [name.strip() for name in only.split(";")] if only else names
    if unknown := [name for name in wanted if name not in names]:
        raise SystemExit(f"compare.py: error: --only: no contender '{unknown[0]}'; known: {'; '.join(names)}")
    chosen = [c for c in contenders if c.name in wanted]
    for contender in chosen:
        if why := contender.missing():
            say(why)
    return [c for c in chosen if not c.missing()]


def bridge(verb: str, **options: Any) -> None:
    """Runs bridge.py in a process of its own, so that this one stays small beside what is measured."""
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    done = subprocess.run([sys.executable, str(HERE / "bridge.py"), verb, *words])
    if done.returncode:
        raise SystemExit(done.returncode)


def say(message: str) -> None:
    """Tells the person at the keyboard."""
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    """Reads the command line, compares, writes JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    train = verbs.add_parser("train", help="training steps on the same pairs")
    train.add_argument("--data", required=True, metavar="DIR", help="folder of Multi30k's raw files (.gz)")
    train.add_argument("--size", choices=("small", "base", "big"), default="small")
    train.add_argument("--target_tokens", type=int, default=4096, metavar="N", help="in a step (4096)")
    train.add_argument("--steps", type=int, default=20, help="measured in each round (20)")
    train.add_argument("--warmup", type=int, default=5, help="before them (5)")
    train.set_defaults(run=compare_train)
    decode = verbs.add_parser("decode", help="the same trained weights on the run's own test set")
    decode.add_argument("--model", required=True, metavar="DIR", help="run of a recipe of benchmarks/recipes")
    decode.add_argument("--checkpoint", default="best", help="best, last or a step")
    decode.add_argument("--beam_sizes", default="1,5")
    decode.add_argument("--batch_size", type=int, default=64, help="sentences together (64)")
    decode.add_argument("--lines", type=int, help="the first N lines only")
    decode.set_defaults(run=compare_decode)
    shown = verbs.add_parser("show", help="print what --json wrote")
    shown.add_argument("files", nargs="+", metavar="FILE")
    shown.set_defaults(run=show_files, json=None)
    for p in (train, decode):
        p.add_argument("--rounds", type=int, default=3, help="times that all take their turn (3)")
        p.add_argument("--only", metavar="NAME;NAME", help="these contenders alone")
        p.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu: training in bfloat16")
        p.add_argument(
            "--torch_python", type=Path, default=peer_python("torch"), help="interpreter that has PyTorch"
        )
        p.add_argument("--scratch", default=str(HERE / "scratch"), help="folder for what all of them read")
        p.add_argument("--json", metavar="FILE", help="write every figure of every round there")
    args = parser.parse_args()
    found = args.run(args)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
