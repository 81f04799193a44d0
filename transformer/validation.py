"""Which values of a configuration are possible, alone and together."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer.config import Config

_MAY_BE_NEGATIVE = {"run.eval_lines", "mesh.data", "mesh.fsdp", "mesh.tensor"}
_POSITIVE = (
    "model.d_model",
    "model.d_ff",
    "model.num_heads",
    "model.num_encoder_layers",
    "model.num_decoder_layers",
    "model.max_length",
    "model.norm_epsilon",
    "tokenizer.vocab_size",
    "data.packing_bins",
    "data.batch_tokens",
    "optim.warmup_steps",
    "optim.accumulation_steps",
    "optim.loss_chunk",
    "decode.beam_size",
    "decode.max_extra_length",
    "decode.batch_size",
    "run.num_steps",
    "run.eval_every",
    "run.save_every",
    "run.log_every",
    "run.keep_latest",
)


def find_faults(config: "Config", values: Mapping[str, Any]) -> list[str]:
    """Checks values alone and against each other.

    Args:
      config: the configuration.
      values: the same, flat: {"section.key": value}.

    Returns:
      One line for each fault, naming the key, what was got and the remedy.
    """
    model, data, optim, run = config.model, config.data, config.optim, config.run
    faults: list[str] = []

    def check(ok: bool, message: str) -> None:
        if not ok:
            faults.append("config." + message)

    for key, value in values.items():
        if key.endswith("_rate") and key != "optim.learning_rate":
            check(0 <= value < 1, f"{key}: must be at least 0 and below 1, got {value}")
        elif isinstance(value, (int, float)) and key not in _MAY_BE_NEGATIVE and not key.endswith("seed"):
            check(value >= 0, f"{key}: must not be negative, got {value}")
    for key in _POSITIVE:
        value = values[key]
        check(value > 0, f"{key}: must be above 0, got {value}")
    for key in ("optim.label_smoothing", "optim.ema_decay", "optim.beta1", "optim.beta2"):
        check(values[key] < 1, f"{key}: must be below 1, got {values[key]}")
    if model.num_heads > 0:
        check(
            model.d_model % model.num_heads == 0,
            f"model.num_heads: {model.num_heads} heads do not divide d_model {model.d_model}; "
            "choose a divisor, for example "
            f"{max(h for h in range(1, model.num_heads + 1) if model.d_model % h == 0)}",
        )
    check(
        model.positions == "learned" or model.d_model % 2 == 0,
        f"model.d_model: sinusoidal positions need an even size, got {model.d_model}",
    )
    check(
        model.tied_embeddings != "all" or config.tokenizer.joint,
        "model.tied_embeddings: 'all' needs one vocabulary; set config.tokenizer.joint=true, "
        "or tied_embeddings to 'target' or 'none'",
    )
    row = data.row_length or model.max_length
    check(
        row >= model.max_length,
        f"data.row_length: {row} is shorter than the longest sentence, model.max_length {model.max_length}",
    )
    check(
        data.batch_tokens >= row,
        f"data.batch_tokens: {data.batch_tokens} is smaller than the longest sentence "
        f"({row} positions); raise it, or lower config.model.max_length",
    )
    check(
        not data.buckets or max(data.buckets) >= model.max_length,
        f"data.buckets: the longest must reach model.max_length {model.max_length}, got {data.buckets}",
    )
    check(
        not data.train_weights or len(data.train_weights) == len(data.train_source),
        f"data.train_weights: {len(data.train_weights)} weights for {len(data.train_source)} pairs of files",
    )
    check(0 < config.decode.top_p <= 1, f"decode.top_p: must be in (0, 1], got {config.decode.top_p}")
    check(
        0 < config.tokenizer.character_coverage <= 1,
        f"tokenizer.character_coverage: must be in (0, 1], got {config.tokenizer.character_coverage}",
    )
    check(
        0 < optim.decay_fraction <= 1, f"optim.decay_fraction: must be in (0, 1], got {optim.decay_fraction}"
    )
    check(
        run.eval_lines != 0 or run.best_metric in ("nll", "accuracy"),
        f"run.best_metric: '{run.best_metric}' needs translations, but run.eval_lines is 0; "
        "set best_metric=nll or eval_lines above 0",
    )
    sizes = list(dataclasses.astuple(config.mesh))
    check(
        all(s == -1 or s > 0 for s in sizes) and sizes.count(-1) <= 1,
        f"mesh: sizes must be above 0 and at most one -1, got {tuple(sizes)}",
    )
    return faults
