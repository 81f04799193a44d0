"""Who is compared: for each contender its command, its environment, and how its figures are read."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PEERS = HERE / "peers"
# glibc gives large blocks back to the system at once and is given them anew, page by page, in every step.
# These keep them, for all threads in one place, and ask for huge pages.
TUNED = ":".join(
    f"glibc.malloc.{name}"
    for name in ("mmap_threshold=17179869184", "trim_threshold=17179869184", "hugetlb=1", "arena_max=1")
)
MKL = PEERS / "mkl_intel.so"

Result = dict[str, Any]


class Contender(NamedTuple):
    """A program with its settings.

    Attributes:
      name: for the table.
      command: without `--json FILE`.
      read: from the JSON that it wrote to the figures that all contenders have.
      environment: variables that it needs beside those that are there.
      needs: files without which it is skipped, and the target of peers/Makefile that makes them.
    """

    name: str
    command: Sequence[str | Path]
    read: Callable[[Result], Result]
    environment: Mapping[str, str] = MappingProxyType({})
    needs: tuple[Path, str] | None = None

    def missing(self) -> str | None:
        """Returns why it cannot run here, or None."""
        if self.needs is None or self.needs[0].exists():
            return None
        return f"{self.name}: skipped: not installed; make -C benchmarks/peers {self.needs[1]}"


def train_contenders(size: str, data: str, scratch: Path, steps: int, warmup: int) -> list[Contender]:
    """Returns who trains on `scratch/pairs.npz`, stock and tuned, in the order of a round."""
    sizes = _sizes(scratch / "pairs.npz")
    length = ["--steps", str(steps), "--warmup", str(warmup)]
    recipe = ["--config", HERE / "recipes" / f"{size}.py", f"--config.data.root={data}", "--workdir", scratch]
    ours = [sys.executable, "-m", "transformer", "benchmark", "train", *recipe, *length]
    python = _python("torch")
    torch = [python, PEERS / "train_marian.py", "--pairs", scratch / "pairs.npz", "--sizes", sizes, *length]
    stock = [
        Contender("ours", ours, _read_ours),
        Contender("torch", torch, dict, needs=(python, "torch")),
        Contender("torch compiled", [*torch, "--compile"], dict, needs=(python, "torch")),
    ]
    return [*stock, *with_mkl(stock), *tuned(stock), *tuned(with_mkl(stock))]


def decode_contenders(model: str, checkpoint: str, scratch: Path, beam: int, batch: int) -> list[Contender]:
    """Returns who translates `scratch/source.txt` with the run's weights, in the order of a round."""
    search = load(Path(model) / "config.json")["decode"]
    asked: list[str | Path] = ["--beam_size", str(beam), "--batch_size", str(batch)]
    asked += ["--length_penalty", str(search["length_penalty"])]
    asked += ["--max_extra_length", str(search["max_extra_length"]), "--sentences", scratch / "source.npz"]
    text = ["--source", scratch / "source.txt", "--reference", scratch / "reference.txt"]
    ours = [sys.executable, "-m", "transformer", "benchmark", "decode", "--model", model, *text]
    ours += ["--checkpoint", checkpoint, "--repeats", "1"]
    ours += ["--beam_sizes", str(beam), "--batch_sizes", str(batch)]
    python, other = _python("torch"), _python("ctranslate2")
    marian = [python, PEERS / "decode_marian.py", "--weights", scratch / "weights.npz", *asked]
    found = [
        Contender("ours", ours, _read_our_decoding),
        Contender("generate()", marian, _rates, needs=(python, "torch")),
    ]
    cores = len(os.sched_getaffinity(0))
    for kind in ("float32", "int8"):
        for inter, intra in dict.fromkeys([(1, cores), (cores, 1)]):
            command = [
                other,
                PEERS / "decode_ctranslate2.py",
                "--model",
                scratch / kind,
                "--compute_type",
                kind,
            ]
            command += ["--inter_threads", str(inter), "--intra_threads", str(intra), *asked]
            name = f"ctranslate2 {kind} {inter} x {intra}"
            found.append(Contender(name, command, _rates, needs=(other, "ctranslate2")))
    return [*found, *with_mkl(found)]


def tuned(contenders: Sequence[Contender]) -> list[Contender]:
    """Returns the same with the tuned allocator."""
    return [
        c._replace(name=f"{c.name}, tuned", environment={**c.environment, "GLIBC_TUNABLES": TUNED})
        for c in contenders
    ]


def with_mkl(contenders: Sequence[Contender]) -> list[Contender]:
    """Returns the PyTorch contenders with MKL's fast path, on processors of AMD; elsewhere none."""
    if processor()[0] != "AuthenticAMD":
        return []
    return [
        c._replace(
            name=f"{c.name}, MKL", environment={**c.environment, "LD_PRELOAD": str(MKL)}, needs=(MKL, "mkl")
        )
        for c in contenders
        if c.needs and c.needs[1] == "torch" and not c.missing()
    ]


def processor() -> tuple[str, str]:
    """Returns vendor and name of the processor as Linux tells them."""
    facts = dict.fromkeys(("vendor_id", "model name"), "unknown")
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in facts:
            facts[key.strip()] = value.strip()
    return facts["vendor_id"], facts["model name"]


def _python(peer: str) -> Path:
    return PEERS / f".venv-{peer}" / "bin" / "python"


def _sizes(file: Path) -> str:
    import numpy as np

    with np.load(file, allow_pickle=False) as arrays:
        return str(arrays["sizes"])


def _read_ours(result: Result) -> Result:
    """Returns the figures of `transformer benchmark train` by the peers' names."""
    same = ("source_tokens_per_second", "target_tokens_per_second", "target_tokens_per_step")
    same += ("step_time_median", "step_time_p90", "padding_target", "compile_time", "cores_busy")
    same += ("peak_memory", "last_loss")
    figures = {name: result["figures"][name]["value"] for name in same}
    return {**figures, "versions": result["versions"], "threads": result["host"]["usable_cores"]}


def _read_our_decoding(result: Result) -> Result:
    (row,) = result["settings"]
    return {
        "sentences_per_second": row["sentences_per_second"]["median"],
        "output_tokens_per_second": row["output_tokens_per_second"]["median"],
        "bleu": row["bleu"],
        "peak_memory": result["peak_memory_bytes"],
        "versions": result["versions"],
        "threads": result["host"]["usable_cores"],
    }


def _rates(result: Result) -> Result:
    """Returns the figures of a peer that translated: outputs and seconds, scored by bridge.py."""
    seconds = result["seconds"]
    return {
        **result,
        "sentences_per_second": result["sentences"] / seconds,
        "output_tokens_per_second": result["output_tokens"] / seconds,
    }


def load(file: Path) -> Result:
    """Returns the JSON in a file."""
    found: Result = json.loads(file.read_text())
    return found
