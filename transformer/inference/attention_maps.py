"""What the decoder looked at: encoder-decoder attention of one sentence pair."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer.inference.model_directory import LoadedModel
from transformer.inference.scorer import check_positions
from transformer.model.masks import shift_right
from transformer.model.transformer import Transformer, unrolled, unstack_layers


def cross_attention(loaded: LoadedModel, source: str, target: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Returns the weights with which each target piece, while it was predicted, read the source.

    Args:
      loaded: the model.
      source: a line of source text.
      target: its translation, given to the decoder (teacher forcing).

    Returns:
      (weights_LHTS, float32; the S source pieces; the T target pieces), end marks included as
      "</s>". Row t belongs to the prediction of target piece t.

    Raises:
      DataError: if a line has more tokens than the model has learned positions.
    """
    tokenizer, model = loaded.tokenizer, loaded.model
    src, tgt = tokenizer.encode_source([source])[0], tokenizer.encode_target([target])[0]
    check_positions(model.config, [(src, tgt)])
    params = unstack_layers(loaded.params)
    weights_LHTS = _weights(params, jnp.array([src]), jnp.array([tgt]), unrolled(model))
    return np.asarray(weights_LHTS, np.float32), tokenizer.source_pieces(src), tokenizer.target_pieces(tgt)


@partial(jax.jit, static_argnames="model")
def _weights(params: Any, src_1S: jax.Array, tgt_1T: jax.Array, model: Transformer) -> jax.Array:
    """Returns weights_LHTS of one pair without padding."""
    pos_1S, pos_1T = (jnp.arange(ids.shape[1])[None] for ids in (src_1S, tgt_1T))
    source = src_1S, jnp.ones_like(src_1S), pos_1S
    target = shift_right(tgt_1T, pos_1T, model.start_id), jnp.ones_like(tgt_1T), pos_1T
    _, captured = model.apply({"params": params}, *source, *target, mutable="intermediates")
    layers = captured["intermediates"]["decoder"]
    count = model.config.num_decoder_layers
    return jnp.stack([layers[f"layer_{i}"]["cross_attention"]["weights"][0][0] for i in range(count)])
