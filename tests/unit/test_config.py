"""Configuration: types, presets, faults, and what is stated where."""

import argparse
import dataclasses
import json
import typing

import pytest

from transformer import cli
from transformer.coercion import coerce
from transformer.config import (
    PRESET_SIZES,
    PRESETS,
    Config,
    DataConfig,
    DecodeConfig,
    InitConfig,
    ModelConfig,
    default_config,
)
from transformer.config_mapping import flat, from_config_dict, replace_decode, to_dict
from transformer.errors import ConfigError
from transformer.recipes import load_config
from transformer.validation import _FRACTIONS, _MAY_BE_NEGATIVE, _POSITIVE, _SHARES, find_faults

CUDNN = ("model.attention_implementation=cudnn", "model.dtype=bfloat16")
APART = ("data.packing=false",)
MASKED = ("model.kind=encoder_only", "run.eval_lines=0", "run.best_metric=nll")
LINES = ("model.kind=decoder_only", "data.kind=lines", "run.eval_lines=0", "run.best_metric=nll")
FRAMES = ("data.kind=frames", "model.source_features=8")
RECIPE = "from transformer.config import default_config\n\n\ndef get_config():\n    return default_config()\n"


@pytest.fixture
def load(tmp_path):
    """Returns a function from overrides to the configuration of a recipe that changes nothing."""
    (tmp_path / "plain.py").write_text(RECIPE)
    return lambda *overrides: load_config(str(tmp_path / "plain.py"), overrides)


def test_overrides_of_every_type(load):
    config = load(
        "--config.model.preset=tiny",
        "--config.data.batch_tokens",
        "8_192",
        "--config.optim.learning_rate=5e-4",
        "--config.data.packing=False",
        "--config.model.remat=true",
        "--config.data.train_source=a.en, b=c.en",
        "--config.data.train_weights",
        "1,0.5",
        "--config.data.tsv_columns=(2,0)",
        "--config.data.dev_source=",
        "--config.run.eval_lines",
        "-1",
        "--config.data.root=/data with spaces",
    )
    assert config.model.preset == "tiny"
    assert config.data.batch_tokens == 8192
    assert config.optim.learning_rate == 0.0005
    assert config.data.packing is False
    assert config.model.remat is True
    assert config.data.train_source == ("a.en", "b=c.en")
    assert config.data.train_weights == (1.0, 0.5)
    assert config.data.tsv_columns == (2, 0)
    assert config.data.dev_source == ()
    assert config.run.eval_lines == -1
    assert config.data.root == "/data with spaces"


def test_a_decoder_alone_has_no_encoder_layers(load):
    model = load("--config.model.preset=tiny", *(f"--config.{change}" for change in LINES)).model
    assert (model.num_encoder_layers, model.num_decoder_layers) == (0, 4)
    assert not model.reads_source and load("--config.model.preset=tiny").model.reads_source


def test_the_last_of_two_overrides_counts(load):
    assert load("--config.run.num_steps=5", "--config.run.num_steps=7").run.num_steps == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.run.num_steps"], r"--config\.run\.num_steps: needs a value"),
        (["--config.run.num_steps", "--config.run.seed=1"], r"--config\.run\.num_steps: needs a value"),
        (
            ["--workdri=x"],
            r"--workdri=x: unknown argument; overrides look like --config\.",
        ),
        (["config.run.num_steps=1"], r"config\.run\.num_steps=1: unknown argument"),
    ],
)
def test_arguments_that_are_no_overrides(load, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(*overrides)


@pytest.mark.parametrize(
    ("given", "hint", "expected"),
    [
        ("1e3", int, None),
        ("3.5", int, None),
        (3.0, int, 3),
        (3.5, int, None),
        (True, int, None),
        ("yes", bool, None),
        ("1", bool, True),
        ("fast", float, None),
        (True, float, None),
        (1, float, 1.0),
        (7, str, None),
        (None, int, None),
        ("t\udce9xt", str, None),  # of a file name that is not UTF-8
        ("(old)/a,b (1)", tuple[str, ...], ("(old)/a", "b (1)")),
        (3, tuple[int, ...], None),
        ("1,x", tuple[int, ...], None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("post", typing.Literal["post", "pre"], "post"),
        ("psot", typing.Literal["post", "pre"], None),
    ],
)
def test_values_are_converted_or_refused(given, hint, expected):
    if expected is None:
        with pytest.raises(ConfigError, match=r"^config\.a\.b: "):
            coerce(given, hint, "config.a.b")
    else:
        found = coerce(given, hint, "config.a.b")
        assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fill_what_is_left_open(load, preset):
    # The paper's table 3, and what README says of the two small ones.
    table = {
        "tiny": (128, 256, 4, 4, 4, 0.3),
        "small": (256, 1024, 4, 3, 3, 0.1),
        "base": (512, 2048, 8, 6, 6, 0.1),
        "big": (1024, 4096, 16, 6, 6, 0.3),
    }
    model = load(f"--config.model.preset={preset}").model
    assert tuple(getattr(model, size) for size in PRESET_SIZES) == table[preset]
    changed = load("--config.model.d_ff=64", f"--config.model.preset={preset}").model
    assert changed == dataclasses.replace(model, d_ff=64)


def test_a_size_may_be_set_back_to_that_of_base(load):
    assert load("--config.model.preset=big", "--config.model.d_model=512").model.d_model == 512
    assert load("--config.model.preset=big", "--config.model.dropout_rate=0").model.dropout_rate == 0


def test_all_faults_are_reported_together(load):
    with pytest.raises(ConfigError) as caught:
        load("--config.modle.d_model=1", "--config.run.num_setps=1", "--config.model.d_ff=many")
    assert sorted(str(caught.value).split("\n")) == [
        "config.model.d_ff: expected a whole number, got 'many'",
        "config.modle: unknown section; did you mean 'model'?",
        "config.run.num_setps: unknown key; did you mean 'num_steps'?",
    ]
    with pytest.raises(ConfigError) as caught:
        load(
            "--config.model.num_heads=7",
            "--config.model.dropout_rate=1",
            "--config.optim.learning_rate=-1",
            "--config.data.batch_tokens=100",
            "--config.mesh.data=0",
            "--config.decode.top_p=2",
            "--config.decode.beam_size=-1",
            "--config.tokenizer.joint=false",
        )
    named = [line.split(":")[0].removeprefix("config.") for line in str(caught.value).split("\n")]
    assert sorted(named) == [
        "data.batch_tokens",
        "decode.beam_size",
        "decode.top_p",
        "mesh",
        "model.dropout_rate",
        "model.num_heads",
        "model.tied_embeddings",
        "optim.learning_rate",
    ]


@pytest.mark.parametrize("key", sorted(_POSITIVE))
def test_zero_is_refused_where_it_means_nothing(load, key):
    with pytest.raises(ConfigError, match=rf"config\.{key}: must be above 0, got 0"):
        load(f"--config.{key}=0")


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
        (["model.global_tokens=4"], "is 'full' tokens see all already, not 4 alone; set it to 0"),
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
        (["model.compression=0"], "compression: must be above 0"),
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
        (["model.positions=relative", "model.position_offset=2"], "have no first one, got 2; set it to 0"),
        (["model.positions=learned", "optim.random_offset=9"], "'learned' .* begin nowhere else, got 9"),
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
        (["init.include=encoder"], "init.include: is of a base, and there is none; set config.init.model"),
        (["optim.weight_decay=0.1"], "'adam' has none, got 0.1; set it to 0, or config.optim.name=adamw"),
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
        (["run.eval_lines=0"], "'bleu' needs translations"),
        (["mesh.fsdp=-1"], "at most one -1"),
        (["model.preset=huge"], "'huge' is not a choice; known: base, big, small, tiny"),
        (["model.preset=bigg"], "did you mean 'big'"),
    ],
)
def test_impossible_values(load, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(*("--config." + override for override in overrides))
    assert "\n" not in str(caught.value)


def test_frames_leave_the_pieces_of_a_base_alone():
    config = Config(data=DataConfig(kind="frames"), init=InitConfig("a", vocabulary="transplant"))
    faults = find_faults(config, flat(config))
    assert any("the base's pieces stay as they are" in fault for fault in faults)


def test_round_trip_through_json(load):
    config = load("--config.model.preset=big", "--config.data.train_source=a,b", "--config.optim.beta1=0.85")
    assert from_config_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert from_config_dict(default_config()) == from_config_dict({}) == Config()
    hash(config)


def test_lists_of_keys_name_keys_that_exist():
    assert flat(Config()).keys() >= {*_MAY_BE_NEGATIVE, *_POSITIVE, *_FRACTIONS, *_SHARES}
    assert {field.name for field in dataclasses.fields(ModelConfig)} >= set(PRESET_SIZES)


def test_no_default_is_stated_twice():
    for name, sizes in PRESETS.items():
        repeated = {k: v for k, v in sizes.items() if getattr(ModelConfig, k) == v}
        assert not repeated, f"preset {name}"
        assert sizes.keys() <= set(PRESET_SIZES)
    parsers = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    options = {action.dest: action for parser in parsers.values() for action in parser._actions}
    for field in dataclasses.fields(DecodeConfig):
        assert options[field.name].default is None, f"--{field.name} has a default of its own"


def test_search_options_replace_those_of_the_run():
    decode = DecodeConfig(beam_size=7, length_penalty=0.3)
    assert replace_decode(decode, {"beam_size": 2}) == dataclasses.replace(decode, beam_size=2)
    with pytest.raises(ConfigError, match="beam_sise: unknown key; did you mean 'beam_size'"):
        replace_decode(decode, {"beam_sise": 2})
    with pytest.raises(ConfigError, match="beam_size: must be above 0, got 0"):
        replace_decode(decode, {"beam_size": 0})
