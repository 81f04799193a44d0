"""A packed, padded batch and random parameters, shared by the tests in this folder."""

from typing import Any

import jax
import numpy as np

from transformer.config import ModelConfig
from transformer.model.transformer import Transformer

Array = np.ndarray

# Row 0: three pairs packed, then padding; row 1: one pair with padding; row 2: one pair, full.
SRC_SEG = np.array([[1, 1, 2, 2, 2, 3, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]], np.int32)
TGT_SEG = np.array([[1, 2, 2, 2, 3, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]], np.int32)
MAX_LENGTH = 8

# What models of others have and the paper's does not, by their families.
_T5: dict[str, Any] = dict(
    norm="pre",
    norm_type="rms",
    feed_forward_bias=False,
    positions="relative",
    relative_buckets=8,
    relative_max_distance=6,
    head_size=5,
    scale_embeddings=False,
    scale_queries=False,
)
FAMILIES: dict[str, dict[str, Any]] = {
    "marian": dict(
        activation="swish",
        attention_bias=True,
        positions="sinusoidal_split",
        logits_bias=True,
        norm_epsilon=1e-5,
    ),
    "m2m100": dict(norm="pre", attention_bias=True, positions="sinusoidal_halves", position_offset=2),
    "bart": dict(
        activation="gelu",
        attention_bias=True,
        positions="learned",
        position_offset=2,
        embedding_norm=True,
        scale_embeddings=False,
        logits_bias=True,
    ),
    "t5": dict(_T5, scale_logits=True),
    "umt5": dict(
        _T5,
        activation="gelu_tanh",
        gated_feed_forward=True,
        relative_shared=False,
        tied_embeddings="inputs",
        num_decoder_layers=2,
    ),
}

# Other scores, positions and heads of keys.
MECHANISMS: dict[str, dict[str, Any]] = {
    "rotary": dict(positions="rotary"),
    "alibi_five_heads": dict(positions="alibi", num_heads=5, head_size=2, norm="pre"),
    "general_grouped": dict(
        attention_score="general", positions="none", num_heads=4, num_kv_heads=2, attention_bias=True
    ),
    "additive_multi_query": dict(attention_score="additive", num_kv_heads=1, num_decoder_layers=2),
    "window_rotary_multi_query": dict(
        attention="window", attention_radius=2, positions="rotary", num_kv_heads=1, num_decoder_layers=2
    ),
    "block_additive_buckets": dict(
        attention="block",
        attention_radius=1,
        attention_score="additive",
        positions="relative",
        relative_buckets=8,
        relative_max_distance=6,
        relative_shared=False,
        num_kv_heads=1,
    ),
    "window_global_alibi": dict(attention="window", attention_radius=1, global_tokens=2, positions="alibi"),
    "block_global_general": dict(
        attention="block", attention_radius=2, global_tokens=1, attention_score="general", norm="pre"
    ),
    "shaw": dict(positions="shaw", relative_max_distance=2, num_decoder_layers=2),
    "shaw_far_general": dict(
        positions="shaw",
        relative_max_distance=9,
        attention_score="general",
        num_kv_heads=1,
        scale_queries=False,
    ),
    "shaw_window": dict(
        positions="shaw", relative_max_distance=1, attention="window", attention_radius=2, norm="pre"
    ),
    "compressed_chunked": dict(attention="compressed", chunk_length=3, activation="gelu"),
    "compressed_additive_multi_query": dict(
        attention="compressed",
        compression=2,
        attention_score="additive",
        positions="learned",
        num_kv_heads=1,
        norm="pre",
    ),
    "alternating_chunked": dict(
        attention="alternating", attention_radius=1, compression=2, num_encoder_layers=3, chunk_length=4
    ),
    "rotary_multi_query_unscaled": dict(
        positions="rotary", num_kv_heads=1, scale_queries=False, num_decoder_layers=2, norm="pre"
    ),
}

# One layer at every depth.
RECURRENCES: dict[str, dict[str, Any]] = {
    "recurrent_fixed": dict(recurrence="fixed", norm="pre", positions="learned", num_decoder_layers=2),
    "recurrent_adaptive": dict(recurrence="adaptive", num_encoder_layers=3, num_decoder_layers=3),
}


# Language models: one stack over a source, if there is one, and its target.
ALONE: dict[str, dict[str, Any]] = {
    "prefix_buckets": dict(
        kind="decoder_only",
        prefix="bidirectional",
        norm="pre",
        positions="relative",
        relative_buckets=8,
        relative_max_distance=6,
        num_decoder_layers=2,
    ),
    "prefix_rotary_grouped": dict(
        kind="decoder_only",
        prefix="causal",
        positions="rotary",
        num_heads=4,
        head_size=4,
        num_kv_heads=2,
        tied_embeddings="inputs",
        num_decoder_layers=2,
    ),
    "prefix_learned": dict(
        kind="decoder_only",
        prefix="bidirectional",
        positions="learned",
        attention_bias=True,
        logits_bias=True,
    ),
    "prefix_alibi_adaptive": dict(
        kind="decoder_only", prefix="causal", positions="alibi", recurrence="adaptive", num_decoder_layers=3
    ),
    "text_gated_additive": dict(
        kind="decoder_only",
        attention_score="additive",
        activation="gelu",
        gated_feed_forward=True,
        norm_type="rms",
        scale_logits=True,
        num_decoder_layers=2,
    ),
}

# An encoder alone: of as many pieces on both sides, and of labels, which have a table of their own.
ENCODERS: dict[str, dict[str, Any]] = {
    "masked_language_model": dict(
        kind="encoder_only", activation="gelu", logits_bias=True, scale_logits=True
    ),
    "classifier": dict(
        kind="encoder_only", norm="pre", positions="relative", relative_buckets=8, target_vocab=5
    ),
}

# Sources of vectors in place of tokens; what stands in padding must not matter.
FRAMES: dict[str, dict[str, Any]] = {
    "frames": dict(source_features=5, norm="pre"),
    "frames_window_untied": dict(
        source_features=3, attention="window", attention_radius=1, positions="learned", tied_embeddings="none"
    ),
}


def model_config(**changes: Any) -> ModelConfig:
    """Returns a small configuration without dropout: three heads of size 4, unequal depths."""
    sizes = dict(d_model=12, d_ff=10, num_heads=3, num_encoder_layers=2, num_decoder_layers=1)
    return ModelConfig(**{**sizes, "dropout_rate": 0.0, "max_length": MAX_LENGTH, **changes})


def build(config: ModelConfig, target_vocab: int = 13) -> Transformer:
    """Returns the model, with vocabularies of two sizes where the embeddings allow it."""
    source_vocab = 13 if config.tied_embeddings in ("all", "inputs") else 11
    return Transformer(config=config, source_vocab=source_vocab, target_vocab=target_vocab)


def batch(model: Transformer, seed: int = 0) -> tuple[tuple[Array, ...], Array]:
    """Returns the six inputs of the model (int32, padding where the segment is 0) and labels [B, T].

    An encoder alone is asked something at every other source position.
    """
    rng = np.random.default_rng(seed)

    def side(seg: Array, vocab: int) -> tuple[Array, Array, Array]:
        ids = rng.integers(1, vocab, seg.shape) * (seg > 0)
        pos = np.array([[int((row[:i] == row[i]).sum()) for i in range(len(row))] for row in seg])
        return ids.astype(np.int32), seg, (pos * (seg > 0)).astype(np.int32)

    c = model.config
    src_seg, tgt_seg = SRC_SEG if c.reads_source else SRC_SEG[:, :0], TGT_SEG
    if c.kind == "encoder_only":
        tgt_seg = SRC_SEG * (np.arange(SRC_SEG.shape[1]) % 2 == 0)
    inputs = (*side(src_seg, model.source_vocab), *side(tgt_seg, model.target_vocab))
    if c.source_features:
        inputs = rng.normal(size=(*src_seg.shape, c.source_features)).astype(np.float32), *inputs[1:]
    return inputs, rng.integers(1, model.target_vocab, tgt_seg.shape).astype(np.int32)


def random_params(model: Transformer, seed: int = 0) -> Any:
    """Returns a float32 parameter tree in which biases and norms, too, differ from their initial values."""
    inputs, _ = batch(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: Any) -> Array:
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return rng.normal(centre, 0.3, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def flatten(tree: Any) -> dict[str, Array]:
    """Returns {path: float64 array}, paths as "encoder/layer_0/self_attention/query/kernel".

    Scanned layers (".../layers/...", stacked on the first axis) are taken apart.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    flat = {}
    for keys, leaf in leaves:
        path, array = "/".join(k.key for k in keys), np.asarray(leaf, np.float64)
        if "/layers/" in path:
            flat |= {path.replace("/layers/", f"/layer_{i}/"): part for i, part in enumerate(array)}
        else:
            flat[path] = array
    return flat
