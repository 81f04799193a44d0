"""Reading and searching of one batch, compiled."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from transformer.axes import shard
from transformer.config import Config, DecodeConfig, ModelConfig
from transformer.data.tokenizer import Tokenizer
from transformer.decoding.beam import beam_search
from transformer.decoding.sampling import sample
from transformer.decoding.scores import Allowed, Hypotheses
from transformer.model.transformer import Transformer, empty_cache, longer_cache
from transformer.parsing.well_formed import TreeSymbols, keeps_tree, tree_symbols
from transformer.special_ids import SpecialIds

_MOSTLY_LONGER = 8  # tokens


def trees_of(config: Config, tokenizer: Tokenizer) -> TreeSymbols | None:
    """Returns what a model that was trained on trees writes them with; None for all others.

    None, too, if its tokenizer cuts the symbols of trees into pieces.
    """
    if config.data.kind != "trees" or config.model.kind != "encoder_decoder":
        return None
    pieces, _ = tokenizer.target_vocabulary()
    symbols = tree_symbols(pieces, tokenizer.special.end, config.data.tree_tags)
    return symbols if symbols.opens and symbols.tags else None


@partial(jax.jit, static_argnames=("model", "special", "trees", "decode"))
def decode_batch(
    params: Any,
    src_BS: jax.Array,
    seg_BS: jax.Array,
    number_B3: jax.Array,
    key: jax.Array,
    n_best: int,
    model: Transformer,
    special: SpecialIds,
    trees: TreeSymbols | None,
    decode: DecodeConfig,
) -> Hypotheses:
    """Reads all that comes first at once, then searches; one compiled function for each shape.

    Args:
      params: of the model.
      src_BS: what is read: ids, or frames [B, S, F].
      seg_BS: 1 where it is, 0 behind its end.
      number_B3: of each row: line of the input, part of the line, words in it.
      key: of what is drawn, with line and part.
      n_best: how many outputs a row are wanted.
      model, special: whose parameters, and whose ids.
      trees: what outputs are written with that are to be trees over the words; None: they are none.
      decode: how to search.
    """
    c, (B, S) = model.config, seg_BS.shape
    pos_BS = jnp.broadcast_to(jnp.arange(S), seg_BS.shape)
    real_B, start_B1 = seg_BS.any(axis=1), jnp.full((B, 1), model.start_id)
    if c.kind == "decoder_only":  # the last token is what the first step is given
        seg_BS, start_B1 = _last_apart(src_BS, seg_BS)
    source = model.apply({"params": params}, src_BS, seg_BS, pos_BS, method="read")
    longest_B, max_length = _longest(c, decode, seg_BS)
    limit_B = jnp.where(real_B, longest_B, 1)
    greedy = decode.beam_size == 1 or decode.temperature > 0
    lengths = min(S + _MOSTLY_LONGER, max_length), max_length
    W = 1 if greedy else decode.beam_size
    cache = empty_cache(c, B, W, lengths[0])
    step_fn = partial(_step, params, model)
    context = start_B1, number_B3[:, 2], source, seg_BS
    rules = decode.min_length, decode.no_repeat_ngram_size
    allowed = Allowed(model.start_id, special.end, special.forbidden, special.given, *rules)
    shared: dict[str, Any] = dict(
        lengths=lengths,
        longer=partial(longer_cache, config=c, width=W, length=max_length),
        alpha=decode.length_penalty,
        allowed=allowed,
        follows=trees and partial(_keeps_tree, trees, model.target_vocab),
        rules=decode.rules,
    )
    if greedy:
        key_B = jax.vmap(lambda n_3: jax.random.fold_in(jax.random.fold_in(key, n_3[0]), n_3[1]))(number_B3)
        choice: dict[str, Any] = dict(temperature=decode.temperature, top_k=decode.top_k, top_p=decode.top_p)
        found = sample(step_fn, cache, context, limit_B, key_B, **choice, **shared)
    else:
        found = beam_search(
            step_fn, cache, context, limit_B, beam_size=decode.beam_size, n_best=n_best, **shared
        )
    # Every process reads all rows, also those that other processes decoded.
    return jax.tree.map(lambda x: shard(x, "_" * x.ndim), found)


def _step(
    params: Any,
    model: Transformer,
    token_BW: jax.Array,
    t: jax.Array,
    cache: Any,
    ancestor_BWT: jax.Array,
    context: Any,
) -> tuple[jax.Array, Any]:
    start_B1, _, *read = context
    token_BW = jnp.where(t == 0, start_B1, token_BW)
    inputs = token_BW, t, cache, ancestor_BWT, *read
    return model.apply({"params": params}, *inputs, method="decode_step")


def _keeps_tree(
    trees: TreeSymbols, V: int, ids_BWT: jax.Array, t: jax.Array, limit_B: jax.Array, context: Any
) -> jax.Array:
    _, words_B, *_ = context
    return keeps_tree(trees, ids_BWT, t, limit_B, words_B, V)


def _longest(c: ModelConfig, decode: DecodeConfig, seg_BS: jax.Array) -> tuple[jax.Array, int]:
    """Returns the most tokens that the output of each row may have, and that of any."""
    length_B, S = seg_BS.sum(axis=1), seg_BS.shape[1]
    longest_B = decode.max_extra_length + length_B * c.reads_source
    max_length = decode.max_extra_length + S * c.reads_source
    if decode.length_limit:
        longest_B = jnp.minimum(longest_B, decode.length_limit)
        max_length = min(max_length, decode.length_limit)
    if c.positions == "learned":
        longest_B = jnp.minimum(longest_B, c.max_length - (0 if c.reads_source else length_B))
        max_length = min(max_length, c.max_length)
    return longest_B, max_length


def _last_apart(src_BS: jax.Array, seg_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (seg_BS without the last token of each row, that token_B1)."""
    last_B1 = jnp.maximum(seg_BS.sum(axis=1, keepdims=True) - 1, 0)
    before_BS = jnp.arange(src_BS.shape[1]) < last_B1
    return seg_BS * before_BS, jnp.take_along_axis(src_BS, last_B1, axis=1)
