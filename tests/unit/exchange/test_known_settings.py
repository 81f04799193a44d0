"""Settings of well-known checkpoints: none of their keys is in the way, and what they say is understood.

Written down from memory of public files: keys that transformers writes for every model are left out.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from transformer.config_mapping import from_config_dict
from transformer.exchange.families import FAMILIES
from transformer.exchange.foreign import Foreign

_EVERYWHERE = {
    "_name_or_path": "somewhere",
    "architectures": ["Some"],
    "init_std": 0.02,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "use_cache": True,
    "output_past": True,
    "torch_dtype": "float32",
    "transformers_version": "4.20.0",
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "task_specific_params": {"summarization": {"length_penalty": 2.0, "prefix": "summarize: "}},
}


def _like_bart(layers: int, heads: int, d_ff: int, d_model: int, **more: Any) -> dict[str, Any]:
    sizes = {
        f"{stack}_{key}": n
        for stack in ("encoder", "decoder")
        for key, n in (("layers", layers), ("attention_heads", heads), ("ffn_dim", d_ff), ("layerdrop", 0.0))
    }
    rest = dict(dropout=0.1, attention_dropout=0.0, activation_dropout=0.0, num_hidden_layers=layers)
    return {**_EVERYWHERE, **sizes, **rest, "d_model": d_model, **more}


def _like_t5(layers: int, heads: int, d_ff: int, d_model: int, **more: Any) -> dict[str, Any]:
    rest = dict(d_kv=64, dropout_rate=0.1, layer_norm_epsilon=1e-6, relative_attention_num_buckets=32)
    ids = dict(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, model_type="t5")
    return {
        **_EVERYWHERE,
        **rest,
        **ids,
        **dict(num_layers=layers, num_heads=heads, d_ff=d_ff, d_model=d_model, **more),
    }


_GATED = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
_GATED_TOO = dict(_GATED, dense_act_fn="gelu_new", is_gated_act=True, relative_attention_max_distance=128)
_OPUS = dict(
    model_type="marian",
    activation_function="swish",
    scale_embedding=True,
    static_position_embeddings=True,
    max_position_embeddings=512,
    pad_token_id=58100,
    eos_token_id=0,
    bos_token_id=0,
    decoder_start_token_id=58100,
    vocab_size=58101,
    bad_words_ids=[[58100]],
    add_bias_logits=False,
    add_final_layer_norm=False,
    normalize_before=False,
    normalize_embedding=False,
    num_beams=6,
    max_length=512,
    classif_dropout=0.0,
)
_MBART = dict(
    model_type="mbart",
    activation_function="gelu",
    scale_embedding=True,
    max_position_embeddings=1024,
    static_position_embeddings=False,
    normalize_before=True,
    normalize_embedding=True,
    add_final_layer_norm=True,
    add_bias_logits=False,
    pad_token_id=1,
    eos_token_id=2,
    bos_token_id=0,
    num_beams=5,
    early_stopping=True,
)
_BART = dict(
    model_type="bart",
    activation_function="gelu",
    scale_embedding=False,
    max_position_embeddings=1024,
    normalize_before=False,
    normalize_embedding=True,
    static_position_embeddings=False,
    force_bos_token_to_be_generated=True,
    forced_bos_token_id=0,
    forced_eos_token_id=2,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
    vocab_size=50265,
    decoder_start_token_id=2,
    num_beams=4,
    early_stopping=True,
    no_repeat_ngram_size=3,
    prefix=" ",
)
_M2M = dict(
    model_type="m2m_100",
    activation_function="relu",
    scale_embedding=True,
    max_position_embeddings=1024,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
    decoder_start_token_id=2,
    max_length=200,
    num_beams=5,
    early_stopping=True,
)

KNOWN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "opus-mt-en-de": (
        _like_bart(6, 8, 2048, 512, **_OPUS),
        dict(
            norm="post", positions="sinusoidal_split", logits_bias=True, tied_embeddings="all", max_length=512
        ),
    ),
    "opus-mt-mul-en": (
        _like_bart(
            6, 8, 2048, 512, **_OPUS | dict(vocab_size=64172, pad_token_id=64171, extra_pos_embeddings=64172)
        ),
        dict(activation="swish", scale_embeddings=True, embedding_norm=False),
    ),
    "nllb-200-distilled-600M": (
        _like_bart(12, 16, 4096, 1024, **_M2M | dict(vocab_size=256206, tokenizer_class="NllbTokenizer")),
        dict(
            norm="pre", positions="sinusoidal_halves", position_offset=2, activation="relu", max_length=1024
        ),
    ),
    "m2m100 without what is its default": (
        {
            key: value
            for key, value in _like_bart(12, 16, 4096, 1024, **_M2M | dict(vocab_size=128112)).items()
            if key not in ("activation_function", "scale_embedding")
        },
        dict(activation="relu", scale_embeddings=True),
    ),
    "m2m100_418M": (
        _like_bart(
            12,
            16,
            4096,
            1024,
            **_M2M | dict(vocab_size=128112, encoder_layerdrop=0.05, decoder_layerdrop=0.05),
        ),
        dict(d_model=1024, num_heads=16, attention_bias=True, logits_bias=False),
    ),
    "mbart-large-50-many-to-many-mmt": (
        _like_bart(
            12, 16, 4096, 1024, **_MBART | dict(vocab_size=250054, tokenizer_class="MBart50Tokenizer")
        ),
        dict(norm="pre", positions="learned", position_offset=2, embedding_norm=True, logits_bias=True),
    ),
    "bart-base": (_like_bart(6, 12, 3072, 768, **_BART), dict(norm="post", activation="gelu", head_size=0)),
    "bart-large-cnn": (
        _like_bart(12, 16, 4096, 1024, **_BART | dict(vocab_size=50264, min_length=56, max_length=142)),
        dict(norm="post", positions="learned", embedding_norm=True, scale_embeddings=False, max_length=1024),
    ),
    "t5-small": (
        _like_t5(6, 8, 2048, 512, n_positions=512, vocab_size=32128),
        dict(
            activation="relu",
            gated_feed_forward=False,
            scale_logits=True,
            tied_embeddings="all",
            head_size=64,
        ),
    ),
    "t5-v1_1-base": (
        _like_t5(12, 12, 2048, 768, num_decoder_layers=12, vocab_size=32128, **_GATED),
        dict(activation="gelu_tanh", gated_feed_forward=True, scale_logits=False, tied_embeddings="inputs"),
    ),
    "flan-t5-small": (
        _like_t5(8, 6, 1024, 512, num_decoder_layers=8, n_positions=512, vocab_size=32128, **_GATED_TOO),
        dict(scale_queries=False, scale_logits=False, tied_embeddings="inputs", norm_type="rms"),
    ),
    "mt5-small": (
        _like_t5(8, 6, 1024, 512, num_decoder_layers=8, vocab_size=250112, **_GATED)
        | dict(model_type="mt5", tokenizer_class="T5Tokenizer"),
        dict(scale_logits=False, tied_embeddings="inputs", relative_shared=True),
    ),
    "byt5-small": (
        _like_t5(
            12, 6, 3584, 1472, num_decoder_layers=4, vocab_size=384, tokenizer_class="ByT5Tokenizer", **_GATED
        ),
        dict(num_encoder_layers=12, num_decoder_layers=4, max_length=1024, scale_logits=False),
    ),
    "madlad400-3b-mt": (
        _like_t5(32, 16, 8192, 1024, num_decoder_layers=32, n_positions=512, vocab_size=256000, **_GATED_TOO)
        | dict(pad_token_id=1, eos_token_id=2, d_kv=128, classifier_dropout=0.0),
        dict(head_size=128, scale_logits=False, tied_embeddings="inputs", gated_feed_forward=True),
    ),
    "umt5-small": (
        _like_t5(
            8, 6, 1024, 512, num_decoder_layers=8, vocab_size=256384, scalable_attention=True, **_GATED_TOO
        )
        | dict(model_type="umt5"),
        dict(relative_shared=False, scale_logits=False, tied_embeddings="inputs"),
    ),
    "umt5-small, saved by transformers 5.24": (
        _like_t5(
            8, 6, 1024, 512, num_decoder_layers=8, vocab_size=256384, scalable_attention=True, **_GATED_TOO
        )
        | dict(model_type="umt5", tie_word_embeddings=True, scale_decoder_outputs=False),
        dict(relative_shared=False, scale_logits=False, tied_embeddings="all"),
    ),
}
OWN_OUTPUT = {"t5-v1_1-base", "flan-t5-small", "mt5-small", "byt5-small", "madlad400-3b-mt", "umt5-small"}


@pytest.mark.parametrize("name", KNOWN)
def test_settings(tmp_path: Path, name: str) -> None:
    settings, expected = KNOWN[name]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    foreign = Foreign(tmp_path)
    model = FAMILIES[settings["model_type"]].model(foreign, name in OWN_OUTPUT)
    assert foreign.reasons == []
    found = from_config_dict({"model": model, "data": {"batch_tokens": 4096}}).model
    assert {key: getattr(found, key) for key in expected} == expected
    assert found.d_model == settings["d_model"]
    assert found.key_size == settings.get("d_kv", found.d_model // found.num_heads)
    assert dataclasses.asdict(found).keys() >= model.keys()
