"""Does what was learned on short sequences carry over to long ones? With layers that recur, and without.

    python benchmarks/algorithms.py [--steps N] [--folder DIR] [--tasks copy,reverse,addition] [--seeds 1]

Each model learns to copy, to reverse, and to add numbers of up to 10 digits, and is asked for longer
ones (Dehghani et al. 2019, section 3.2). Positions begin at random places in training, as there, or a model
would never have seen the places of longer sequences. Prints a table (Markdown), by length, means over seeds:
outputs that are right as a whole, in percent of 200, and symbols that are right and in their place, in
percent of those asked for. What is done already in DIR is not done again.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformer.config_mapping import from_config_dict
from transformer.inference.model_directory import load_model
from transformer.inference.translator import Translator
from transformer.model.size import count_parameters
from transformer.run.train import train

TASKS = ("copy", "reverse", "addition")
DIGITS = "0123456789"
LONGEST = 10  # digits, in training
LENGTHS = (10, 20, 40)  # digits, in the test
FARTHEST = 2 * LENGTHS[-1] + 2  # place of a test
TRAIN, DEV, TEST = 50_000, 200, 200
SIZES = dict(d_model=64, d_ff=256, num_heads=4, dropout_rate=0.1, norm="pre", max_length=128)
# The first two have the parameters of the third and fourth, or their arithmetic.
MODELS: dict[str, dict[str, Any]] = {
    "1 layer": dict(num_encoder_layers=1, num_decoder_layers=1),
    "6 layers": dict(num_encoder_layers=6, num_decoder_layers=6),
    "6 steps of 1 layer": dict(num_encoder_layers=6, num_decoder_layers=6, recurrence="fixed"),
    "up to 6 steps of 1 layer": dict(num_encoder_layers=6, num_decoder_layers=6, recurrence="adaptive"),
}


def pair(task: str, length: int, draw: random.Random) -> tuple[str, str]:
    """Returns source and target of a task, symbols separated by spaces; two numbers of `length` to add."""
    source = "".join(draw.choices(DIGITS, k=length))
    if task == "addition":
        other = "".join(draw.choices(DIGITS, k=length))
        return " ".join(f"{source}+{other}"), " ".join(f"{int(source) + int(other):0{length + 1}d}")
    return " ".join(source), " ".join(source if task == "copy" else source[::-1])


def pairs(task: str, lengths: Sequence[int], count: int, seed: str) -> Iterator[tuple[str, str]]:
    """Yields pairs of the given lengths in turn."""
    draw = random.Random(f"{task} {seed}")
    for number in range(count):
        yield pair(task, lengths[number % len(lengths)], draw)


def right_symbols(output: str, target: str) -> float:
    """Returns the share of the target's symbols that the output has in the same place."""
    symbols = target.split()
    return sum(a == b for a, b in zip(output.split(), symbols, strict=False)) / len(symbols)


def measure(task: str, model: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Trains one model and returns its exact outputs by length, its size, and the steps its layers took."""
    files: dict[str, Any] = {}
    for split, count in (("train", TRAIN), ("dev", DEV)):
        sides = zip(*pairs(task, range(1, LONGEST + 1), count, split), strict=True)
        for side, lines in zip(("source", "target"), sides, strict=True):
            file = folder / f"{task}.{split}.{side}"
            file.write_text("".join(f"{line}\n" for line in lines))
            files[f"{split}_{side}"] = (file.name,)
    config = from_config_dict(
        {
            "model": {**SIZES, **MODELS[model]},
            "tokenizer": dict(model_type="word", vocab_size=4 + len(DIGITS) + (task == "addition")),
            "data": dict(root=str(folder), batch_tokens=2048, **files),
            "optim": dict(
                learning_rate=2e-3,
                schedule="cosine",
                warmup_steps=200,
                clip_norm=1.0,
                random_offset=FARTHEST,
            ),
            "decode": dict(beam_size=1, max_extra_length=4),
            "run": dict(
                num_steps=steps,
                eval_every=steps,
                save_every=steps,
                eval_lines=0,
                best_metric="nll",
                init_seed=seed,
            ),
        }
    )
    workdir = folder / f"{task}-{model.replace(' ', '_')}-{seed}-{steps}"
    train(config, str(workdir))
    loaded = load_model(workdir)
    translator = Translator.of(loaded)
    exact, symbols = {}, {}
    for length in LENGTHS:
        sources, targets = zip(*pairs(task, [length], TEST, f"test {length}"), strict=True)
        outputs = translator.translate(list(sources))
        exact[length] = 100 * statistics.mean(a == b for a, b in zip(outputs, targets, strict=True))
        symbols[length] = 100 * statistics.mean(map(right_symbols, outputs, targets))
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    dev = [line for line in metrics if line["split"] == "dev"][-1]
    return {
        "exact": exact,
        "symbols": symbols,
        "parameters": count_parameters(loaded.model)["total"],
        "steps": [dev[name] for name in ("encoder_steps", "decoder_steps") if name in dev],
    }


def table(results: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """Returns the lines of the table: a row for each task and model."""
    lengths = [f"{length} digits" for length in LENGTHS]
    lines = ["| task | model | parameters | steps | " + " | ".join(lengths) + " |"]
    lines.append("|---" * (4 + len(LENGTHS)) + "|")
    for (task, model), found in results.items():
        exact, symbols = (
            [statistics.mean(result[what][str(length)] for result in found) for length in LENGTHS]
            for what in ("exact", "symbols")
        )
        steps = [
            statistics.mean(numbers) for numbers in zip(*(result["steps"] for result in found), strict=True)
        ]
        cells = [task, model, f"{found[0]['parameters']:,}", " + ".join(f"{n:.1f}" for n in steps)]
        lines.append("| " + " | ".join([*cells, *map("{:.1f} / {:.1f}".format, exact, symbols)]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000, help="of training (default 2000)")
    parser.add_argument("--seeds", type=int, default=1, help="how many models of each kind (default 1)")
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"which of {', '.join(TASKS)}")
    parser.add_argument("--folder", type=Path, default=Path("runs/algorithms"), help="where runs are kept")
    args = parser.parse_args()
    tasks = [task.strip() for task in args.tasks.split(",")]
    if unknown := sorted({*tasks} - {*TASKS}):
        parser.error(f"--tasks: {', '.join(unknown)} is none of {', '.join(TASKS)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task in tasks:
        for model in MODELS:
            for seed in range(args.seeds):
                file = args.folder / f"{task}-{model.replace(' ', '_')}-{seed}-{args.steps}.json"
                if not file.exists():
                    print(f"{task}, {model}, seed {seed}", file=sys.stderr)
                    file.write_text(json.dumps(measure(task, model, seed, args.steps, args.folder)))
                results.setdefault((task, model), []).append(json.loads(file.read_text()))
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
