"""Who looked at what: the attention weights of one sentence pair, every layer and head."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer.inference.model_directory import LoadedModel, check_kind, check_reads_text
from transformer.inference.scorer import check_positions
from transformer.model.masks import shift_right
from transformer.model.transformer import Transformer, unrolled, unstack_layers

SPACE = "▁"  # which a piece begins with that begins a word
# Kinds of attention: the stack of layers, and the sub-layer's name.
KINDS = {
    "encoder": ("encoder", "self_attention"),
    "decoder": ("decoder", "self_attention"),
    "cross": ("decoder", "cross_attention"),
}


class AttentionMap(NamedTuple):
    """The weights of one kind of attention, with what each row and column stands for.

    Attributes:
      weights_LHTS: float32; T positions read S positions, and each row's weights sum to 1.
      queries: the T pieces that read.
      keys: the S pieces that are read.
    """

    weights_LHTS: np.ndarray
    queries: list[str]
    keys: list[str]


def attention_maps(loaded: LoadedModel, source: str, target: str) -> dict[str, AttentionMap]:
    """Returns what each position read, by kind: "encoder", "decoder" (both self-attention), and "cross".

    The pieces of the encoder and of `keys` of "cross" are the source's, end mark included. In the
    decoder's self-attention a position stands for the piece that it is given: the start mark, named
    "<s>", then the target's. A row t of "cross" belongs to the prediction of target piece t, so that
    the last is the end mark's.

    Args:
      loaded: the model.
      source: a line of source text.
      target: its translation, given to the decoder (teacher forcing).

    Raises:
      ConfigError: if the model has no encoder or no decoder, or its sources are no text.
      DataError: if a line has more tokens than the model has learned positions.
    """
    tokenizer, model = loaded.tokenizer, loaded.model
    check_kind(model.config, "encoder_decoder")
    check_reads_text(model.config)
    src, tgt = tokenizer.encode_source([source])[0], tokenizer.encode_target([target])[0]
    check_positions(model.config, [(src, tgt)])
    params = unstack_layers(loaded.params)
    weights = _weights(params, jnp.array([src]), jnp.array([tgt]), unrolled(model))
    read, predicted = tokenizer.source_pieces(src), tokenizer.target_pieces(tgt)
    given = ["<s>", *predicted[:-1]]
    pieces = {"encoder": (read, read), "decoder": (given, given), "cross": (predicted, read)}
    return {kind: AttentionMap(np.asarray(weights[kind], np.float32), *pieces[kind]) for kind in KINDS}


@partial(jax.jit, static_argnames="model")
def _weights(params: Any, src_1S: jax.Array, tgt_1T: jax.Array, model: Transformer) -> dict[str, jax.Array]:
    """Returns the weights of each kind, [L, H, T, S], of one pair without padding."""
    pos_1S, pos_1T = (jnp.arange(ids.shape[1])[None] for ids in (src_1S, tgt_1T))
    source = src_1S, jnp.ones_like(src_1S), pos_1S
    target = shift_right(tgt_1T, pos_1T, model.start_id), jnp.ones_like(tgt_1T), pos_1T
    _, captured = model.apply({"params": params}, *source, *target, mutable="intermediates")

    def stacked(stack: str, attention: str) -> jax.Array:
        layers = captured["intermediates"][stack]
        found = [layers[f"layer_{i}"][attention]["weights"] for i in range(len(layers))]
        return jnp.stack([weights[0] for steps in found for weights in steps])  # a layer that recurs has more

    return {kind: stacked(*place) for kind, place in KINDS.items()}


def by_words(found: AttentionMap) -> AttentionMap:
    """Returns the map between words: a word is read as much as all its pieces, and reads as their mean."""
    rows, columns = words(found.queries), words(found.keys)
    first = [span.start for span in columns]
    weights_LHTS = np.add.reduceat(found.weights_LHTS, first, axis=3)
    weights_LHTS = np.stack([weights_LHTS[:, :, span].mean(axis=2) for span in map(_slice, rows)], axis=2)
    return AttentionMap(weights_LHTS, _joined(found.queries, rows), _joined(found.keys, columns))


def words(pieces: Sequence[str]) -> list[range]:
    """Returns which pieces each word consists of; a mark such as "</s>" is a word of its own."""
    begins = [
        i
        for i, piece in enumerate(pieces)
        if not i or piece.startswith(SPACE) or _is_mark(piece) or _is_mark(pieces[i - 1])
    ]
    return [range(a, b) for a, b in zip(begins, [*begins[1:], len(pieces)], strict=True)]


def alignment(cross: AttentionMap, layer: int) -> list[tuple[int, int]]:
    """Returns (source word, target word) for each target word: the one read most, heads' mean, by `layer`.

    Words count from 0, as in the Pharaoh format; marks are no words and are never aligned.
    """
    found = by_words(cross)
    weights_TS = found.weights_LHTS[layer].mean(axis=0)
    targets, sources = (
        [i for i, word in enumerate(side) if not _is_mark(word)] for side in (found.queries, found.keys)
    )
    if not sources:
        return []
    best = weights_TS[np.ix_(targets, sources)].argmax(axis=1)
    return [(int(source), target) for target, source in enumerate(best)]


def _is_mark(piece: str) -> bool:
    return len(piece) > 2 and piece[0] == "<" and piece[-1] == ">" and not piece.startswith("<0x")


def _slice(span: range) -> slice:
    return slice(span.start, span.stop)


def _joined(pieces: Sequence[str], spans: Sequence[range]) -> list[str]:
    return ["".join(pieces[_slice(span)]).lstrip(SPACE) or SPACE for span in spans]
