"""Values of a configuration that are not possible, alone or together, and what is said of them."""

import pytest

from transformer.config import Config, InitConfig, LoraConfig
from transformer.config_mapping import flat
from transformer.errors import ConfigError
from transformer.recipes import load_config
from transformer.validation import find_faults

CUDNN = ("model.attention_implementation=cudnn", "model.dtype=bfloat16")
APART = ("data.packing=false",)
MASKED = ("model.kind=encoder_only", "run.eval_lines=0", "run.best_metric=nll")
LINES = ("model.kind=decoder_only", "data.kind=lines", "run.eval_lines=0", "run.best_metric=nll")
FRAMES = ("data.kind=frames", "model.source_features=8")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.num_heads=12", "model.d_model=128"], "12 heads do not divide d_model 128; .* example 8"),
        (["model.d_model=129", "model.num_heads=3"], "need an even size, got 129"),
        (
            ["model.attention_implementation=cudnn"],
            "computes in bfloat16 alone; set config.model.dtype=bfloat16",
        ),
        ([*CUDNN, "model.attention_dropout_rate=0.1"], "'cudnn' has no dropout on weights"),
        ([*CUDNN, "model.positions=relative"], "'cudnn' adds nothing to scores, as 'relative' positions do"),
        ([*CUDNN, "model.attention=window"], "full attention alone; choose 'xla' for attention='window'"),
        (
            ["model.global_tokens=4"],
            "to windows or blocks alone, not of 'full'; set it to 0, or attention to",
        ),
        ([*LINES, "model.global_tokens=4"], "not of 'full'; set it to 0$"),
        (["data.kind=trees", "data.subword_dropout=0.1"], "would cut the symbols of trees"),
        (["data.kind=trees", "tokenizer.normalization=nfkc_cf"], "'nfkc_cf' makes other symbols of those"),
        (["data.kind=trees", "decode.min_length=3"], "min_length: a tree ends where it is whole"),
        (["decode.min_length=9", "decode.length_limit=8"], "9 is above decode.length_limit; lower it"),
        (["lora.targets=query"], "targets: is of adapters, and there are none; set config.lora.rank"),
        (["optim.beta2=0.999", "model.param_dtype=bfloat16"], "with 0.999 a mean in bfloat16 cannot fall"),
        (["data.kind=cldr", "data.train_weights=1"], "for 0 pairs of files; leave it out"),
        (["model.attention=compressed"], "attention: 'compressed': places are .*packing=false"),
        (
            ["model.attention=alternating", "data.packing=false", "model.positions=alibi"],
            "positions: 'alibi' are distances, and compressed keys are at several places at once",
        ),
        (
            ["model.attention=alternating", "data.packing=false", "model.scan_layers=true"],
            "scan_layers: layers that alternate are not one",
        ),
        (
            ["data.target_length=9"],
            "target_length: 9 is of rows that hold one target each; set .*packing=false",
        ),
        (["model.attention=compressed", "data.packing=false", "model.compression=0"], "must be above 0"),
        (
            ["model.positions=shaw", "model.attention_score=additive"],
            "'additive': 'shaw' positions add vectors",
        ),
        (["model.attention=block"], "'block': places are counted from .*; set config.data.packing=false"),
        (["model.attention=window", "model.global_tokens=1"], "global_tokens: places are .*packing=false"),
        (
            ["model.positions=rotary", "model.attention_score=general"],
            "'rotary' tells distances to dot products alone, not to 'general' scores",
        ),
        (
            ["model.positions=relative", "model.position_offset=2"],
            "position_offset: is of model.positions 'sinusoidal' or .* or 'learned', got 2 with 'relative'; "
            "leave it at 0, or choose another config.model.positions$",
        ),
        (["model.positions=learned", "optim.random_offset=9"], "got 9 with 'learned'; leave it at 0"),
        (["model.attention_radius=8"], "is of model.attention 'window' or .*, got 8 with 'full'; .* at 64"),
        (["model.attention=window", "model.compression=4"], "compression: is of .* got 4 with 'window'"),
        (["model.positions=rotary", "model.relative_buckets=16"], "relative_buckets: is of .*'rotary'"),
        (["model.relative_max_distance=16"], "'relative' or 'shaw', got 16 with 'sinusoidal'"),
        (["model.positions=shaw", "model.relative_shared=false"], "relative_shared: is of .*'shaw'"),
        (["model.recurrence=fixed", "optim.ponder_weight=0.5"], "'adaptive', got 0.5 with 'fixed'"),
        (["model.positions=relative", "model.relative_buckets=6"], "must be a multiple of 4 .* got 6"),
        (
            ["model.positions=relative", "model.relative_max_distance=16"],
            "16 is not beyond the near distances, .* raise it above relative_buckets / 2 = 16",
        ),
        (["tokenizer.joint=false", "model.tied_embeddings=inputs"], "'inputs' needs one vocabulary"),
        (["model.num_encoder_layers=0"], "num_encoder_layers: must be above 0, got 0"),
        (["model.num_decoder_layers=0"], "num_decoder_layers: must be above 0, got 0"),
        (
            ["model.recurrence=fixed", "model.positions=none", "model.d_model=15", "model.num_heads=3"],
            "need an even size, got 15",
        ),
        (["model.recurrence=fixed", "model.embedding_norm=true"], "added at each step; set it to false"),
        (["model.prefix=causal"], "'causal' is of a decoder alone, .*set config.model.kind=decoder_only"),
        ([*LINES, "model.kind=encoder_decoder"], "'lines' have no source to encode"),
        ([*LINES, "model.num_encoder_layers=2"], "'decoder_only' has no encoder, got 2; set it to 0"),
        ([*LINES, "model.tied_embeddings=none"], "'none' keeps a table for sources"),
        ([*LINES, "tokenizer.joint=false"], "'all' needs one vocabulary; .*joint=true$"),
        ([*LINES, "model.positions=shaw"], "positions: 'shaw' counts places of a row"),
        ([*LINES, "model.attention=window"], "attention: 'window' counts places of a row"),
        ([*LINES, "model.prefix=causal"], "'causal' is a source, and data.kind 'lines' has none"),
        (["model.kind=decoder_only"], "data.kind 'text' has sources, .* or config.data.kind=lines"),
        ([*LINES, "data.dev_source=a"], "lines have one side; name their files in data.dev_target"),
        ([*LINES, "data.max_ratio=2"], "lines have one length, and no ratio of two, got 2.0; set it to 0"),
        ([*LINES, "run.eval_lines=9"], "lines have nothing to translate, got 9; set it to 0"),
        ([*LINES, "data.train_target=a,b", "data.train_weights=1"], "for 2 files"),
        (["data.kind=frames"], "source_features: must be the numbers of a frame, of which .*'frames' is"),
        (["model.source_features=8"], "source_features: 8, but sources of data.kind 'text' are text; set it"),
        (["model.source_features=-1", "data.kind=frames"], "must not be negative, got -1"),
        (
            [*FRAMES, "tokenizer.joint=false", "model.tied_embeddings=none"],
            "there is one side; set it to true",
        ),
        ([*FRAMES, "data.subword_dropout=0.1"], "frames do not fall into two parts; set it to 0"),
        (
            [*FRAMES, "model.kind=decoder_only", "model.prefix=causal"],
            "kind: 'decoder_only' reads tokens, and 'frames' need an encoder before a decoder",
        ),
        ([*CUDNN, "model.num_heads=2"], "a multiple of 8 and at most 128, got 256"),
        ([*CUDNN, "model.max_length=63"], "'cudnn' needs rows of an even length, got 63"),
        ([*CUDNN, "data.packing=false", "data.target_length=33"], "needs rows of an even length, got 33"),
        ([*CUDNN, "data.packing=false", "data.buckets=25,256"], "rows of an even length, got 25"),
        (["data.batch_tokens=255"], "255 is smaller than the longest sentence .256 positions."),
        (["data.row_length=512", "data.batch_tokens=511"], "511 is smaller .*512 positions"),
        (["data.row_length=100"], "100 is shorter than the longest sentence, model.max_length 256"),
        (["data.buckets=256"], r"packed rows have one length, data.row_length, not \(256,\); leave it out"),
        ([*APART, "data.buckets=32,64"], "the longest at least model.max_length 256"),
        ([*APART, "data.buckets=0,256"], "must be above 0"),
        ([*APART, "data.buckets=-8,256"], r"must not be negative, got \(-8, 256\)"),
        (["data.train_source=a,b", "data.train_weights=1"], "for 2 pairs of files"),
        (["data.train_source=a,b", "data.train_weights=0,0"], "not all of them 0"),
        (["data.train_source=a,b", "data.train_weights=1,-1"], "must not be negative"),
        (["data.seed=-1"], "must not be negative, got -1"),
        (["run.init_seed=4294967296"], "init_seed: must be below 4,294,967,296, got 4294967296"),
        (["tokenizer.max_training_lines=0"], "max_training_lines: must be above 0, got 0"),
        (["init.include=encoder"], "init.include: is of a base, and there is none; set config.init.model"),
        (["optim.weight_decay=0.1"], "is of optim.name 'adamw' or 'lion', got 0.1 with 'adam'; leave"),
        (
            ["optim.ema_decay=0.99", "model.param_dtype=bfloat16"],
            "ema_decay: in bfloat16 an average cannot take steps so small; .*param_dtype=float32",
        ),
        ([*LINES, "mesh.sequence=2"], "sequence: divides an encoder's positions, got 2; set it to 1"),
        (
            [*MASKED, *APART, "data.target_length=8"],
            "'encoder_only' models ask at places of a source, got 8; set it to 0",
        ),
        ([*MASKED, "data.kind=lines"], "'lines' have no source, which is all that 'encoder_only' models"),
        (["optim.learning_rate=nan"], "must not be negative, got nan"),
        (["model.dropout_rate=nan"], "must be 0, or from 0.004 to 0.996, got nan"),
        (["tokenizer.character_coverage=0"], "must be above 0 and at most 1"),
        (["optim.beta2=1"], "must be at least 0 and below 1"),
        (["run.eval_lines=0"], "'bleu' needs translations.* to nll or accuracy, or eval_lines above 0"),
        ([*MASKED, "run.best_metric=bleu"], "'bleu' needs translations.* to nll or accuracy$"),
        (["mesh.fsdp=-1"], "at most one -1"),
        (["model.preset=huge"], "'huge' is not a choice; known: base, big, small, tiny"),
        (["model.preset=bigg"], "did you mean 'big'"),
    ],
)
def test_impossible_values(tmp_path, overrides, message):
    (tmp_path / "plain.py").write_text("from transformer.config import default_config as get_config\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(tmp_path / "plain.py"), ["--config." + override for override in overrides])
    assert "\n" not in str(caught.value)


def test_adapters_that_learn_nothing():
    config = Config(init=InitConfig("a"), lora=LoraConfig(rank=2, alpha=0))
    assert any(
        "lora.alpha: at 0 adapters add nothing" in fault for fault in find_faults(config, flat(config))
    )
