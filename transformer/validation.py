"""Which values of a configuration are possible, alone and together."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from transformer import kinds
from transformer.config import Config, DataConfig, ModelConfig, Positions

_MAY_BE_NEGATIVE = {"run.eval_lines", "mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.sequence"}
_FRACTIONS = {  # 0 to below 1
    "data.mask_rate",
    "data.subword_dropout",
    "optim.label_smoothing",
    "optim.ema_decay",
    "optim.beta1",
    "optim.beta2",
}
_SHARES = {"decode.top_p", "tokenizer.character_coverage", "optim.decay_fraction"}  # above 0 to 1
_EXPRESSIONS = {"init.include", "init.exclude", "optim.freeze", "lora.targets"}
_POSITIVE = (
    "model.d_model",
    "model.d_ff",
    "model.num_heads",
    "model.max_length",
    "model.norm_epsilon",
    "model.attention_radius",
    "model.compression",
    "model.relative_buckets",
    "model.relative_max_distance",
    "tokenizer.vocab_size",
    "tokenizer.max_training_lines",
    "data.packing_bins",
    "data.batch_tokens",
    "optim.warmup_steps",
    "optim.epsilon",
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
    "run.max_skipped",
)
_SEEDS = ("run.init_seed", "run.dropout_seed", "decode.seed")
_SINUSOIDS = tuple(name for name in get_args(Positions) if name.startswith("sinusoidal"))
# What a setting is of: a choice, and those of its values with which it does anything.
USES = {
    "model.attention_radius": ("model.attention", ("window", "block", "alternating")),
    "model.compression": ("model.attention", ("compressed", "alternating")),
    "model.position_offset": ("model.positions", (*_SINUSOIDS, "learned")),
    "model.relative_buckets": ("model.positions", ("relative",)),
    "model.relative_max_distance": ("model.positions", ("relative", "shaw")),
    "model.relative_shared": ("model.positions", ("relative",)),
    "optim.ponder_weight": ("model.recurrence", ("adaptive",)),
    "optim.random_offset": ("model.positions", _SINUSOIDS),
    "optim.weight_decay": ("optim.name", ("adamw", "lion")),
}


def find_faults(config: Config, values: Mapping[str, Any]) -> list[str]:
    """Checks values alone and against each other.

    Args:
      config: the configuration.
      values: the same, flat: {"section.key": value}.

    Returns:
      One line for each fault, naming the key, what was got and the remedy.
    """
    found = *_alone(values), *_without_use(values), *_together(config)
    return ["config." + fault for fault in found]


def _alone(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with single values."""
    for key, value in values.items():
        if key in _EXPRESSIONS:
            try:
                re.compile(value)
            except re.error as error:
                yield f"{key}: {value!r} is no regular expression: {error}"
        numbers = [x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, int | float)]
        if key in _SHARES:
            if not 0 < value <= 1:
                yield f"{key}: must be above 0 and at most 1, got {value}"
        elif key.endswith("dropout_rate"):
            # model/dropout.py decides by eight bits: 1/256 is the least it can do, 255/256 the most.
            if value != 0 and not 1 / 256 <= value <= 255 / 256:
                yield f"{key}: must be 0, or from 0.004 to 0.996, got {value}"
        elif key in _FRACTIONS:
            if not 0 <= value < 1:
                yield f"{key}: must be at least 0 and below 1, got {value}"
        elif key in _POSITIVE:
            if not value > 0:
                yield f"{key}: must be above 0, got {value}"
        elif key not in _MAY_BE_NEGATIVE and not all(x >= 0 for x in numbers):
            yield f"{key}: must not be negative, got {value}"
        elif key in _SEEDS and value >= 1 << 32:  # jax.random.key takes no more bits, and drops the others
            yield f"{key}: must be below {1 << 32:,}, got {value}"


def _without_use(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields settings of what was not chosen, where they are others than they would be untouched."""
    plain = Config()
    for key, (choice, uses) in USES.items():
        section, _, name = key.partition(".")
        default = getattr(getattr(plain, section), name)
        if values[key] != default and values[choice] not in uses:
            yield (
                f"{key}: is of {choice} {' or '.join(map(repr, uses))}, got {values[key]} with "
                f"{values[choice]!r}; leave it at {default}, or choose another config.{choice}"
            )


def _together(config: Config) -> Iterator[str]:
    """Yields what is wrong with values that depend on each other."""
    model, data, run = config.model, config.data, config.run
    yield from _heads_and_positions(model)
    yield from kinds.faults(config)
    if model.recurrence != "none" and model.scan_layers:
        yield f"model.scan_layers: layers that recur ('{model.recurrence}') are one; set it to false"
    if model.recurrence != "none" and model.embedding_norm:
        yield "model.embedding_norm: where layers recur positions are added at each step; set it to false"
    if data.kind == "trees" and model.kind == "encoder_decoder":
        yield from _trees(config)
    if 0 < config.decode.length_limit < config.decode.min_length:
        yield f"decode.min_length: {config.decode.min_length} is above decode.length_limit; lower it"
    if model.positions == "relative":
        yield from _relative(config)
    yield from _local(config)
    if model.attention_implementation == "cudnn":
        yield from _cudnn(config)
    if model.tied_embeddings in ("all", "inputs") and not config.tokenizer.joint:
        yield (
            f"model.tied_embeddings: '{model.tied_embeddings}' needs one vocabulary; set "
            "config.tokenizer.joint=true"
            + (", or tied_embeddings to 'target' or 'none'" if model.kind == "encoder_decoder" else "")
        )
    if run.eval_lines == 0 and run.best_metric not in ("nll", "accuracy"):
        yield (
            f"run.best_metric: '{run.best_metric}' needs translations, but run.eval_lines is 0; set "
            "best_metric to nll or accuracy"
            + (", or eval_lines above 0" if model.kind != "encoder_only" and data.has_sources else "")
        )
    if not config.init.model:
        for field in dataclasses.fields(config.init):
            if getattr(config.init, field.name) != field.default:
                yield f"init.{field.name}: is of a base, and there is none; set config.init.model"
    yield from _lora(config)
    yield from _optimizer(config)
    yield from _rows_and_files(data, model.max_length)
    yield from _mesh(config)


def _trees(config: Config) -> Iterator[str]:
    """Yields what symbols of trees, each of which is one piece, do not go together with."""
    if config.decode.min_length or config.decode.no_repeat_ngram_size:
        key = "min_length" if config.decode.min_length else "no_repeat_ngram_size"
        yield f"decode.{key}: a tree ends where it is whole, and repeats symbols; set it to 0"
    if config.data.subword_dropout:
        yield "data.subword_dropout: would cut the symbols of trees, which are written whole; set it to 0"
    if config.tokenizer.normalization.endswith("_cf"):
        folded = config.tokenizer.normalization
        yield f"tokenizer.normalization: '{folded}' makes other symbols of those of trees; choose another"


def _optimizer(config: Config) -> Iterator[str]:
    """Yields what an optimizer cannot do exactly."""
    optim = config.optim
    if optim.name in ("adam", "adamw") and config.model.param_dtype == "bfloat16" and optim.beta2 > 0.996:
        yield (
            f"optim.beta2: with {optim.beta2} a mean in bfloat16 cannot fall; lower it to 0.99, or set "
            "config.model.param_dtype=float32 (model.dtype may stay)"
        )
    if optim.ema_decay and config.model.param_dtype == "bfloat16":
        yield (
            "optim.ema_decay: in bfloat16 an average cannot take steps so small; set it to 0, or "
            "config.model.param_dtype=float32 (model.dtype may stay)"
        )


def _mesh(config: Config) -> Iterator[str]:
    """Yields what meshes there are not."""
    if config.model.kind == "decoder_only" and config.mesh.sequence != 1:
        yield f"mesh.sequence: divides an encoder's positions, got {config.mesh.sequence}; set it to 1"
    sizes = dataclasses.astuple(config.mesh)
    if not all(s == -1 or s > 0 for s in sizes) or sizes.count(-1) > 1:
        yield f"mesh: sizes must be above 0 and at most one -1, got {sizes}"


def _rows_and_files(data: DataConfig, longest: int) -> Iterator[str]:
    """Yields what rows cannot hold, and files that do not go together."""
    row = data.row_length or longest
    if row < longest:
        yield f"data.row_length: {row} is shorter than the longest sentence, model.max_length {longest}"
    if data.target_length:
        yield from _short_targets(data, longest)
    if data.batch_tokens < row:
        yield (
            f"data.batch_tokens: {data.batch_tokens} is smaller than the longest sentence "
            f"({row} positions); raise it, or lower config.model.max_length"
        )
    if data.buckets and data.packing:
        yield (
            f"data.buckets: packed rows have one length, data.row_length, not {data.buckets}; leave it out, "
            "or set config.data.packing=false"
        )
    elif data.buckets and (max(data.buckets) < longest or 0 in data.buckets):
        yield (
            f"data.buckets: must be above 0, the longest at least model.max_length {longest}, "
            f"got {data.buckets}"
        )
    weights, files = data.train_weights, len(data.train_source if data.has_sources else data.train_target)
    if weights and (len(weights) != files or not any(weights)):
        of = "pairs of files" if data.has_sources else "files"
        cure = "give one each, not all of them 0" if files else "leave it out"
        yield f"data.train_weights: {weights} for {files} {of}; {cure}"
    for split in ("train", "dev", "test"):
        if data.kind == "trees" and getattr(data, f"{split}_target"):
            yield f"data.{split}_target: trees are source and target; name their files in data.{split}_source"


def _short_targets(data: DataConfig, longest: int) -> Iterator[str]:
    """Yields why targets cannot have rows shorter than the sources'."""
    key = f"data.target_length: {data.target_length}"
    if data.packing:
        yield f"{key} is of rows that hold one target each; set config.data.packing=false"
    if data.subword_dropout:
        yield f"{key} leaves no room for pieces that fall apart; set config.data.subword_dropout=0"
    if data.target_length > longest:
        yield f"{key} is above the longest sentence, model.max_length {longest}; lower it"


def _heads_and_positions(model: ModelConfig) -> Iterator[str]:
    """Yields what heads and positions cannot be."""
    if not model.head_size and model.num_heads > 0 and model.d_model % model.num_heads:
        divisor = max(h for h in range(1, model.num_heads) if model.d_model % h == 0)
        yield (
            f"model.num_heads: {model.num_heads} heads do not divide d_model {model.d_model}; "
            f"choose a divisor, for example {divisor}, or set config.model.head_size"
        )
    if model.num_kv_heads and model.num_heads > 0 and model.num_heads % model.num_kv_heads:
        yield (
            f"model.num_kv_heads: {model.num_kv_heads} heads of keys and values cannot be shared evenly by "
            f"{model.num_heads} heads of queries; choose a divisor of num_heads (1: multi-query)"
        )
    if model.positions == "rotary" and (model.head_size or model.d_model // max(model.num_heads, 1)) % 2:
        yield "model.positions: 'rotary' turns pairs of numbers; set an even config.model.head_size"
    if model.positions == "rotary" and model.attention_score != "dot_product":
        yield (
            "model.positions: 'rotary' tells distances to dot products alone, not to "
            f"'{model.attention_score}' scores; choose others, or config.model.attention_score=dot_product"
        )
    if model.positions == "shaw" and (model.attention_score == "additive" or model.global_tokens):
        key = "global_tokens" if model.global_tokens else "attention_score: 'additive'"
        yield (
            f"model.{key}: 'shaw' positions add vectors of near distances to keys that are multiplied; "
            "leave it out, or choose other positions"
        )
    if (model.positions.startswith("sinusoidal") or model.recurrence != "none") and model.d_model % 2:
        yield f"model.d_model: sinusoids, of positions or of steps, need an even size, got {model.d_model}"


def _local(config: Config) -> Iterator[str]:
    """Yields what attention to what is near, or to compressed keys, does not go together with."""
    model = config.model
    near, squeezed = model.attention in ("window", "block"), model.attention in ("compressed", "alternating")
    if not near and model.global_tokens:
        others = "" if model.kind == "decoder_only" else ", or attention to 'window' or 'block'"
        yield (
            f"model.global_tokens: are of attention to windows or blocks alone, not of '{model.attention}'; "
            f"set it to 0{others}"
        )
    elif config.data.packing and (model.attention == "block" or squeezed or model.global_tokens):
        key = "global_tokens" if model.global_tokens else f"attention: '{model.attention}'"
        yield (
            f"model.{key}: places are counted from the beginning of a row, which must be that of a sentence; "
            "set config.data.packing=false"
        )
    if squeezed and model.positions in ("relative", "shaw", "alibi", "rotary"):
        yield (
            f"model.positions: '{model.positions}' are distances, and compressed keys are at several places "
            "at once; choose sinusoidal or learned ones"
        )
    if model.attention == "alternating" and (model.scan_layers or model.recurrence != "none"):
        key = "scan_layers" if model.scan_layers else "recurrence"
        yield f"model.{key}: layers that alternate are not one; leave it out, or set attention='compressed'"


def _lora(config: Config) -> Iterator[str]:
    """Yields what adapters do not go together with."""
    if not config.lora.rank:
        for field in dataclasses.fields(config.lora):
            if getattr(config.lora, field.name) != field.default:
                yield f"lora.{field.name}: is of adapters, and there are none; set config.lora.rank"
        return
    if not config.lora.alpha:
        yield "lora.alpha: at 0 adapters add nothing and learn nothing; set it above 0"
    if not config.init.model:
        yield "lora.rank: adapters need the model that they are added to; set config.init.model"
    if config.init.include or config.init.exclude or config.init.vocabulary != "base":
        yield "init.include, exclude, vocabulary: with adapters every parameter is the base's; leave them out"
    if config.init.optimizer:
        yield "init.optimizer: adapters are new, and so are their moments; leave it out"
    if config.optim.freeze:
        yield "optim.freeze: with lora.rank only adapters are trained; leave it out"


def _relative(config: Config) -> Iterator[str]:
    """Yields why distances cannot be put into buckets."""
    model = config.model
    if model.relative_buckets % 4:
        yield (
            "model.relative_buckets: must be a multiple of 4 (left and right, near and far), "
            f"got {model.relative_buckets}"
        )
    elif model.relative_max_distance <= model.relative_buckets // 2:
        yield (
            f"model.relative_max_distance: {model.relative_max_distance} is not beyond the near distances, "
            "which have buckets of their own; "
            f"raise it above relative_buckets / 2 = {model.relative_buckets // 2}"
        )


def _cudnn(config: Config) -> Iterator[str]:
    """Yields what cuDNN's fused attention cannot do."""
    model, key = config.model, "model.attention_implementation: 'cudnn'"
    head = model.head_size or model.d_model // max(model.num_heads, 1)
    if model.positions in ("relative", "shaw", "alibi"):
        yield f"{key} adds nothing to scores, as '{model.positions}' positions do; choose 'xla' or others"
    if model.attention != "full":
        yield f"{key} computes full attention alone; choose 'xla' for attention='{model.attention}'"
    if model.attention_score == "additive":
        yield f"{key} multiplies queries and keys; choose 'xla' for attention_score='additive'"
    if model.dtype != "bfloat16":
        yield f"{key} computes in bfloat16 alone; set config.model.dtype=bfloat16, or choose 'xla'"
    if model.attention_dropout_rate:
        yield f"{key} has no dropout on weights; set config.model.attention_dropout_rate=0, or choose 'xla'"
    if head % 8 or head > 128:
        yield f"{key} needs a head size that is a multiple of 8 and at most 128, got {head}; choose 'xla'"
    lengths = config.row_length, config.target_length, *(() if config.data.packing else config.data.buckets)
    if odd := [length for length in lengths if length % 2]:
        keys = "data.row_length, target_length, buckets, model.max_length"
        yield f"{key} needs rows of an even length, got {odd[0]} ({keys})"
