"""A folder of Marian's own files made with NumPy, and the Transformer that it is, in NumPy.

After src/models/transformer.h of marian-nmt/marian-dev, one sentence at a time, in float64.
"""

from pathlib import Path
from typing import Any

import hf_folders
import numpy as np

HEADS, D, F, LAYERS = 3, 12, 10, (1, 2)
OPTIONS: dict[str, Any] = {
    "type": "transformer",
    "dim-emb": D,
    "dim-vocabs": None,
    "transformer-dim-ffn": F,
    "transformer-heads": HEADS,
    "enc-depth": LAYERS[0],
    "dec-depth": LAYERS[1],
    "transformer-ffn-activation": "swish",
    "transformer-ffn-depth": 2,
    "transformer-preprocess": '""',
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-decoder-autoreg": "self-attention",
    "transformer-tied-layers": "\n  []",  # as yaml-cpp writes it
    "transformer-aan-depth": 2,
    "tied-embeddings-all": "true",
    "version": "v1.12.0 65bf82f 2023-02-21",
}
PRE = {"transformer-preprocess": "n", "transformer-postprocess": "da", "transformer-postprocess-top": "n"}


def tensors(options: dict[str, Any], rows: tuple[int, int], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Returns random tensors by Marian's names, linear maps as [inputs, outputs]."""
    rng = np.random.default_rng(0)
    pre, top = options["transformer-preprocess"] == "n", options.get("transformer-postprocess-top") == "n"
    shapes: dict[str, tuple[int, ...]] = {"decoder_ff_logit_out_b": (1, rows[1])}
    if "true" in (options.get("tied-embeddings-all"), options.get("tied-embeddings-src")):
        shapes["Wemb"] = rows[0], D
    else:
        shapes |= {"encoder_Wemb": (rows[0], D), "decoder_Wemb": (rows[1], D)}
    if "true" not in (options.get("tied-embeddings-all"), options.get("tied-embeddings")):
        shapes["decoder_ff_logit_out_Wt"] = rows[1], D
    norms = []
    for stack, depth in zip(("encoder", "decoder"), LAYERS, strict=True):
        norms += [f"{stack}_top"] * top
        if options["transformer-postprocess-emb"] == "nd":
            shapes |= {f"{stack}_emb_ln_{leaf}_pre": (1, D) for leaf in ("scale", "bias")}
        for layer in (f"{stack}_l{i + 1}" for i in range(depth)):
            for part in ("self", "context")[: 1 + (stack == "decoder")]:
                shapes |= {f"{layer}_{part}_W{x}": (D, D) for x in "qkvo"}
                shapes |= {f"{layer}_{part}_b{x}": (1, D) for x in "qkvo"}
                norms.append(f"{layer}_{part}_Wo")
            norms.append(f"{layer}_ffn_ffn")
            shapes |= {f"{layer}_ffn_W1": (D, F), f"{layer}_ffn_b1": (1, F)}
            shapes |= {f"{layer}_ffn_W2": (F, D), f"{layer}_ffn_b2": (1, D)}
    for name in norms:
        end = "_pre" if pre and not name.endswith("_top") else ""
        shapes |= {f"{name}_ln_{leaf}{end}": (1, D) for leaf in ("scale", "bias")}
    return {name: rng.normal(0, 0.5, shape).astype(dtype) for name, shape in shapes.items()}


def vocabulary(model: bytes, more: int = 0) -> list[str]:
    """Returns the pieces in the order of their ids."""
    return ["</s>", "<unk>", *hf_folders.pieces_of(model), *(f"more{i}" for i in range(more))]


def as_yaml(pieces: list[str]) -> str:
    """Returns them as marian-vocab writes them."""
    quoted = ['"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces]
    plain = [
        piece if piece.replace("▁", "").isalpha() else text
        for piece, text in zip(pieces, quoted, strict=True)
    ]
    return "".join(f"{piece}: {i}\n" for i, piece in enumerate(plain))


def save(path: Path, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> None:
    """Writes model.npz with the options as Marian keeps them: bytes with a zero behind them."""
    told = {key: value for key, value in options.items() if value is not None}
    text = "".join(f"{key}:{'' if str(v).startswith(chr(10)) else ' '}{v}\n" for key, v in told.items())
    content = np.frombuffer(text.encode() + bytes(256 - len(text.encode()) % 256), np.int8)
    np.savez(path, **arrays, **{"special:model.yml": content})


def write(
    folder: Path, more: tuple[int, int] = (0, 0), dtype: Any = np.float32, **changes: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Writes a folder like those of OPUS-MT; returns (tensors, options).

    Args:
      folder: to make.
      more: pieces of the source and target beyond those of their SentencePiece models.
      dtype: of the tensors.
      changes: of options, _ for -; None removes one.
    """
    options = OPTIONS | {key.replace("_", "-"): value for key, value in changes.items()}
    folder.mkdir()
    joint = "true" in (options.get("tied-embeddings-all"), options.get("tied-embeddings-src"))
    models = [hf_folders.sentencepiece_model(*size) for size in ((47, 0), (53, 1))]
    sides = [vocabulary(model, n) for model, n in zip(models, more, strict=True)]
    if joint:
        sides = [list(dict.fromkeys([*sides[0], *sides[1]]))] * 2
    for name, model in zip(("source.spm", "target.spm"), models, strict=True):
        (folder / name).write_bytes(model)
    names = ["opus.vocab.yml"] * 2 if joint else ["opus.src.vocab.yml", "opus.trg.vocab.yml"]
    for name, side in zip(names, sides, strict=True):
        (folder / name).write_text(as_yaml(side), encoding="utf-8")
    arrays = tensors(options, (len(sides[0]), len(sides[1])), dtype)
    save(
        folder / "opus.model.npz",
        arrays,
        options | {"dim-vocabs": f"\n  - {len(sides[0])}\n  - {len(sides[1])}"},
    )
    return arrays, options


def norm(x: np.ndarray, p: dict[str, np.ndarray], name: str) -> np.ndarray:
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    suffix = "" if f"{name}_ln_scale" in p else "_pre"
    return y * p[f"{name}_ln_scale{suffix}"] + p[f"{name}_ln_bias{suffix}"]


def embedded(rows_TD: np.ndarray) -> np.ndarray:
    half = D // 2
    angle = np.arange(len(rows_TD))[:, None] * np.exp(-np.log(10000.0) / (half - 1) * np.arange(half))
    return np.sqrt(D) * rows_TD + np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def attention(
    p: dict[str, np.ndarray], name: str, x: np.ndarray, read: np.ndarray, causal: bool
) -> np.ndarray:
    q, k, v = (y @ p[f"{name}_W{s}"] + p[f"{name}_b{s}"] for s, y in (("q", x), ("k", read), ("v", read)))
    parts = []
    for head in np.split(np.arange(D), HEADS):
        scores = q[:, head] @ k[:, head].T / np.sqrt(D // HEADS)
        if causal:
            scores = np.where(np.tri(len(scores), dtype=bool), scores, -1e9)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        parts.append(weights / weights.sum(-1, keepdims=True) @ v[:, head])
    return np.concatenate(parts, axis=1) @ p[f"{name}_Wo"] + p[f"{name}_bo"]


def logits(
    p: dict[str, np.ndarray], options: dict[str, Any], source: list[int], target: list[int]
) -> np.ndarray:
    """Returns the logits of each target id, and of what comes behind the last one."""
    p = {name: x.astype(np.float64) for name, x in p.items()}
    pre, relu = options["transformer-preprocess"] == "n", options["transformer-ffn-activation"] == "relu"

    def sublayer(x: np.ndarray, name: str, f: Any) -> np.ndarray:
        return x + f(norm(x, p, name)) if pre else norm(x + f(x), p, name)

    def feed_forward(x: np.ndarray, name: str) -> np.ndarray:
        h = x @ p[f"{name}_W1"] + p[f"{name}_b1"]
        h = np.maximum(h, 0) if relu else h / (1 + np.exp(-h))
        return h @ p[f"{name}_W2"] + p[f"{name}_b2"]

    def stack(name: str, depth: int, x: np.ndarray, context: np.ndarray | None) -> np.ndarray:
        x = embedded(x)
        x = norm(x, p, f"{name}_emb") if options["transformer-postprocess-emb"] == "nd" else x
        for layer in (f"{name}_l{i + 1}" for i in range(depth)):
            own = f"{layer}_self"
            x = sublayer(x, f"{own}_Wo", lambda y, n=own: attention(p, n, y, y, context is not None))
            if context is not None:
                other = f"{layer}_context"
                x = sublayer(x, f"{other}_Wo", lambda y, n=other: attention(p, n, y, context, False))
            x = sublayer(x, f"{layer}_ffn_ffn", lambda y, n=f"{layer}_ffn": feed_forward(y, n))
        return norm(x, p, f"{name}_top") if options.get("transformer-postprocess-top") == "n" else x

    tables = [p.get("Wemb", p.get(f"{side}_Wemb")) for side in ("encoder", "decoder")]
    inputs = np.concatenate([np.zeros((1, D)), tables[1][target]])  # nothing comes before the first
    x = stack("decoder", LAYERS[1], inputs, stack("encoder", LAYERS[0], tables[0][source], None))
    output = p.get("decoder_ff_logit_out_Wt", tables[1])
    return x @ output.T + p["decoder_ff_logit_out_b"]
