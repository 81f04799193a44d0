"""Hugging Face's MarianMTModel in the sizes and with the weights of our model."""

import json
from typing import Any

import numpy as np
import torch
from feed import BOS_ID, EOS_ID, PAD_ID
from transformers import MarianConfig, MarianMTModel


def make_model(sizes: dict[str, Any]) -> MarianMTModel:
    """Returns a model with random weights.

    Args:
      sizes: `vocab_size`, `d_model`, `heads`, `d_ff`, `encoder_layers`, `decoder_layers`, `dropout`.
    """
    config = MarianConfig(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["d_model"],
        encoder_layers=sizes["encoder_layers"],
        decoder_layers=sizes["decoder_layers"],
        encoder_attention_heads=sizes["heads"],
        decoder_attention_heads=sizes["heads"],
        encoder_ffn_dim=sizes["d_ff"],
        decoder_ffn_dim=sizes["d_ff"],
        max_position_embeddings=512,
        activation_function="relu",
        dropout=sizes["dropout"],
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=sizes["d_model"] ** -0.5,
        scale_embedding=True,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        decoder_start_token_id=BOS_ID,
        forced_eos_token_id=EOS_ID,
    )
    return MarianMTModel(config)


def load_model(file: str) -> MarianMTModel:
    """Returns a model with the weights that `bridge.py weights` wrote.

    Raises:
      ValueError: if a weight is missing or has no place.
    """
    with np.load(file, allow_pickle=False) as arrays:
        model = make_model(json.loads(str(arrays["sizes"])))
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "sizes"}
    missing, unknown = model.load_state_dict(weights, strict=False)
    tied = {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"}
    lost = [name for name in missing if name not in tied and "embed_positions" not in name]
    if lost or unknown:
        raise ValueError(f"{file}: lacks {lost}, has no place for {unknown}")
    model.tie_weights()
    return model.eval()


def device_facts(device: str) -> dict[str, Any]:
    """Returns the name of the device; of a GPU also the most bytes that were allocated there."""
    if device == "cpu":
        return {"device": "cpu"}
    return {"device": torch.cuda.get_device_name(), "peak_memory": torch.cuda.max_memory_allocated()}
