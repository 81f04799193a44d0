"""What a family of transformers' models is in our configuration, and ours in theirs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformer.data.tokenizer import Tokenizer
from transformer.exchange.byte_vocabularies import bart_tokenizer, byt5_tokenizer, is_byt5
from transformer.exchange.foreign import Foreign
from transformer.exchange.names import bart_name, t5_name
from transformer.exchange.settings import Setting
from transformer.exchange.vocabularies import many_languages, marian_tokenizer, t5_tokenizer

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
      title: the class of transformers that loads its folders.
      settings: fields that they have a key for.
      fixed: fields that all of its models have alike.
      read: what several keys say together: settings, and whether the file has an output table that is no
        copy -> fields; what they cannot say is refused there.
      write: the other way: fields, and rows of the source's and the target's table -> settings.
      name: path of one of our parameters, and the fields -> its name in the family's state.
      derived: whether a tensor follows from others or from the settings: copies of tied tables, and
        sinusoids; or their classes do not read it either. It is neither read nor written.
      tokenizer: settings, rows of the source's and the target's table, and languages -> ours.
      prefix: of all names; a state of the bare model, without an output, lacks it.
    """

    title: str
    settings: tuple[Setting, ...]
    fixed: Mapping[str, Any]
    read: Callable[[Foreign, bool], dict[str, Any]]
    write: Callable[[Mapping[str, Any], tuple[int, int]], dict[str, Any]]
    name: Callable[[str, Mapping[str, Any]], str]
    derived: Callable[[str, Mapping[str, Any]], bool]
    tokenizer: Callable[[Foreign, tuple[int, int], tuple[str, str]], Tokenizer]
    prefix: str = ""

    def model(self, f: Foreign, own_output: bool) -> dict[str, Any]:
        """Returns fields of `ModelConfig`; reasons why there is none are added to `f`."""
        found = {setting.field: setting.read(f) for setting in self.settings}
        return {**found, **self.fixed, **self.read(f, own_output)}

    def config(self, model: Mapping[str, Any], rows: tuple[int, int]) -> dict[str, Any]:
        """Returns their settings for fields of ours, as far as they have words for them."""
        found: dict[str, Any] = {}
        for setting in self.settings:
            found |= setting.write(model[setting.field])
        return {**found, **self.write(model, rows)}


# What Marian, M2M100, BART and mBART have in common; only their training drops whole layers.
_LIKE_BART = (
    Setting("d_model", ("d_model",)),
    Setting("d_ff", ("encoder_ffn_dim", "decoder_ffn_dim")),
    Setting("num_heads", ("encoder_attention_heads", "decoder_attention_heads")),
    Setting("num_encoder_layers", ("encoder_layers",), most=MOST_LAYERS),
    Setting("num_decoder_layers", ("decoder_layers",), most=MOST_LAYERS),
    Setting("dropout_rate", ("dropout",), float, 0.1),
    Setting("attention_dropout_rate", ("attention_dropout",), float, 0.0),
    Setting("activation_dropout_rate", ("activation_dropout",), float, 0.0),
    Setting("max_length", ("max_position_embeddings",)),
    Setting("activation", ("activation_function",), _ACTIVATIONS, "gelu"),
    Setting("scale_embeddings", ("scale_embedding",), bool, False),
)
_LIKE_M2M100 = (  # other defaults
    *(setting for setting in _LIKE_BART if setting.field not in ("activation", "scale_embeddings")),
    Setting("activation", ("activation_function",), _ACTIVATIONS, "relu"),
    Setting("scale_embeddings", ("scale_embedding",), bool, True),
)
_FIXED_LIKE_BART = dict(norm_epsilon=1e-5, attention_bias=True)
_FIXED_BART = dict(
    _FIXED_LIKE_BART, positions="learned", position_offset=2, embedding_norm=True, logits_bias=True
)


def _read_marian(f: Foreign, _: bool) -> dict[str, Any]:
    tied = f.fact("tie_word_embeddings", True)
    if f.fact("share_encoder_decoder_embeddings", True):
        f.number("vocab_size", "decoder_vocab_size", default=f.config.get("vocab_size"))
        return dict(tied_embeddings="all" if tied else "inputs")
    return dict(tied_embeddings="target" if tied else "none")


def _write_marian(model: Mapping[str, Any], rows: tuple[int, int]) -> dict[str, Any]:
    tied = model["tied_embeddings"]
    return dict(
        tie_word_embeddings=tied in ("all", "target"),
        share_encoder_decoder_embeddings=tied in ("all", "inputs"),
        vocab_size=rows[0],
        decoder_vocab_size=rows[1],
    )


def _read_bart(f: Foreign, _: bool) -> dict[str, Any]:
    return dict(tied_embeddings="all" if f.fact("tie_word_embeddings", True) else "inputs")


def _write_bart(model: Mapping[str, Any], rows: tuple[int, int]) -> dict[str, Any]:
    return dict(tie_word_embeddings=model["tied_embeddings"] == "all", vocab_size=rows[0])


def _read_m2m100(f: Foreign, own_output: bool) -> dict[str, Any]:
    return dict(_read_bart(f, own_output), position_offset=f.id("pad_token_id", 1) + 1)


def _derived_like_bart(name: str, model: Mapping[str, Any]) -> bool:
    copies = {"lm_head.weight": ("all", "target")} | dict.fromkeys(
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"), ("all", "inputs")
    )
    sinusoid = name.endswith(("embed_positions.weight", "embed_positions.weights"))
    if name in ("model.encoder.version", "model.decoder.version"):  # fairseq's
        return True
    return model["tied_embeddings"] in copies.get(name, ()) or (sinusoid and model["positions"] != "learned")


_LIKE_T5 = (
    Setting("d_model", ("d_model",)),
    Setting("d_ff", ("d_ff",)),
    Setting("num_heads", ("num_heads",)),
    Setting("head_size", ("d_kv",)),
    Setting("num_encoder_layers", ("num_layers",), most=MOST_LAYERS),
    # One dropout for all; the last one that is written counts.
    Setting("activation_dropout_rate", ("dropout_rate",), float, 0.1),
    Setting("attention_dropout_rate", ("dropout_rate",), float, 0.1),
    Setting("dropout_rate", ("dropout_rate",), float, 0.1),
    Setting("max_length", ("n_positions",), default=512),
    Setting("norm_epsilon", ("layer_norm_epsilon",), float, 1e-6),
    Setting("relative_buckets", ("relative_attention_num_buckets",), default=32, most=1 << 12),
    Setting("relative_max_distance", ("relative_attention_max_distance",), default=128, most=1 << 16),
)
_FIXED_LIKE_T5 = dict(
    norm="pre",
    norm_type="rms",
    feed_forward_bias=False,
    positions="relative",
    scale_embeddings=False,
    scale_queries=False,
)
_FORMS = {
    **{name: (ours, False) for name, ours in _ACTIVATIONS.items()},
    **{f"gated-{name}": (ours, True) for name, ours in _ACTIVATIONS.items()},
    "gated-gelu": ("gelu_tanh", True),
}


def _read_t5(f: Foreign, own_output: bool) -> dict[str, Any]:
    """Reads what T5 and mT5 have; whether the output table is another is seen from the tables."""
    form = f.choice("feed_forward_proj", {name: name for name in _FORMS}, "relu")
    activation, gated = _FORMS[form]
    if f.config.get("num_decoder_layers") is not None:
        layers = f.number("num_decoder_layers", most=MOST_LAYERS)
    else:
        layers = f.number("num_layers", most=MOST_LAYERS)
    return dict(
        num_decoder_layers=layers,
        activation=activation,
        gated_feed_forward=gated,
        tied_embeddings="inputs" if own_output else "all",
    )


def _write_t5(model: Mapping[str, Any], rows: tuple[int, int]) -> dict[str, Any]:
    wanted = model["activation"], model["gated_feed_forward"]
    forms = [name for name, form in _FORMS.items() if form == wanted]
    return dict(
        num_decoder_layers=model["num_decoder_layers"],
        tie_word_embeddings=model["tied_embeddings"] == "all",
        vocab_size=rows[0],
        **(dict(feed_forward_proj=forms[-1]) if forms else {}),
    )


def _read_scaled_t5(f: Foreign, own_output: bool) -> dict[str, Any]:
    # Older configurations have one setting for both: whether the tables are tied, and whether to scale.
    scale = f.fact("scale_decoder_outputs", f.fact("tie_word_embeddings", True))
    longest = dict(max_length=1024) if is_byt5(f) and "n_positions" not in f.config else {}
    return dict(_read_t5(f, own_output), scale_logits=scale, **longest)


def _write_scaled_t5(model: Mapping[str, Any], rows: tuple[int, int]) -> dict[str, Any]:
    return dict(_write_t5(model, rows), scale_decoder_outputs=model["scale_logits"])


def _derived_like_t5(name: str, model: Mapping[str, Any]) -> bool:
    unread = (  # the last one is left over in T5's first checkpoints
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    )
    return name in unread or (name == "lm_head.weight" and model["tied_embeddings"] == "all")


def _tokenizer_of_t5(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    return (byt5_tokenizer if is_byt5(f) else t5_tokenizer)(f, sizes, languages)


FAMILIES = {
    "marian": Family(
        "MarianMTModel",
        _LIKE_BART,
        dict(_FIXED_LIKE_BART, positions="sinusoidal_split", logits_bias=True),
        _read_marian,
        _write_marian,
        bart_name,
        _derived_like_bart,
        marian_tokenizer,
        "model.",
    ),
    "m2m_100": Family(
        "M2M100ForConditionalGeneration",
        _LIKE_M2M100,
        dict(_FIXED_LIKE_BART, norm="pre", positions="sinusoidal_halves"),
        _read_m2m100,
        _write_bart,
        bart_name,
        _derived_like_bart,
        many_languages,
        "model.",
    ),
    "bart": Family(
        "BartForConditionalGeneration",
        _LIKE_BART,
        _FIXED_BART,
        _read_bart,
        _write_bart,
        bart_name,
        _derived_like_bart,
        bart_tokenizer,
        "model.",
    ),
    "mbart": Family(
        "MBartForConditionalGeneration",
        _LIKE_BART,
        dict(_FIXED_BART, norm="pre"),
        _read_bart,
        _write_bart,
        bart_name,
        _derived_like_bart,
        many_languages,
        "model.",
    ),
    "t5": Family(
        "T5ForConditionalGeneration",
        _LIKE_T5,
        _FIXED_LIKE_T5,
        _read_scaled_t5,
        _write_scaled_t5,
        t5_name,
        _derived_like_t5,
        _tokenizer_of_t5,
    ),
    "mt5": Family(
        "MT5ForConditionalGeneration",
        _LIKE_T5,
        _FIXED_LIKE_T5,
        _read_t5,
        _write_t5,
        t5_name,
        _derived_like_t5,
        t5_tokenizer,
    ),
    "umt5": Family(
        "UMT5ForConditionalGeneration",
        _LIKE_T5,
        dict(_FIXED_LIKE_T5, relative_shared=False),
        _read_scaled_t5,
        _write_scaled_t5,
        t5_name,
        _derived_like_t5,
        t5_tokenizer,
    ),
}
