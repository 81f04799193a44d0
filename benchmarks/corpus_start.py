"""What the start of a run costs with so many sentence pairs: the first one, and the next in the same folder.

    python benchmarks/corpus_start.py --pairs 100000 --json FILE

Writes two files of synthetic lines (12 words of a vocabulary of 20,000 on the mean) to a temporary folder
and prepares them twice as `transformer train` does, each time in a process of its own: tokenizer (trained on
20,000 lines, the first time only), encoded pairs, one pair read from them. "reading once" is reading both.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from transformer.benchmark.resources import resident_peak
from transformer.config import Config, DataConfig, ModelConfig, TokenizerConfig
from transformer.io.workdir import Workdir
from transformer.run.prepare import prepare_data

_BLOCK = 100_000  # lines written together


def write_lines(file: Path, pairs: int, seed: int) -> None:
    """Writes random lines of 4 to 20 words."""
    rng = np.random.default_rng(seed)
    letters = rng.integers(97, 123, (20_000, 8)).astype(np.uint8)
    words = [bytes(row[: 2 + i % 7]).decode() for i, row in enumerate(letters)]
    with file.open("w") as out:
        for start in range(0, pairs, _BLOCK):
            lengths = rng.integers(4, 21, min(_BLOCK, pairs - start))
            drawn = iter(rng.zipf(1.3, lengths.sum()) % len(words))
            out.writelines(" ".join(words[next(drawn)] for _ in range(n)) + "\n" for n in lengths)


def prepare(folder: Path) -> None:
    """Prepares the data of `folder` in this process; prints seconds and the most resident bytes."""
    data = DataConfig(train_source=("source.txt",), train_target=("target.txt",), root=str(folder))
    config = Config(
        ModelConfig(max_length=64), TokenizerConfig(vocab_size=4000, max_training_lines=20_000), data
    )
    begin = time.perf_counter()
    train = prepare_data(config, Workdir(folder / "run"), lambda line: print(line, file=sys.stderr)).train[0]
    train[len(train) // 2]
    print(time.perf_counter() - begin, resident_peak())


def start(folder: Path) -> tuple[float, float]:
    """Returns seconds and most resident GiB of `prepare` in a new process."""
    command = [sys.executable, __file__, "--start", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak / 2**30


def main() -> None:
    """Measures one size and writes JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        prepare(args.start)
        return
    if not (args.pairs and args.json):
        parser.error("--pairs and --json are needed")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for seed, side in enumerate(("source", "target")):
            write_lines(folder / f"{side}.txt", args.pairs, seed)
        begin = time.perf_counter()
        for side in ("source", "target"):
            (folder / f"{side}.txt").read_bytes()
        reading = time.perf_counter() - begin
        (first, first_peak), (second, second_peak) = start(folder), start(folder)
    found = {
        "second start s": second,
        "first start s": first,
        "reading once s": reading,
        "first peak GiB": first_peak,
        "second peak GiB": second_peak,
    }
    args.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
