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

_CUDA = {"cpu": "cpu", "gpu": "cuda"}  # PyTorch's names

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


def train_contenders(
    size: str, data: str, scratch: Path, steps: int, warmup: int, tokens: int, device: str, python: Path
) -> list[Contender]:
    """Returns who trains on `scratch/pairs.npz` in the order of a round: stock and tuned on the CPU.

    Args:
      size: recipe of benchmarks/recipes.
      data: folder of its files.
      scratch: where `bridge.py pairs` has been.
      steps, warmup: measured, and before them.
      tokens: real target tokens of a step, about.
      device: "cpu" in float32, or "gpu" in bfloat16.
      python: of PyTorch.
    """
    sizes = _sizes(scratch / "pairs.npz")
    length = ["--steps", str(steps), "--warmup", str(warmup)]
    recipe = ["--config", HERE / "recipes" / f"{size}.py", f"--config.data.root={data}", "--workdir", scratch]
    recipe.append(f"--config.data.batch_tokens={tokens}")
    ours = [sys.executable, "-m", "transformer", "benchmark", "train", *recipe, *length]
    torch = [python, PEERS / "train_marian.py", "--pairs", scratch / "pairs.npz", "--sizes", sizes, *length]
    torch += ["--target_tokens", str(tokens), "--device", _CUDA[device]]
    peers = [
        Contender("torch", torch, dict, needs=(python, "torch")),
        Contender("torch compiled", [*torch, "--compile"], dict, needs=(python, "torch")),
    ]
    if device == "gpu":
        ours.append("--config.model.dtype=bfloat16")
        fused = [*ours, "--config.model.attention_implementation=cudnn"]
        return [
            Contender("ours", ours, _read_ours),
            Contender("ours, cudnn attention", fused, _read_ours),
            *peers,
        ]
    parts = [*ours, "--config.optim.accumulation_steps=2"]
    stock = [
        Contender("ours", ours, _read_ours, {"JAX_PLATFORMS": "cpu"}),
        Contender("ours, step in two parts", parts, _read_ours, {"JAX_PLATFORMS": "cpu"}),
        *peers,
    ]
    return [*stock, *with_mkl(stock), *tuned(stock), *tuned(with_mkl(stock))]


def decode_contenders(
    model: str, checkpoint: str, scratch: Path, beam: int, batch: int, device: str, python: Path
) -> list[Contender]:
    """Returns who translates `scratch/source.txt` with the run's weights, in the order of a round.

    Args:
      model: folder of the run.
      checkpoint: best, last or a step.
      scratch: where `bridge.py` has put text and weights.
      beam, batch: sizes.
      device: "cpu" or "gpu".
      python: of PyTorch.
    """
    config = load(Path(model) / "config.json")
    search = config["decode"]
    asked: list[str | Path] = ["--beam_size", str(beam), "--batch_size", str(batch)]
    asked += ["--length_penalty", str(search["length_penalty"])]
    asked += ["--max_extra_length", str(search["max_extra_length"]), "--sentences", scratch / "source.npz"]
    text = ["--source", scratch / "source.txt", "--reference", scratch / "reference.txt"]
    ours = [sys.executable, "-m", "transformer", "benchmark", "decode", "--model", model, *text]
    ours += ["--checkpoint", checkpoint, "--repeats", "1"]
    ours += ["--beam_sizes", str(beam), "--batch_sizes", str(batch)]
    other = peer_python("ctranslate2")
    marian = [python, PEERS / "decode_marian.py", "--weights", scratch / "weights.npz", *asked]
    marian += ["--device", _CUDA[device], "--dtype", config["model"]["dtype"]]
    found = [
        Contender("ours", ours, _read_our_decoding, {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}),
        Contender("generate()", marian, _rates, needs=(python, "torch")),
    ]
    if device == "gpu":
        return found
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


def peer_python(peer: str) -> Path:
    """Returns the interpreter of a peer's own environment."""
    return PEERS / f".venv-{peer}" / "bin" / "python"


def _sizes(file: Path) -> str:
    import numpy as np

    with np.load(file, allow_pickle=False) as arrays:
        return str(arrays["sizes"])


def _read_ours(result: Result) -> Result:
    """Returns the figures of `transformer benchmark train` by the peers' names."""
    same = ("source_tokens_per_second", "target_tokens_per_second", "target_tokens_per_step")
    same += ("step_time_median", "step_time_p90", "padding_target", "compile_time", "cores_busy")
    same += ("peak_memory", "last_loss", "model_flops_per_target_token", "gemm_peak")
    figures = {name: result["figures"][name]["value"] for name in same}
    return {**figures, **_surroundings(result)}


def _surroundings(result: Result) -> Result:
    return {
        "versions": result["versions"],
        "threads": result["host"]["usable_cores"],
        "device": result["devices"]["kind"],
    }


def _read_our_decoding(result: Result) -> Result:
    (row,) = result["settings"]
    return {
        "sentences_per_second": row["sentences_per_second"]["median"],
        "output_tokens_per_second": row["output_tokens_per_second"]["median"],
        "bleu": row["bleu"],
        "peak_memory": result["peak_memory_bytes"],
        **_surroundings(result),
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
