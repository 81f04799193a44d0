"""Our parameters' paths -> the names that transformers' models, fairseq and Marian have for them."""

import re
from collections.abc import Mapping
from typing import Any

_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)")
_LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight"}

_BART = {
    "self_attention": "self_attn",
    "self_attention_norm": "self_attn_layer_norm",
    "cross_attention": "encoder_attn",
    "cross_attention_norm": "encoder_attn_layer_norm",
    "feed_forward_norm": "final_layer_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "out_proj",
    "feed_forward/wi": "fc1",
    "feed_forward/wo": "fc2",
}
_BART_OTHERS = {
    "shared/embedding": "model.shared.weight",
    "source/embedding": "model.encoder.embed_tokens.weight",
    "target/embedding": "model.decoder.embed_tokens.weight",
    "output/embedding": "lm_head.weight",
    "logits_bias": "final_logits_bias",
    "positions": "embed_positions.weight",
    "embedding_norm": "layernorm_embedding",
    "final_norm": "layer_norm",
}

_FAIRSEQ_TABLES = {
    "shared/embedding": "encoder.embed_tokens.weight",
    "output/embedding": "decoder.output_projection.weight",
}

_T5 = {
    "self_attention": "SelfAttention",
    "cross_attention": "EncDecAttention",
    **dict.fromkeys(("self_attention_norm", "cross_attention_norm", "feed_forward_norm"), "layer_norm"),
    "query": "q",
    "key": "k",
    "value": "v",
    "out": "o",
    "feed_forward": "DenseReluDense",
    "wi": "wi",
    "wi_linear": "wi_1",
    "wo": "wo",
    "final_norm": "final_layer_norm",
}
_T5_OTHERS = {"shared/embedding": "shared.weight", "output/embedding": "lm_head.weight"}

_MARIAN = {
    "self_attention": "self",
    "cross_attention": "context",
    "feed_forward": "ffn",
    "self_attention_norm": "self_Wo",
    "cross_attention_norm": "context_Wo",
    "feed_forward_norm": "ffn_ffn",
    "final_norm": "top",
    "embedding_norm": "emb",
}
_OF_MARIAN = {"query": "q", "key": "k", "value": "v", "out": "o", "wi": "1", "wo": "2"}
_MARIAN_OTHERS = {
    "shared/embedding": "Wemb",
    "source/embedding": "encoder_Wemb",
    "target/embedding": "decoder_Wemb",
    "output/embedding": "decoder_ff_logit_out_Wt",
    "logits_bias": "decoder_ff_logit_out_b",
}


def bart_name(path: str, model: Mapping[str, Any]) -> str:
    """Returns the name in Marian's, M2M100's, BART's and mBART's state.

    Args:
      path: of one of our parameters, for example "encoder/layer_0/feed_forward/wi/kernel".
      model: fields of `ModelConfig`.
    """
    if found := _LAYER.fullmatch(path):
        stack, number, rest = found.groups()
        return f"model.{stack}.layers.{number}.{_translated(rest, _BART)}"
    if path in _BART_OTHERS:
        return _BART_OTHERS[path]
    stack, _, rest = path.partition("/")
    return f"model.{stack}.{_translated(rest, _BART_OTHERS)}"


def fairseq_name(path: str, model: Mapping[str, Any]) -> str:
    """Returns the name in fairseq's state, whose tables are those of the encoder and the decoder."""
    return _FAIRSEQ_TABLES.get(path) or bart_name(path, model).removeprefix("model.")


def t5_name(path: str, model: Mapping[str, Any]) -> str:
    """Returns the same in T5's, mT5's and UMT5's; with "{layer}" for parameters that are a stack's here.

    Sub-layers have numbers: an encoder's feed-forward network is its second, a decoder's its third.
    """
    if path in _T5_OTHERS:
        return _T5_OTHERS[path]
    if found := _LAYER.fullmatch(path):
        stack, number, rest = found.groups()
        sublayer = rest.partition("/")[0].removesuffix("_norm")
        place = {"self_attention": 0, "cross_attention": 1, "feed_forward": 1 + (stack == "decoder")}[
            sublayer
        ]
        words = {**_T5, "wi": "wi_0"} if model.get("gated_feed_forward") else _T5
        return f"{stack}.block.{number}.layer.{place}.{_translated(rest, words)}"
    stack, _, rest = path.partition("/")
    if rest == "relative_bias":
        layer = "0" if model.get("relative_shared", True) else "{layer}"
        return f"{stack}.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight"
    return f"{stack}.{_translated(rest, _T5)}"


def marian_name(path: str, model: Mapping[str, Any]) -> str:
    """Returns the name in Marian's own files, whose layers are counted from 1."""
    if path in _MARIAN_OTHERS:
        return _MARIAN_OTHERS[path]
    stack, *layer, part, leaf = path.replace("/layer_", "/").split("/")
    if len(layer) == 2:  # of attention or a feed-forward network
        number, sublayer = layer
        letter = "W" if leaf == "kernel" else "b"
        return f"{stack}_l{int(number) + 1}_{_MARIAN[sublayer]}_{letter}{_OF_MARIAN[part]}"
    before = part == "embedding_norm" or (model["norm"] == "pre" and layer)
    where = f"{stack}_l{int(layer[0]) + 1}" if layer else stack
    return f"{where}_{_MARIAN[part]}_ln_{leaf}{'_pre' if before else ''}"


def _translated(path: str, words: Mapping[str, str]) -> str:
    """Returns a path below a stack or layer in the words of others."""
    parts = path.split("/")
    leaf = [_LEAVES[parts.pop()]] if parts[-1] in _LEAVES else []
    whole = "/".join(parts)
    return ".".join([*([words[whole]] if whole in words else [words[part] for part in parts]), *leaf])
