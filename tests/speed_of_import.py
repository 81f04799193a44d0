"""How long `transformer import hf` takes for 600 million parameters, and how much memory.

    python tests/speed_of_import.py [--folder DIR] [--dtype F16]

makes a folder of the shape of NLLB-200's distilled model in `DIR` (d_model 1024, 12 and 12 layers, d_ff 4096,
256,206 pieces; random numbers, 2.46 GB in float32), imports it in a process of its own, and prints seconds,
the process's greatest resident memory, and that over the size of the parameters in float32.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PIECES, D, F, LAYERS, HEADS = 256_206, 1024, 4096, 12, 16
LANGUAGES = ["eng_Latn", "deu_Latn"]
_TYPES = {"F32": np.float32, "F16": np.float16}
_PROGRAM = """
import pathlib, re, resource, sys
from transformer.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor by its name."""
    found: dict[str, tuple[int, ...]] = {"model.shared.weight": (PIECES, D)}
    for stack, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        for layer in range(LAYERS):
            at = f"model.{stack}.layers.{layer}"
            for attention in attentions:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    found |= {
                        f"{at}.{attention}.{part}.weight": (D, D),
                        f"{at}.{attention}.{part}.bias": (D,),
                    }
                found |= {f"{at}.{attention}_layer_norm.{leaf}": (D,) for leaf in ("weight", "bias")}
            found |= {f"{at}.fc1.weight": (F, D), f"{at}.fc1.bias": (F,)}
            found |= {f"{at}.fc2.weight": (D, F), f"{at}.fc2.bias": (D,)}
            found |= {f"{at}.final_layer_norm.{leaf}": (D,) for leaf in ("weight", "bias")}
        found |= {f"model.{stack}.layer_norm.{leaf}": (D,) for leaf in ("weight", "bias")}
    return found


def write(folder: Path, dtype: str) -> int:
    """Writes the folder tensor by tensor; returns the number of parameters."""
    from unit.exchange.hf_folders import sentencepiece_model

    width = np.dtype(_TYPES[dtype]).itemsize
    header, place = {}, 0
    for name, shape in shapes().items():
        size = int(np.prod(shape)) * width
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    content = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for shape in shapes().values():
            for _ in range(int(np.prod(shape)) // 1024):
                file.write(rng.standard_normal(1024, np.float32).astype(_TYPES[dtype]).tobytes())
    sizes = {
        f"{stack}_{key}": value
        for stack in ("encoder", "decoder")
        for key, value in (("layers", LAYERS), ("attention_heads", HEADS), ("ffn_dim", F))
    }
    settings = dict(model_type="m2m_100", d_model=D, vocab_size=PIECES, activation_function="relu", **sizes)
    settings |= dict(max_position_embeddings=1024, scale_embedding=True, decoder_start_token_id=2)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_model(60, 0, model_type="bpe"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"piece{i}" for i in range(PIECES - 6)), *LANGUAGES]
    special = [{"content": piece, "id": i, "special": True} for i, piece in enumerate(pieces)]
    added = [*special[:4], *special[-2:]]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [f"piece {i}" for i in range(PIECES - 6)]
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": model}))
    return place // width


def measure(folder: Path, target: Path) -> tuple[float, float, int]:
    """Imports; returns (seconds, seconds of processors, bytes of the greatest resident memory)."""
    languages = ["--source_language", LANGUAGES[0], "--target_language", LANGUAGES[1]]
    command = [sys.executable, "-c", _PROGRAM, "import", "hf", "--from", str(folder), "--to", str(target)]
    began = time.perf_counter()
    done = subprocess.run([*command, *languages], stdout=subprocess.PIPE, text=True, check=True)
    processors, kilobytes = done.stdout.split()
    return time.perf_counter() - began, float(processors), int(kilobytes) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="for some 5 GB; a temporary one by default")
    parser.add_argument("--dtype", choices=tuple(_TYPES), default="F32")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        (root / "from").mkdir()
        count = write(root / "from", args.dtype)
        seconds, processors, used = measure(root / "from", root / "to")
        times = f"{seconds:.1f} s ({processors:.1f} s of processors)"
        print(f"{count:,} parameters, {args.dtype}: {times}, {used / 1e6:,.0f} MB, {used / 4 / count:.2f}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
