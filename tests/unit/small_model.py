"""A small random model with a tokenizer of words: what it writes is read back as the same tokens."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer.config_mapping import from_config_dict
from transformer.data.tokenizer import train_tokenizer
from transformer.inference.model_directory import LoadedModel
from transformer.model.transformer import Transformer
from transformer.special_ids import EOS_ID

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
SEED = 175
# A decoder alone, and what it takes to be one of text.
ALONE: dict[str, Any] = dict(kind="decoder_only", num_encoder_layers=0, tied_embeddings="inputs")
TEXT: dict[str, Any] = {"data": dict(kind="lines"), "run": dict(eval_lines=0, best_metric="nll")}


def make_model(sections: dict[str, Any] | None = None, **changes: Any) -> LoadedModel:
    """Returns a model with random parameters, large enough to make its choices clear.

    Args:
      sections: of the configuration, other than those of the model, the tokenizer and decoding.
      **changes: keys of the model.
    """
    config = from_config_dict(
        {
            **(sections or {}),
            "model": dict(
                d_model=16,
                d_ff=32,
                num_heads=2,
                num_encoder_layers=1,
                num_decoder_layers=2,
                max_length=16,
                tied_embeddings="none",
            )
            | changes,
            "tokenizer": dict(model_type="word", vocab_size=4 + 2 * len(WORDS)),
            "decode": dict(max_extra_length=6, batch_size=4),
        }
    )
    text = [f"{word} {word}." for word in WORDS]
    tokenizer = train_tokenizer(text, text, config.tokenizer)
    model = Transformer(config.model, tokenizer.source_vocab, tokenizer.target_vocab)
    # Drawn by NumPy: to compile the model's own initialisation takes seconds.
    shapes = jax.eval_shape(model.init, jax.random.key(0), *model.smallest())["params"]
    draw = np.random.default_rng(SEED)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(draw.normal(1.5 * (path[-1].key == "scale"), 0.4, x.shape), x.dtype),
        shapes,
    )
    output = params["output"]["embedding"]
    params["output"] = {"embedding": output.at[EOS_ID].mul(2)}  # so that outputs differ in length
    return LoadedModel(config, tokenizer, model, params, 0)
