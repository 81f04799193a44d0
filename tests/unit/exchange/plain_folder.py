"""A Marian folder made with NumPy alone, for tests of what is read and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import hf_folders
import jax
import numpy as np
from safetensors.numpy import save_file

from transformer.config import ModelConfig
from transformer.data.byte_pairs import CHARACTERS
from transformer.exchange.names import bart_name
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer

VOCAB = 50
SETTINGS = {
    "model_type": "marian",
    "vocab_size": VOCAB,
    "decoder_vocab_size": VOCAB,
    "d_model": 12,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 10,
    "decoder_ffn_dim": 10,
    "activation_function": "relu",
    "scale_embedding": True,
    "max_position_embeddings": 64,
    "pad_token_id": VOCAB - 1,
    "eos_token_id": 0,
    "decoder_start_token_id": VOCAB - 1,
}
OURS = ModelConfig(
    d_model=12,
    d_ff=10,
    num_heads=3,
    num_encoder_layers=1,
    num_decoder_layers=2,
    attention_bias=True,
    logits_bias=True,
)


BART = dataclasses.replace(
    OURS, norm_epsilon=1e-5, positions="learned", position_offset=2, max_length=64, embedding_norm=True
)


def tensors(dtype: Any = np.float32, model: ModelConfig = OURS, rows: int = VOCAB) -> dict[str, np.ndarray]:
    """Returns random tensors by the names of Marian's state, linear maps as [outputs, inputs]."""
    rng = np.random.default_rng(0)
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(parameter_shapes(Transformer(model, rows, rows))):
        ours = "/".join(k.key for k in path)
        shape = x.shape
        if ours.endswith("kernel"):
            inputs = 2 if "/out/" in ours else 1
            shape = int(np.prod(x.shape[inputs:])), int(np.prod(x.shape[:inputs]))
        elif ours.endswith("bias") and ours != "logits_bias":
            shape = (x.size,)
        elif ours == "logits_bias":
            shape = (1, x.size)
        found[bart_name(ours, {})] = rng.normal(size=shape).astype(dtype)
    return found


def write(folder: Path, arrays: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    """Writes the folder; `changes` are of config.json, None removes a key."""
    folder.mkdir()
    settings = {k: v for k, v in {**SETTINGS, **changes}.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    model = hf_folders.sentencepiece_model(40, 0)
    ids = {"</s>": 0, "<unk>": 1, "<pad>": VOCAB - 1}
    ids |= {piece: i for i, piece in enumerate(hf_folders.pieces_of(model), 2)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(model)
    save_file(tensors() if arrays is None else arrays, folder / "model.safetensors")
    return folder


def write_bart(folder: Path, merges: list[str], whole: bool = False) -> Path:
    """Writes a BART folder with byte pairs; `whole`: in tokenizer.json, as transformers 5 does."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *CHARACTERS.values(), *(m.replace(" ", "") for m in merges)]
    ids = {piece: i for i, piece in enumerate([*pieces, "<mask>"])}
    rows = len(ids)
    settings = SETTINGS | dict(model_type="bart", vocab_size=rows, decoder_vocab_size=rows)
    settings |= dict(pad_token_id=1, eos_token_id=2, bos_token_id=0, decoder_start_token_id=2)
    settings |= dict(forced_bos_token_id=0)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    if whole:
        added = [
            {"id": ids[piece], "content": piece, "special": True}
            for piece in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
        ]
        content = {
            "added_tokens": added,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            "model": {"type": "BPE", "vocab": ids, "merges": [merge.split() for merge in merges]},
        }
        (folder / "tokenizer.json").write_text(json.dumps(content))
    else:
        (folder / "vocab.json").write_text(json.dumps(ids))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    save_file(tensors(model=BART, rows=rows), folder / "model.safetensors")
    return folder
