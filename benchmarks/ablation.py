"""Table 3 of the paper in small: what each choice does to a model of Multi30k, at equal updates.

    python benchmarks/ablation.py run --data DIR                  all rows, three seeds for the paper's
    python benchmarks/ablation.py run --data DIR --rows base,A1 --seeds 0,1
    python benchmarks/ablation.py table --docs docs/ablation.md   the table, of what there is so far
    python benchmarks/ablation.py table --kept docs/ablation.jsonl ...   and of runs whose folder is gone

DIR holds Multi30k's tokenised text, as configs/multi30k_en_de_tiny.py has it. Every run is a `transformer
train` of its own in FOLDER/ROW/SEED and leaves FOLDER/ROW/SEED.json, so that the same command goes on
where it was stopped: in the middle of a run, too. Words that begin with --config. are given to every run.
Where such words or --steps change, take another FOLDER. The results that FOLDER has, a line of JSON each, are
put into the file of --kept in place of those of the same row and seed, and the table is of all in the file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs" / "multi30k_en_de_tiny.py"
BEGIN, END = "<!-- table of benchmarks/ablation.py -->", "<!-- end of table -->"
SEEDS = (0, 1, 2)
STEPS = 1500
BATCH_TOKENS, VOCABULARY = 2048, 4000
MEAN_LENGTH = 18  # tokens of a sentence with its end mark, about: for the estimate of costs alone
SPEED = 80e9  # FLOP/s of a training step on 2 CPU cores, about: the same

# The paper's base model, but for its sizes.
BASE = {
    "model.preset": "tiny",
    "model.norm": "post",
    "model.d_ff": 512,
    "model.num_encoder_layers": 2,
    "model.num_decoder_layers": 2,
    "model.dropout_rate": 0.1,
    "tokenizer.vocab_size": VOCABULARY,
    "data.batch_tokens": BATCH_TOKENS,
    "data.subword_dropout": 0.0,
    "optim.learning_rate": 0.0,
    "optim.schedule": "inverse_sqrt",
    "optim.warmup_steps": 400,
    "decode.beam_size": 4,
    "decode.length_penalty": 0.6,
    "run.eval_lines": -1,
    "run.save_every": 250,
    "run.keep_latest": 1,
}


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      name: as the paper's, with a number; or the mechanism's.
      changes: keys of the configuration and what they are instead.
      main: of the paper's table, so that several seeds are run.
    """

    name: str
    changes: Mapping[str, Any]
    main: bool = True


def _numbered(letter: str, *changes: dict[str, Any]) -> list[Row]:
    return [Row(f"{letter}{i}", change) for i, change in enumerate(changes, 1)]


def _layers(number: int) -> dict[str, Any]:
    return {"model.num_encoder_layers": number, "model.num_decoder_layers": number}


_SHAW = {"model.positions": "shaw", "model.relative_max_distance": 16}
MECHANISMS: dict[str, dict[str, Any]] = {
    "unscaled": {"model.scale_queries": False},
    "general": {"model.attention_score": "general"},
    "additive": {"model.attention_score": "additive"},
    "no-positions": {"model.positions": "none"},
    "rotary": {"model.positions": "rotary"},
    "alibi": {"model.positions": "alibi"},
    "buckets": {"model.positions": "relative"},
    "shaw": _SHAW,
    "window-2": {"model.attention": "window", "model.attention_radius": 2},
    "window-8": {"model.attention": "window", "model.attention_radius": 8},
    "grouped": {"model.num_kv_heads": 2},
    "multi-query": {"model.num_kv_heads": 1},
    "recurrent": {**_layers(4), "model.recurrence": "fixed"},  # C1's parameters, C2's arithmetic
    "adaptive": {**_layers(4), "model.recurrence": "adaptive"},
}
ROWS = [
    Row("base", {}),
    *_numbered("A", *({"model.num_heads": h} for h in (1, 2, 8, 16))),
    *_numbered("B", {"model.head_size": 8}, {"model.head_size": 16}),
    *_numbered("C", _layers(1), _layers(4), {"model.d_model": 64}, {"model.d_model": 256}),
    *[Row(f"C{i}", {"model.d_ff": size}) for i, size in ((5, 256), (6, 1024))],
    *_numbered("D", {"model.dropout_rate": 0.0}, {"model.dropout_rate": 0.2}),
    *[Row(f"D{i}", {"optim.label_smoothing": rate}) for i, rate in ((3, 0.0), (4, 0.2))],
    Row("E", {"model.positions": "learned"}),
    *[Row(name, changes, main=False) for name, changes in MECHANISMS.items()],
]


def command(row: Row, seed: int, workdir: Path, data: Path, steps: int, words: Sequence[str]) -> list[str]:
    """Returns the command that trains a row with a seed, or goes on with it."""
    settings = {
        **BASE,
        **row.changes,
        "data.root": data,
        "run.num_steps": steps,
        "run.eval_every": steps,
        **dict.fromkeys(("data.seed", "run.init_seed", "run.dropout_seed"), seed),
    }
    given = [f"--config.{key}={value}" for key, value in settings.items()]
    start = [sys.executable, "-m", "transformer", "train", "--config", RECIPE, "--workdir", workdir]
    return [*map(str, start), *given, *words]


def measured(workdir: Path) -> dict[str, Any]:
    """Returns the figures of a finished run: those of its last evaluation on dev, and its speed.

    The speed is the median over its lines of progress, source and target tokens without padding. `layers` is
    how often a position went through an encoder's and a decoder's layer that halts, on the mean.
    """
    from transformer.inference.model_directory import load_model
    from transformer.model.size import count_parameters

    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    dev = [line for line in lines if line["split"] == "dev"][-1]
    rates = [line["tokens_per_second"] for line in lines if line["split"] == "train"]
    return {
        "steps": dev["step"],
        "perplexity": dev["perplexity"],
        "bleu": dev["bleu"],
        "layers": [dev[f"{side}_steps"] for side in ("encoder", "decoder") if f"{side}_steps" in dev],
        "parameters": count_parameters(load_model(workdir, "last").model)["total"],
        "tokens_per_second": statistics.median(rates[1:] or rates),
    }


def run(rows: Sequence[Row], args: argparse.Namespace, words: Sequence[str]) -> bool:
    """Runs what FOLDER lacks; returns whether nothing failed. One seed for rows that are not the paper's."""
    sound = True
    folder = args.folder.absolute()
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), **os.environ}
    for row in rows:
        for seed in args.seeds if row.main else args.seeds[:1]:
            workdir = folder / row.name / str(seed)
            file = workdir.with_suffix(".json")
            if file.exists():
                continue
            print(f"{row.name}, seed {seed}", file=sys.stderr, flush=True)
            words_of_run = command(row, seed, workdir, args.data.absolute(), args.steps, words)
            done = subprocess.run(words_of_run, cwd=ROOT, env=environment)
            if done.returncode:
                print(f"{row.name}, seed {seed}: failed with exit code {done.returncode}", file=sys.stderr)
                sound = False
                continue
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(measured(workdir)) + "\n")
            temporary.rename(file)
    return sound


def minutes(row: Row, steps: int) -> float:
    """Returns how long the training of a row takes on 2 CPU cores, by its FLOPs: an estimate."""
    from transformer.config_mapping import from_config_dict
    from transformer.model.size import flops_per_token
    from transformer.model.transformer import Transformer

    settings: dict[str, dict[str, Any]] = {}
    for key, value in {**BASE, **row.changes}.items():
        section, _, name = key.partition(".")
        settings.setdefault(section, {})[name] = value
    model = Transformer(from_config_dict(settings).model, VOCABULARY, VOCABULARY)
    return flops_per_token(model, MEAN_LENGTH, MEAN_LENGTH) * BATCH_TOKENS * steps / SPEED / 60


def read(folder: Path, kept: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """Returns the results that are there, with their seeds: {row: one a seed}; those of `kept`, too."""
    lines = map(json.loads, kept.read_text().splitlines()) if kept and kept.exists() else ()
    found = {(line.pop("row"), line["seed"]): line for line in lines}
    for row in ROWS:
        for file in (folder / row.name).glob("*.json"):
            seed = int(file.stem)
            found[row.name, seed] = {"seed": seed} | json.loads(file.read_text())
    return {row.name: [found[key] for key in sorted(found) if key[0] == row.name] for row in ROWS}


def keep(kept: Path, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Puts results into a file, a line each, in the place of those that are there."""
    lines = [json.dumps({"row": row, **result}) for row, found in results.items() for result in found]
    kept.write_text("".join(line + "\n" for line in lines))


def table(rows: Sequence[Row], results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Returns Markdown: of each row means over its seeds, with standard deviations if there are several.

    Raises:
      ValueError: if runs of unequal numbers of updates are to be compared.
    """
    updates = {found["steps"] for row in rows for found in results.get(row.name, ())}
    if len(updates) > 1:
        raise ValueError(f"runs of {sorted(updates)} updates are not to be compared; take a folder for each")
    titles = (
        "row",
        "differs in",
        "dev perplexity",
        "dev BLEU",
        "parameters",
        "tokens/s",
        "seeds",
        "minutes a run",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        found = results.get(row.name, ())
        differs = ", ".join(f"`{key}={value}`" for key, value in row.changes.items()) or "nothing"
        cells = [row.name, differs]
        if found and found[0]["layers"]:
            taken = (statistics.mean(side) for side in zip(*(f["layers"] for f in found), strict=True))
            cells[-1] += f" (taken: {' + '.join(f'{mean:.2f}' for mean in taken)})"
        if found:
            cells += [_spread([f["perplexity"] for f in found], 2), _spread([f["bleu"] for f in found], 1)]
            cells.append(f"{found[0]['parameters']:,}")
            cells.append(f"{statistics.mean(f['tokens_per_second'] for f in found):,.0f}")
        else:
            cells += ["not run yet", "", "", ""]
        steps = next(iter(updates), STEPS)
        lines.append(f"| {' | '.join([*cells, str(len(found)), f'{minutes(row, steps):.1f}'])} |")
    return lines


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def write_between(file: Path, lines: Sequence[str]) -> None:
    """Puts lines between the marks of a document, in place of those that are there.

    Raises:
      ValueError: if it has not one pair of marks.
    """
    text = file.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{file}: has not one line '{BEGIN}' and one '{END}' after it")
    before, rest = text.split(BEGIN)
    file.write_text("\n".join([before + BEGIN, "", *lines, "", END]) + rest.split(END)[1])


def main(words: Sequence[str] | None = None) -> int:
    """Runs rows, or shows the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", type=Path, metavar="DIR", help="Multi30k")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "scratch" / "ablation")
    parser.add_argument("--rows", metavar="NAMES", help="some rows, with commas; default: all")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="updates of each run")
    parser.add_argument(
        "--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=SEEDS, metavar="I,J"
    )
    parser.add_argument("--docs", type=Path, metavar="FILE", help="table: write it between the marks there")
    parser.add_argument("--kept", type=Path, metavar="FILE", help="table: results of all folders so far")
    args, others = parser.parse_known_args(words)
    if strange := [word for word in others if not word.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(strange)}")
    names = [row.name for row in ROWS] if args.rows is None else args.rows.split(",")
    if unknown := set(names) - {row.name for row in ROWS}:
        parser.error(f"no row {', '.join(sorted(unknown))}; known: {', '.join(row.name for row in ROWS)}")
    rows = [row for row in ROWS if row.name in names]
    if args.what == "run":
        if args.data is None:
            parser.error("run: needs --data, the folder of Multi30k's text")
        return 0 if run(rows, args, others) else 1
    try:
        results = read(args.folder, args.kept)
        lines = table(rows, results)
        if args.kept:
            keep(args.kept, results)
        if args.docs:
            write_between(args.docs, lines)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
