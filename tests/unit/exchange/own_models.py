"""Model directories of our own with random parameters, as a run leaves them."""

from pathlib import Path
from typing import Any

import hf_folders
import jax
import numpy as np
import sentencepiece as spm

from transformer.config_mapping import from_config_dict
from transformer.data.tokenizer import train_tokenizer
from transformer.io.checkpoint import Checkpoints
from transformer.io.workdir import Workdir
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer

SIZES = dict(d_model=24, d_ff=37, num_heads=3, num_encoder_layers=2, num_decoder_layers=1, max_length=64)


def write(
    folder: Path, decode: dict[str, Any] | None = None, seed: int = 1, joint: bool = True, **model: Any
) -> Path:
    """Writes one; `model` are fields of `ModelConfig`."""
    config = from_config_dict(
        {
            "model": {**SIZES, **model},
            "tokenizer": dict(vocab_size=50, joint=joint, remove_extra_whitespaces=True),
            "decode": decode or {},
        }
    )
    tokenizer = train_tokenizer(
        hf_folders.sentences(400, 0), hf_folders.sentences(400, 1 - joint), config.tokenizer
    )
    module = Transformer(config.model, tokenizer.source_vocab, tokenizer.target_vocab)
    draw = np.random.default_rng(seed)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: draw.normal(1.0 * (path[-1].key == "scale"), 0.4, x.shape).astype(x.dtype),
        parameter_shapes(module),
    )
    workdir = Workdir(folder)
    tokenizer.save(workdir.tokenizer)
    written = Checkpoints(workdir.checkpoints, config.run)
    written.save(7, {"params": params}, {})
    written.close()
    workdir.seal(config, tokenizer.digest)
    workdir.save_config(config)
    return folder


def sentencepiece(path: Path) -> spm.SentencePieceProcessor:
    """Returns a model of SentencePiece itself."""
    return spm.SentencePieceProcessor(model_file=str(path))
