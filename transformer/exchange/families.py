"""What a family of transformers' models is in our configuration."""

from collections.abc import Callable
from typing import Any, NamedTuple

from transformer.exchange.foreign import Foreign
from transformer.exchange.names import bart_name

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
      model: settings -> fields of `ModelConfig`; what they cannot say is refused there.
      name: path of one of our parameters -> its name in the family's state.
      derived: whether a tensor follows from others or from the settings: copies of tied tables, and
        sinusoids. It need not be there, and is not read.
    """

    model: Callable[[Foreign], dict[str, Any]]
    name: Callable[[str], str]
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


def _marian(f: Foreign) -> dict[str, Any]:
    model = dict(_like_bart(f), positions="sinusoidal_split", logits_bias=True)
    if f.fact("share_encoder_decoder_embeddings", True):
        f.number("vocab_size", "decoder_vocab_size", default=f.config.get("vocab_size"))
    else:
        model["tied_embeddings"] = "target" if f.fact("tie_word_embeddings", True) else "none"
    return model


def _m2m100(f: Foreign) -> dict[str, Any]:
    offset = f.id("pad_token_id", 1) + 1
    return dict(_like_bart(f), norm="pre", positions="sinusoidal_halves", position_offset=offset)


def _mbart(f: Foreign) -> dict[str, Any]:
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


FAMILIES = {
    "marian": Family(_marian, bart_name, _derived_like_bart),
    "m2m_100": Family(_m2m100, bart_name, _derived_like_bart),
    "mbart": Family(_mbart, bart_name, _derived_like_bart),
}
