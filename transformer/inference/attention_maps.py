"""What the decoder looked at: encoder-decoder attention of one sentence pair."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from transformer.data.tokenizer import BOS_ID
from transformer.inference.model_directory import LoadedModel
from transformer.inference.scorer import check_positions
from transformer.model.masks import shift_right
from transformer.model.transformer import unstack_layers


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
    model = dataclasses.replace(
        model, config=dataclasses.replace(model.config, scan_layers=False, remat=False)
    )
    inputs = []
    for ids in (src, tgt):
        ids_1T = jnp.asarray([ids], jnp.int32)
        inputs.append([ids_1T, jnp.ones_like(ids_1T), jnp.arange(len(ids))[None]])
    inputs[1][0] = shift_right(inputs[1][0], inputs[1][2], BOS_ID)
    _, captured = model.apply(
        {"params": unstack_layers(loaded.params)}, *inputs[0], *inputs[1], mutable="intermediates"
    )
    layers = captured["intermediates"]["decoder"]
    count = model.config.num_decoder_layers
    weights = [layers[f"layer_{i}"]["cross_attention"]["weights"][0][0] for i in range(count)]
    weights_LHTS = np.asarray(jnp.stack(weights), np.float32)
    return weights_LHTS, tokenizer.source_pieces(src), tokenizer.target_pieces(tgt)
