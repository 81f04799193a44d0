"""Our parameters' paths -> the names that transformers' models have for them."""

import re
from collections.abc import Mapping

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


def bart_name(path: str) -> str:
    """Returns the name in Marian's, M2M100's, BART's and mBART's state.

    Args:
      path: of one of our parameters, for example "encoder/layer_0/feed_forward/wi/kernel".
    """
    if found := _LAYER.fullmatch(path):
        stack, number, rest = found.groups()
        return f"model.{stack}.layers.{number}.{_translated(rest, _BART)}"
    if path in _BART_OTHERS:
        return _BART_OTHERS[path]
    stack, _, rest = path.partition("/")
    return f"model.{stack}.{_translated(rest, _BART_OTHERS)}"


def _translated(path: str, words: Mapping[str, str]) -> str:
    """Returns a path below a stack or layer in the words of others."""
    parts = path.split("/")
    leaf = [_LEAVES[parts.pop()]] if parts[-1] in _LEAVES else []
    whole = "/".join(parts)
    return ".".join([*([words[whole]] if whole in words else [words[part] for part in parts]), *leaf])
