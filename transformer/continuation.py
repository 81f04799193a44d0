"""Which keys of a run's configuration may change when it is continued, and which make it another run.

Free keys take effect at once: nothing that is saved depends on them. Fixed ones decide the shapes of
what is saved, or which sentences come next.
"""

import dataclasses

from transformer.config import DecodeConfig, MeshConfig, RunConfig

FREE = frozenset(
    {
        "model.dropout_rate",
        "model.attention_dropout_rate",
        "model.activation_dropout_rate",
        "model.attention_implementation",
        "model.dtype",  # of the computation; parameters keep theirs
        "model.remat",
        "data.root",
        "data.tfds_dir",
        "init.model",  # another place of the same parameters: their digest decides
        "init.checkpoint",
        "optim.learning_rate",
        "optim.schedule",
        "optim.warmup_steps",
        "optim.decay_fraction",
        "optim.end_ratio",
        "optim.beta1",
        "optim.beta2",
        "optim.epsilon",
        "optim.weight_decay",
        "optim.clip_norm",
        "optim.accumulation_steps",
        "optim.label_smoothing",
        "optim.loss_chunk",
        *("decode." + field.name for field in dataclasses.fields(DecodeConfig)),
        *("mesh." + field.name for field in dataclasses.fields(MeshConfig)),
        *("run." + field.name for field in dataclasses.fields(RunConfig)),
    }
) - {"run.init_seed", "run.dropout_seed", "run.dropout_prng"}

FIXED = frozenset(
    {
        "model.preset",
        "model.d_model",
        "model.d_ff",
        "model.num_heads",
        "model.head_size",
        "model.num_encoder_layers",
        "model.num_decoder_layers",
        "model.max_length",
        "model.norm",
        "model.norm_type",
        "model.norm_epsilon",
        "model.embedding_norm",
        "model.activation",
        "model.gated_feed_forward",
        "model.feed_forward_bias",
        "model.positions",
        "model.position_offset",
        "model.relative_buckets",
        "model.relative_max_distance",
        "model.relative_shared",
        "model.tied_embeddings",
        "model.scale_embeddings",
        "model.scale_queries",
        "model.scale_logits",
        "model.logits_bias",
        "model.attention_bias",
        "model.param_dtype",
        "model.scan_layers",
        "tokenizer.model_type",
        "tokenizer.vocab_size",
        "tokenizer.joint",
        "tokenizer.normalization",
        "tokenizer.remove_extra_whitespaces",
        "tokenizer.split_digits",
        "tokenizer.byte_fallback",
        "tokenizer.character_coverage",
        "tokenizer.max_training_lines",
        "data.kind",
        "data.train_source",
        "data.train_target",
        "data.train_weights",
        "data.dev_source",
        "data.dev_target",
        "data.test_source",
        "data.test_target",
        "data.holdout_lines",
        "data.train_tsv",
        "data.dev_tsv",
        "data.test_tsv",
        "data.tsv_columns",
        "data.tfds_name",
        "data.tfds_splits",
        "data.source_language",
        "data.target_language",
        "data.cldr_pairs",
        "data.cldr_seed",
        "data.invalid_utf8",
        "data.max_ratio",
        "data.subword_dropout",
        "data.seed",
        "data.packing",
        "data.batch_tokens",
        "data.row_length",
        "data.packing_bins",
        "data.buckets",
        "data.workers",  # each packs a share of the pairs
        "init.include",
        "init.exclude",
        "init.vocabulary",
        "lora.rank",
        "lora.alpha",
        "lora.targets",
        "optim.name",
        "optim.freeze",  # the optimizer has nothing to go on with for others
        "optim.ema_decay",  # a run without an average has none to go on with
        "run.init_seed",
        "run.dropout_seed",
        "run.dropout_prng",
    }
)
