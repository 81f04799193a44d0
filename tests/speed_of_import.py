"""How long `transformer import hf` and `export hf` take for 600 million parameters, and how much memory.

    python tests/speed_of_import.py [--folder DIR] [--dtype F16] [--small]

makes a folder of the shape of NLLB-200's distilled model in `DIR` (d_model 1024, 12 and 12 layers, d_ff 4096,
256,206 pieces; random numbers, 2.46 GB in float32), imports it and exports it again, each in a process of its
own, and prints seconds, the process's greatest resident memory, and that over the size of the parameters in
float32. With `--small` it is a tenth of that (d_model 512, 6 and 6 layers, d_ff 2048, 32,000 pieces).
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

LARGE, SMALL = (256_206, 1024, 4096, 12, 16), (32_000, 512, 2048, 6, 8)  # pieces, D, F, layers, heads
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


def shapes(pieces: int, D: int, F: int, layers: int, heads: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor by its name."""
    found: dict[str, tuple[int, ...]] = {"model.shared.weight": (pieces, D)}
    for stack, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        for layer in range(layers):
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


def write(folder: Path, dtype: str, sizes: tuple[int, int, int, int, int]) -> int:
    """Writes the folder tensor by tensor; returns the number of parameters."""
    from unit.exchange.hf_folders import sentencepiece_model

    count, D, F, layers, heads = sizes
    width = np.dtype(_TYPES[dtype]).itemsize
    header, place = {}, 0
    for name, shape in shapes(*sizes).items():
        size = int(np.prod(shape)) * width
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    content = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for shape in shapes(*sizes).values():
            for _ in range(int(np.prod(shape)) // 512):
                file.write(rng.standard_normal(512, np.float32).astype(_TYPES[dtype]).tobytes())
    stacks = {
        f"{stack}_{key}": value
        for stack in ("encoder", "decoder")
        for key, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", F))
    }
    settings = dict(model_type="m2m_100", d_model=D, vocab_size=count, activation_function="relu", **stacks)
    settings |= dict(max_position_embeddings=1024, scale_embedding=True, decoder_start_token_id=2)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "NllbTokenizer"}))
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_model(60, 0, model_type="bpe"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"piece{i}" for i in range(count - 6)), *LANGUAGES]
    special = [{"content": piece, "id": i, "special": True} for i, piece in enumerate(pieces)]
    added = [*special[:4], *special[-2:]]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [f"piece {i}" for i in range(count - 6)]
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": model}))
    return place // width


def measure(*arguments: str) -> tuple[float, float, int]:
    """Runs a verb; returns (seconds, seconds of processors, bytes of the greatest resident memory)."""
    began = time.perf_counter()
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    processors, kilobytes = done.stdout.splitlines()[-2:]
    return time.perf_counter() - began, float(processors), int(kilobytes) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="for some 5 GB; a temporary one by default")
    parser.add_argument("--dtype", choices=tuple(_TYPES), default="F32")
    parser.add_argument("--small", action="store_true", help="a tenth of the parameters")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        (root / "from").mkdir()
        count = write(root / "from", args.dtype, SMALL if args.small else LARGE)
        theirs, ours, back = (str(root / name) for name in ("from", "to", "back"))
        languages = ("--source_language", LANGUAGES[0], "--target_language", LANGUAGES[1])
        for verb, arguments in (
            ("import", ("--from", theirs, "--to", ours, *languages)),
            ("export", ("--model", ours, "--to", back)),
        ):
            seconds, processors, used = measure(verb, "hf", *arguments)
            times = f"{seconds:.1f} s ({processors:.1f} s of processors)"
            told = f"{used / 1e6:,.0f} MB, {used / 4 / count:.2f}"
            print(f"{verb}: {count:,} parameters, {args.dtype}: {times}, {told}", flush=True)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
