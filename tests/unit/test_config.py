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
    alone = "model.kind=decoder_only", "data.kind=lines", "run.eval_lines=0", "run.best_metric=nll"
    model = load("--config.model.preset=tiny", *(f"--config.{change}" for change in alone)).model
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


def test_values_in_the_place_of_sections():
    with pytest.raises(ConfigError) as caught:
        from_config_dict({"optim": 3, "data": ["root"], "model": {"preset": ["tiny"]}})
    assert sorted(str(caught.value).split("\n"))[:2] == [
        "config.data: expected keys with values, got ['root']",
        "config.model.preset: ['tiny'] is not a choice; did you mean 'tiny'?",
    ]


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
