"""A folder with a state of fairseq's `transformer` made with NumPy, and the Transformer that it is, in NumPy.

After fairseq/models/transformer and fairseq/modules of facebookresearch/fairseq, in float64.
"""

import json
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
from safetensors.numpy import save_file

HEADS, D, F, LAYERS, PAD = 3, 12, 10, (1, 2), 1
SETTINGS: dict[str, Any] = {
    "arch": "transformer_iwslt_de_en",
    "task": "translation",
    "source_lang": "de",
    "target_lang": "en",
    **{f"{stack}_embed_dim": D for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_embed_dim": F for stack in ("encoder", "decoder")},
    **{f"{stack}_attention_heads": HEADS for stack in ("encoder", "decoder")},
    "encoder_layers": LAYERS[0],
    "decoder_layers": LAYERS[1],
    "activation_fn": "relu",
    "max_source_positions": 64,
    "max_target_positions": 64,
    "share_all_embeddings": True,
    "adaptive_softmax_cutoff": None,
    "decoder_output_dim": D,
}


def tensors(settings: dict[str, Any], rows: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns random tensors by fairseq's names, linear maps as [outputs, inputs]; tied tables are copies."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int) -> None:
        found[name] = rng.normal(0, 0.5, shape).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def norm(name: str) -> None:
        add(f"{name}.weight", D)
        add(f"{name}.bias", D)

    for stack, depth, count in zip(("encoder", "decoder"), LAYERS, rows, strict=True):
        add(f"{stack}.embed_tokens.weight", count, D)
        found[f"{stack}.version"] = np.full(1, 3.0, np.float32)
        if settings.get("encoder_learned_pos"):
            add(f"{stack}.embed_positions.weight", 64 + PAD + 1, D)
        else:
            found[f"{stack}.embed_positions._float_tensor"] = np.zeros(1, np.float32)
        for at in (f"{stack}.layers.{i}" for i in range(depth)):
            for part in ("self_attn", "encoder_attn")[: 1 + (stack == "decoder")]:
                for leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    linear(f"{at}.{part}.{leaf}", D, D)
                norm(f"{at}.{part}_layer_norm")
            linear(f"{at}.fc1", F, D)
            linear(f"{at}.fc2", D, F)
            norm(f"{at}.final_layer_norm")
        if settings.get("encoder_normalize_before"):
            norm(f"{stack}.layer_norm")
        if settings.get("layernorm_embedding"):
            norm(f"{stack}.layernorm_embedding")
    add("decoder.output_projection.weight", rows[1], D)
    table, output = "decoder.embed_tokens.weight", "decoder.output_projection.weight"
    if settings.get("share_all_embeddings"):
        found[table] = found["encoder.embed_tokens.weight"].copy()
    if settings.get("share_all_embeddings") or settings.get("share_decoder_input_output_embed"):
        found[output] = found[table].copy()
    return found


def write(folder: Path, **changes: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Writes a folder; returns (tensors, settings). `changes` are of settings; None removes one."""
    settings = {key: x for key, x in {**SETTINGS, **changes}.items() if x is not None}
    folder.mkdir()
    models = [hf_folders.sentencepiece_model(*size) for size in ((47, 0), (53, 1))]
    sides = [hf_folders.pieces_of(model) for model in models]
    if settings.get("share_all_embeddings"):
        sides = [list(dict.fromkeys([*sides[0], *sides[1]]))] * 2
    for name, model in zip(("source.spm", "target.spm"), models, strict=True):
        (folder / name).write_bytes(model)
    for language, side in zip(("de", "en"), sides, strict=True):
        lines = [f"{piece} {99 - i}" for i, piece in enumerate([*side, "madeupword0000"])]
        (folder / f"dict.{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(settings))
    arrays = tensors(settings, (len(sides[0]) + 5, len(sides[1]) + 5))
    save_file(arrays, folder / "model.safetensors")
    return arrays, settings


def logits(
    p: dict[str, np.ndarray], settings: dict[str, Any], source: list[int], target: list[int]
) -> np.ndarray:
    """Returns the logits of each target id, and of what comes behind the last one."""
    p = {name: x.astype(np.float64) for name, x in p.items()}
    pre = settings.get("encoder_normalize_before", False)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * p[f"{name}.weight"] + p[f"{name}.bias"]

    def attention(name: str, x: np.ndarray, read: np.ndarray, causal: bool) -> np.ndarray:
        q, k, v = (linear(f"{name}.{leaf}_proj", y) for leaf, y in (("q", x), ("k", read), ("v", read)))
        parts = []
        for head in np.split(np.arange(D), HEADS):
            scores = q[:, head] @ k[:, head].T / np.sqrt(D // HEADS)
            if causal:
                scores = np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            parts.append(weights / weights.sum(-1, keepdims=True) @ v[:, head])
        return linear(f"{name}.out_proj", np.concatenate(parts, axis=1))

    def positions(stack: str, length: int) -> np.ndarray:
        places = np.arange(length) + PAD + 1
        if settings.get("encoder_learned_pos"):
            return p[f"{stack}.embed_positions.weight"][places]
        angle = places[:, None] * np.exp(-np.log(10000.0) / (D // 2 - 1) * np.arange(D // 2))
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    def stack(name: str, depth: int, ids: list[int], context: np.ndarray | None) -> np.ndarray:
        scale = 1.0 if settings.get("no_scale_embedding") else np.sqrt(D)
        x = scale * p[f"{name}.embed_tokens.weight"][ids] + positions(name, len(ids))
        x = norm(f"{name}.layernorm_embedding", x) if settings.get("layernorm_embedding") else x
        for at in (f"{name}.layers.{i}" for i in range(depth)):
            parts: list[tuple[str, Any]] = [
                (f"{at}.self_attn", lambda y, n: attention(n, y, y, context is not None))
            ]
            if context is not None:
                parts.append((f"{at}.encoder_attn", lambda y, n: attention(n, y, context, False)))
            parts.append((f"{at}.final", lambda y, n, at=at: feed_forward(at, y)))
            for part, f in parts:
                own = f"{part}_layer_norm"
                x = x + f(norm(own, x), part) if pre else norm(own, x + f(x, part))
        return norm(f"{name}.layer_norm", x) if pre else x

    def feed_forward(at: str, x: np.ndarray) -> np.ndarray:
        return linear(f"{at}.fc2", np.maximum(linear(f"{at}.fc1", x), 0))

    context = stack("encoder", LAYERS[0], source, None)
    y = stack("decoder", LAYERS[1], [2, *target], context)  # the end mark begins
    return y @ p["decoder.output_projection.weight"].T
