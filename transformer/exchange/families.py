"""What a family of transformers' models is in our configuration."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from transformer.exchange.foreign import Foreign
from transformer.exchange.names import bart_name, t5_name
from transformer.exchange.tensors import Tensors

_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "swish": "swish",
    "silu": "swish",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
MOST_LAYERS = 1000  # of a stack


class Family(NamedTuple):
    """One of them.

    Attributes:
      model: settings and tensors -> fields of `ModelConfig`; what they cannot say is refused there.
      name: path of one of our parameters, and those fields -> its name in the family's state.
      derived: whether a tensor follows from others or from the settings: copies of tied tables, and
        sinusoids. It need not be there, and is not read.
    """

    model: Callable[[Foreign, Tensors], dict[str, Any]]
    name: Callable[[str, dict[str, Any]], str]
    derived: Callable[[str, dict[str, Any]], bool]


def _like_bart(f: Foreign) -> dict[str, Any]:
    """Returns what Marian, M2M100, BART and mBART have in common; only their training drops whole layers."""
    return dict(
        d_model=f.number("d_model"),
        d_ff=f.number("encoder_ffn_dim", "decoder_ffn_dim"),
        num_heads=f.number("encoder_attention_heads", "decoder_attention_heads"),
        num_encoder_layers=f.number("encoder_layers", most=MOST_LAYERS),
        num_decoder_layers=f.number("decoder_layers", most=MOST_LAYERS),
        dropout_rate=f.number("dropout", kind=float, default=0.1),
        attention_dropout_rate=f.number("attention_dropout", kind=float, default=0.0),
        activation_dropout_rate=f.number("activation_dropout", kind=float, default=0.0),
        max_length=f.number("max_position_embeddings"),
        norm_epsilon=1e-5,
        activation=f.choice("activation_function", _ACTIVATIONS, "gelu"),
        scale_embeddings=f.fact("scale_embedding", False),
        attention_bias=True,
        tied_embeddings="all" if f.fact("tie_word_embeddings", True) else "inputs",
    )


def _marian(f: Foreign, _: Tensors) -> dict[str, Any]:
    model = dict(_like_bart(f), positions="sinusoidal_split", logits_bias=True)
    if f.fact("share_encoder_decoder_embeddings", True):
        f.number("vocab_size", "decoder_vocab_size", default=f.config.get("vocab_size"))
    else:
        model["tied_embeddings"] = "target" if f.fact("tie_word_embeddings", True) else "none"
    return model


def _m2m100(f: Foreign, _: Tensors) -> dict[str, Any]:
    offset = f.id("pad_token_id", 1) + 1
    return dict(_like_bart(f), norm="pre", positions="sinusoidal_halves", position_offset=offset)


def _mbart(f: Foreign, _: Tensors) -> dict[str, Any]:
    return dict(
        _like_bart(f),
        norm="pre",
        positions="learned",
        position_offset=2,
        embedding_norm=True,
        logits_bias=True,
    )


def _derived_like_bart(name: str, model: dict[str, Any]) -> bool:
    copies = {"lm_head.weight": ("all", "target")} | dict.fromkeys(
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"), ("all", "inputs")
    )
    sinusoid = name.endswith(("embed_positions.weight", "embed_positions.weights"))
    return model["tied_embeddings"] in copies.get(name, ()) or (sinusoid and model["positions"] != "learned")


def _like_t5(f: Foreign, tensors: Tensors) -> dict[str, Any]:
    """Returns what T5 and mT5 have; whether the output table is another is seen from the tables."""
    form = str(f.config.get("feed_forward_proj", "relu"))
    known = {**_ACTIVATIONS, **{f"gated-{name}": ours for name, ours in _ACTIVATIONS.items()}}
    dropout = f.number("dropout_rate", kind=float, default=0.1)
    head, shared = "lm_head.weight", "shared.weight"
    tied = head not in tensors or (
        shared in tensors and np.array_equal(tensors.read(head), tensors.read(shared))
    )
    layers = f.number("num_layers", most=MOST_LAYERS)
    if f.config.get("num_decoder_layers") is not None:
        decoder_layers = f.number("num_decoder_layers", most=MOST_LAYERS)
    else:
        decoder_layers = layers
    return dict(
        d_model=f.number("d_model"),
        d_ff=f.number("d_ff"),
        num_heads=f.number("num_heads"),
        head_size=f.number("d_kv"),
        num_encoder_layers=layers,
        num_decoder_layers=decoder_layers,
        dropout_rate=dropout,
        attention_dropout_rate=dropout,
        activation_dropout_rate=dropout,
        max_length=f.number("n_positions", default=512),
        norm="pre",
        norm_type="rms",
        norm_epsilon=f.number("layer_norm_epsilon", kind=float, default=1e-6),
        activation=f.choice("feed_forward_proj", {**known, "gated-gelu": "gelu_tanh"}, "relu"),
        gated_feed_forward=form.startswith("gated-"),
        feed_forward_bias=False,
        positions="relative",
        relative_buckets=f.number("relative_attention_num_buckets", default=32, most=1 << 12),
        relative_max_distance=f.number("relative_attention_max_distance", default=128, most=1 << 16),
        tied_embeddings="all" if tied else "inputs",
        scale_embeddings=False,
        scale_queries=False,
    )


def _t5(f: Foreign, tensors: Tensors) -> dict[str, Any]:
    # Older configurations have one setting for both: whether the tables are tied, and whether to scale.
    scale = f.fact("scale_decoder_outputs", f.fact("tie_word_embeddings", True))
    return dict(_like_t5(f, tensors), scale_logits=scale)


def _umt5(f: Foreign, tensors: Tensors) -> dict[str, Any]:
    return dict(_t5(f, tensors), relative_shared=False)


def _derived_like_t5(name: str, model: dict[str, Any]) -> bool:
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    return name in copies or (name == "lm_head.weight" and model["tied_embeddings"] == "all")


FAMILIES = {
    "t5": Family(_t5, t5_name, _derived_like_t5),
    "mt5": Family(_like_t5, t5_name, _derived_like_t5),
    "umt5": Family(_umt5, t5_name, _derived_like_t5),
    "marian": Family(_marian, bart_name, _derived_like_bart),
    "m2m_100": Family(_m2m100, bart_name, _derived_like_bart),
    "mbart": Family(_mbart, bart_name, _derived_like_bart),
}
