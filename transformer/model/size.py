"""How large a model is: parameters, arithmetic and memory, all without allocating anything."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from transformer.config import ModelConfig, OptimConfig
from transformer.model.local import reach
from transformer.model.transformer import Transformer

FLOAT32 = 4  # bytes
ADAFACTOR_MIN_SIZE = 128  # smallest second-largest axis whose second moments are kept as two vectors


@functools.cache
def parameter_shapes(model: Transformer) -> Any:
    """Returns the parameter tree as `jax.ShapeDtypeStruct`s.

    Layers of a stack are alike, or every second one: one of each is traced, which takes 0.1 s however many
    there are.
    """
    c = model.config
    stacked = c.scan_layers or c.recurrence != "none"
    depths = {} if stacked else c.stacks
    if depths:
        kinds = min(2, c.num_encoder_layers) if c.attention == "alternating" else 1
        c = dataclasses.replace(c, num_encoder_layers=kinds, num_decoder_layers=1)
    model = Transformer(c, model.source_vocab, model.target_vocab)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *model.smallest())["params"]
    for stack, depth in depths.items():
        if stack not in shapes:
            continue
        traced = [shapes[stack][f"layer_{i}"] for i in range(kinds if stack == "encoder" else 1)]
        shapes[stack] |= {f"layer_{i}": traced[i % len(traced)] for i in range(len(traced), depth)}
        if "relative_bias" in shapes[stack] and not c.relative_shared:
            one = shapes[stack]["relative_bias"]
            shapes[stack]["relative_bias"] = one.update(shape=(depth, *one.shape[1:]))
    return shapes


def count_parameters(model: Transformer) -> dict[str, int]:
    """Returns the number of parameters by part.

    Returns:
      `embeddings` (tables that look ids up; a tied table counts once), `encoder` and `decoder`
      (positions and their norms included), `output` (table if not tied, and bias), `total`.
    """
    parts = {"embeddings": 0, "encoder": 0, "decoder": 0, "output": 0}
    home = dict.fromkeys(("shared", "source", "target"), "embeddings") | {"logits_bias": "output"}
    for name, tree in parameter_shapes(model).items():
        parts[home.get(name, name)] += sum(x.size for x in jax.tree.leaves(tree))
    return {**parts, "total": sum(parts.values())}


def flops_per_token(model: Transformer, source_length: float, target_length: float) -> float:
    """Returns the floating-point operations of training, per target token.

    Only matrix products are counted, [m, k] x [k, n] as 2mnk, and the backward pass as twice the
    forward one. With D d_model, A the size of all heads (D in the paper), A' that of the heads of keys
    (A in the paper), F d_ff, V target pieces, and rows of S source and T target positions (padding and
    masked scores count: they are computed), the forward pass of a row is of kind "encoder_decoder"

      encoder layer   4 S D (A + A') + 4 S^2 A + 4 S D F
      decoder layer   4 T D (A + A') + 4 T^2 A + 4 T D F    self-attention and feed-forward
                      + 4 T D A + 4 S D A' + 4 T S A        encoder-decoder attention
      output          2 T D V                               V pieces, or labels
      frames          2 S C D                               C numbers each, where sources are such

    and of kind "decoder_only" that of an encoder layer of S + T positions for each layer, and the output,
    with 6 for the 4 before D F if the network is gated, and 2 A K more for each query if scores are
    general (K the size of a head); additive scores count as products of the same size. For S^2 and T^2 local
    attention has `Reach.scored`, and compressed attention S^2 over `compression` for S^2, and 4 A' K more for
    each key. Vectors of X distances (`positions` "shaw") are 4 X A more for each query of
    self-attention. The result is three times their sum, over T. Recomputation (`remat`) is not counted.

    Args:
      model: the model.
      source_length: S, positions in a row.
      target_length: T, positions in a row; of an encoder alone those that something is asked of.
    """
    c = model.config
    D, K, V, S, T = c.d_model, c.key_size, model.target_vocab, source_length, target_length
    A, A_kv = c.num_heads * K, c.kv_heads * K
    F = c.d_ff * (1.5 if c.gated_feed_forward else 1)
    query = 4 * D * A + (
        2 * A * K if c.attention_score == "general" else 0
    )  # and what becomes of its mixture
    key = 4 * D * A_kv  # and value

    def layer(causal: bool, length: float) -> float:
        """Of self-attention and the feed-forward network."""
        scored = _scored(c, causal, length)
        if c.positions == "shaw":  # as if so many more keys were there
            scored += length * _distances(c)
        return length * (query + key) + 4 * scored * A + 4 * length * D * F

    layers = 0.0
    if "encoder" in c.stacks:
        kinds = [c.of_layer(depth).attention for depth in range(c.num_encoder_layers)]
        layers += c.num_encoder_layers * layer(False, S) + S * 4 * A_kv * K * kinds.count("compressed")
    if c.kind == "decoder_only":
        layers += c.num_decoder_layers * layer(True, S + T)
    elif c.kind == "encoder_decoder":
        layers += c.num_decoder_layers * (layer(True, T) + T * query + S * key + 4 * T * S * A)
    layers += 2 * S * c.source_features * D
    return 3 * (layers + 2 * T * D * V) / T


def _scored(config: ModelConfig, causal: bool, length: float, without: str = "") -> float:
    """Returns the pairs of positions that self-attention computes a score for in a row, in a mean layer.

    Layers whose attention is `without` count as none.
    """
    layers = [config] if causal else [config.of_layer(depth) for depth in range(config.num_encoder_layers)]
    counted = [layer for layer in layers if layer.attention != without]
    return sum(_scored_in(layer, causal, length) for layer in counted) / len(layers)


def _scored_in(layer: ModelConfig, causal: bool, length: float) -> float:
    if layer.attention == "compressed" and not causal:
        return length * -(-length // layer.compression)
    near = reach(layer, causal)
    return length**2 if near is None else near.scored(length)


def _distances(config: ModelConfig) -> int:
    return 2 * config.relative_max_distance + 1


def memory_estimate(
    model: Transformer,
    optimizer: str,
    rows: int,
    source_length: int,
    target_length: int,
    ema: bool,
    loss_chunk: int = OptimConfig.loss_chunk,
) -> dict[str, int]:
    """Returns the bytes of a training step on one device.

    All but `activations` are exact, apart from the optimizer's counters. `activations` is an
    estimate of what the forward pass keeps for the backward one (see `_activations`); compilers do
    better or worse by some tens of percent, and XLA for CPU saves little by `remat` unless the
    layers are scanned.

    Args:
      model: the model.
      optimizer: `config.optim.name`.
      rows: rows that are computed at one time (of one accumulation part, on one device).
      source_length: S, positions of a row; none if nothing but targets is read.
      target_length: T, positions of a row.
      ema: whether a moving average of the parameters is kept.
      loss_chunk: `config.optim.loss_chunk`.

    Returns:
      `parameters`, `gradients`, `optimizer`, `ema`, `activations`, `total`.
    """
    shapes = jax.tree.leaves(parameter_shapes(model))
    parameters = sum(x.size * x.dtype.itemsize for x in shapes)
    moments = {
        "adam": 2 * parameters,
        "adamw": 2 * parameters,
        "lion": parameters,
        "adafactor": sum(_factored_size(x.shape) * x.dtype.itemsize for x in shapes),
    }
    parts = {
        "parameters": parameters,
        "gradients": parameters,
        "optimizer": moments[optimizer],
        "ema": parameters if ema else 0,
        "activations": _activations(model, rows, source_length, target_length, loss_chunk),
    }
    return {**parts, "total": sum(parts.values())}


def _factored_size(shape: tuple[int, ...]) -> int:
    """Returns the numbers that Adafactor keeps for one parameter: a row and a column, or one for each."""
    *_, second, largest = sorted((1, 1, *shape))
    size = math.prod(shape)
    return size // largest + size // second if second >= ADAFACTOR_MIN_SIZE else size


def _activations(model: Transformer, rows: int, S: int, T: int, loss_chunk: int) -> int:
    """Returns the bytes kept for the backward pass, estimated.

    For rows of S source and T target positions. Per position, an attention keeps queries, keys, values, their
    mixture twice, in the order of heads and in that of positions (3 A of a query's position, 2 A' of a key's,
    A' the size of the heads of keys), the sum before the norm and the normed sum (2 D), and exponentials (H
    times the keys, fewer if local or compressed); a feed-forward network keeps a hidden vector, two if the
    activation is not relu, two more if gated, the sum and the normed sum (F + 2 D). With `chunk_length`
    neither hidden vectors nor exponentials of compressed keys are kept. Of kind "decoder_only" layers have
    one attention each, over S + T positions. With `remat` a layer keeps its input, and one layer at a time is
    whole. The backward pass has the gradients of one layer's exponentials beside them. The loss keeps the
    gradients of its inputs, and three arrays of a chunk's logits.
    """
    c = model.config
    D, H = c.d_model, c.num_heads
    without = "compressed" if c.chunk_length else ""
    A = (3 * c.num_heads + 2 * c.kv_heads) * c.key_size
    hidden = 0 if c.chunk_length else c.d_ff * (1 + (c.activation != "relu") + 2 * c.gated_feed_forward)

    def scores(causal: bool, length: int) -> float:
        return H * _scored(c, causal, length, without)

    def layer(causal: bool, length: int) -> float:
        """Of self-attention and the feed-forward network."""
        return length * (4 * D + A + hidden) + scores(causal, length)

    stacks: list[tuple[int, int, float]] = []  # layers, positions, and what each layer keeps of a row
    largest = 0.0
    if "encoder" in c.stacks:
        stacks.append((c.num_encoder_layers, S, layer(False, S)))
        largest = scores(False, S)
    if "decoder" in c.stacks:
        both = c.kind == "encoder_decoder"
        cross = T * (2 * D + 3 * H * c.key_size + H * S) + S * 2 * c.kv_heads * c.key_size
        length = T if both else S + T
        stacks.append((c.num_decoder_layers, length, layer(True, length) + both * cross))
        largest = max(largest, scores(True, length))
    if c.remat:
        layers = sum(n * length * D for n, length, _ in stacks) + max(whole for *_, whole in stacks)
    else:
        layers = sum(n * whole for n, _, whole in stacks)
    kept = rows * (layers + largest + 2 * D * T) * jnp.dtype(c.dtype).itemsize
    loss = (3 * min(loss_chunk, rows * T) * model.target_vocab + model.target_vocab * D) * FLOAT32
    return int(kept) + loss
