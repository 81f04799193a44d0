"""Who looked at what: the attention weights of one sentence pair, every layer and head."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer.inference.model_directory import LoadedModel
from transformer.inference.sentence_pair import SentencePair
from transformer.model.masks import shift_right
from transformer.model.transformer import Transformer, unrolled, unstack_layers

SPACES = "▁", "Ġ"  # a piece that begins a word begins with one: of SentencePiece, of byte pairs
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
      query_marks, key_marks: which of them are marks: of beginning, end or language, and no text.
      query_text, key_text: what they are pieces of.
    """

    weights_LHTS: np.ndarray
    queries: list[str]
    keys: list[str]
    query_marks: list[bool]
    key_marks: list[bool]
    query_text: str = ""
    key_text: str = ""


def attention_maps(loaded: LoadedModel, pair: SentencePair) -> dict[str, AttentionMap]:
    """Returns what each position read, by kind: "encoder", "decoder" (both self-attention), and "cross".

    The pieces of the encoder and of `keys` of "cross" are the source's, end mark included. In the
    decoder's self-attention a position stands for the piece that it is given: the start mark, named
    "<s>", then the target's. A row t of "cross" belongs to the prediction of target piece t, so that
    the last is the end mark's.

    Args:
      loaded: the model.
      pair: a source, and its translation, which is given to the decoder (teacher forcing).
    """
    tokenizer, special, params = loaded.tokenizer, loaded.tokenizer.special, unstack_layers(loaded.params)
    ids = jnp.array([pair.source]), jnp.array([pair.target])
    weights = _weights(params, *ids, unrolled(loaded.model))
    before = len(special.source_prefix) + pair.language
    read_marks = _marks(pair.source, before, len(special.source_suffix))
    read = tokenizer.source_pieces(pair.source), read_marks, pair.source_text
    predicted = tokenizer.target_pieces(pair.target), _marks(pair.target, len(special.given), 1), pair.text
    given = ["<s>", *predicted[0][:-1]], [True, *predicted[1][:-1]], pair.text
    sides = {"encoder": (read, read), "decoder": (given, given), "cross": (predicted, read)}
    maps = {}
    for kind, ((queries, query_marks, query_text), (keys, key_marks, key_text)) in sides.items():
        weights_LHTS = np.asarray(weights[kind], np.float32)
        maps[kind] = AttentionMap(weights_LHTS, queries, keys, query_marks, key_marks, query_text, key_text)
    return maps


def _marks(ids: Sequence[int], before: int, after: int) -> list[bool]:
    """Returns which ids are among the first `before` or the last `after`."""
    return [not before <= i < len(ids) - after for i in range(len(ids))]


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
    query_side = found.queries, found.query_marks, found.query_text
    key_side = found.keys, found.key_marks, found.key_text
    rows, columns = words(*query_side[:2]), words(*key_side[:2])
    first = [span.start for span in columns]
    weights_LHTS = np.add.reduceat(found.weights_LHTS, first, axis=3)
    weights_LHTS = np.stack([weights_LHTS[:, :, span].mean(axis=2) for span in map(_slice, rows)], axis=2)
    marks = (
        [found.query_marks[span.start] for span in rows],
        [found.key_marks[span.start] for span in columns],
    )
    named = _named(*query_side, rows), _named(*key_side, columns)
    return AttentionMap(weights_LHTS, *named, *marks, found.query_text, found.key_text)


def words(pieces: Sequence[str], marks: Sequence[bool]) -> list[range]:
    """Returns which pieces each word consists of; a mark such as "</s>" is a word of its own."""
    begins = [
        i for i, piece in enumerate(pieces) if not i or piece.startswith(SPACES) or marks[i] or marks[i - 1]
    ]
    return [range(a, b) for a, b in zip(begins, [*begins[1:], len(pieces)], strict=True)]


def alignment(cross: AttentionMap, layer: int) -> list[tuple[int, int]]:
    """Returns (source word, target word) for each target word: the one read most, heads' mean, by `layer`.

    Words count from 0, as in the Pharaoh format; marks and bare spaces are no words and are never aligned.
    """
    found = by_words(cross)
    weights_TS = found.weights_LHTS[layer].mean(axis=0)
    sides = (found.queries, found.query_marks), (found.keys, found.key_marks)
    targets, sources = (
        [i for i, (word, mark) in enumerate(zip(*side, strict=True)) if not mark and word not in SPACES]
        for side in sides
    )
    if not sources:
        return []
    best = weights_TS[np.ix_(targets, sources)].argmax(axis=1)
    return [(int(source), target) for target, source in enumerate(best)]


def _slice(span: range) -> slice:
    return slice(span.start, span.stop)


def _named(pieces: Sequence[str], marks: Sequence[bool], text: str, spans: Sequence[range]) -> list[str]:
    """Returns the words as the text has them if it has as many, else as their pieces spell them.

    Pieces do not spell what they do not know, and may spell letters in another case.
    """
    names = ["".join(pieces[_slice(span)]).lstrip("".join(SPACES)) or SPACES[0] for span in spans]
    places = [i for i, span in enumerate(spans) if not marks[span.start] and names[i] not in SPACES]
    own = text.split()
    if len(own) == len(places):
        for i, word in zip(places, own, strict=True):
            names[i] = word
    return names
