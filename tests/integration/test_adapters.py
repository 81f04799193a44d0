"""Runs that train adapters: what is saved, how it continues, and where it can be used."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from tiny_run import (
    SETTINGS,
    changed,
    compiled_once,
    make_config,
    read_arrays,
    write_corpus,
)

from transformer.errors import CheckpointError, ConfigError
from transformer.inference.model_directory import load_model
from transformer.io.metrics_file import read_metrics
from transformer.paths import by_path
from transformer.run.average import average
from transformer.run.train import train

LORA = {"lora": {"rank": 2, "targets": "(query|value)/kernel$"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    with compiled_once():
        yield folder


@pytest.fixture(scope="module")
def settings(place):
    settings = write_corpus(place, pairs=60)
    settings["optim"] = {"warmup_steps": 1, "learning_rate": 0.01}
    return {**settings, "run": SETTINGS["run"] | {"num_steps": 2, "save_every": 1, "keep_latest": 2}}


@pytest.fixture(scope="module")
def base(place, settings):
    train(make_config(settings, run={"num_steps": 1}), str(place / "base"))
    return place / "base"


@pytest.fixture(scope="module")
def adapted(place, settings, base):
    """A run of two steps that trained adapters of `base`."""
    train(make_config(settings, init={"model": str(base)}, **LORA), str(place / "adapted"))
    return place / "adapted"


def expected(base, adapted, step):
    """Returns base + alpha / rank * A B by path, computed here."""
    params = {k.removeprefix("params"): x for k, x in read_arrays(base, 1).items() if k.startswith("params")}
    found = read_arrays(adapted, step)
    for key in [k for k in found if k.startswith("params") and "lora_a" in k]:
        a, b = found[key], found[key.replace("lora_a", "lora_b")]
        path = key.removeprefix("params").removesuffix("['lora_a']")
        params[path] = params[path] + 16 / 2 * np.einsum("dr,rhk->dhk", a, b)
    return params


def loaded(folder, checkpoint="last"):
    return {
        jax.tree_util.keystr(path): np.asarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(load_model(folder, checkpoint).params)
    }


def test_adapters_alone_are_saved_and_the_merged_model_is_used(base, adapted, tmp_path):
    saved = read_arrays(adapted, 2)
    assert {key.split("'")[-2] for key in saved if key.startswith("params")} == {"lora_a", "lora_b"}
    assert all("lora_" in key for key, x in saved.items() if x.ndim)  # moments too
    found, wanted = loaded(adapted), expected(base, adapted, 2)
    assert found.keys() == wanted.keys()
    for path, x in wanted.items():
        np.testing.assert_allclose(found[path], x, rtol=0, atol=1e-6, err_msg=path)
    report = next(line for line in read_metrics(adapted) if line["split"] == "init")
    assert report["trained"] == sum(x.size for key, x in saved.items() if key.startswith("params"))
    assert report["parameters"] == sum(x.size for x in wanted.values())

    average(str(adapted), str(tmp_path / "mean"), last=2)
    mean = loaded(tmp_path / "mean")
    first = expected(base, adapted, 1)
    for path, x in wanted.items():
        np.testing.assert_allclose(mean[path], (x + first[path]) / 2, rtol=0, atol=1e-6, err_msg=path)


def test_a_merged_model_has_no_more_parameters_than_its_kind(settings, base, tmp_path):
    decoder = {"kind": "decoder_only", "prefix": "bidirectional", "num_encoder_layers": 0}
    config = make_config(settings, model=decoder, init={"model": str(base)}, **LORA)
    train(config, str(tmp_path / "run"))
    average(str(tmp_path / "run"), str(tmp_path / "mean"), last=1)
    run, mean = load_model(tmp_path / "run", "last"), load_model(tmp_path / "mean")
    assert by_path(mean.params).keys() == by_path(run.params).keys()
    assert not any("cross_attention" in path or path.startswith("encoder") for path in by_path(mean.params))


def test_a_stopped_run_continues_to_the_bit(settings, base, adapted, tmp_path):
    config = make_config(settings, init={"model": str(base)}, **LORA)
    once = dataclasses.replace(config, run=dataclasses.replace(config.run, num_steps=1))
    train(once, str(tmp_path / "stopped"))
    train(config, str(tmp_path / "stopped"))
    whole, stopped = read_arrays(adapted, 2), read_arrays(tmp_path / "stopped", 2)
    assert whole.keys() == stopped.keys()
    assert all(np.array_equal(whole[key], stopped[key]) for key in whole)


def test_adapters_belong_to_one_base(settings, base, adapted, tmp_path):
    moved, run = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(base, moved)
    shutil.copytree(adapted, run)
    more = {"run": {"num_steps": 3}, **LORA}
    train(make_config(settings, init={"model": str(moved)}, **more), str(run))  # remembers the new place
    shutil.rmtree(moved)
    with pytest.raises(CheckpointError, match=r"run: its adapters belong to .*moved, step 1: .*not a run"):
        load_model(run)
    train(make_config(settings, run={"num_steps": 1, "init_seed": 5}), str(moved))
    with pytest.raises(CheckpointError, match=r"moved, step 1, which has other parameters now"):
        load_model(run)
    with pytest.raises(CheckpointError, match=r"run: began with the parameters of .*; give the old ones"):
        train(make_config(settings, init={"model": str(moved)}, **more), str(run))


def test_settings_that_do_not_go_together(settings, base):
    with pytest.raises(ConfigError, match=r"lora.rank: adapters need the model .*; set config.init.model"):
        make_config(changed(settings, **LORA))
    with pytest.raises(ConfigError, match=r"optim.freeze: with lora.rank only adapters are trained"):
        make_config(changed(settings, **LORA), init={"model": str(base)}, optim={"freeze": "encoder"})
    with pytest.raises(
        ConfigError, match=r"init.include, exclude, vocabulary: with adapters every parameter"
    ):
        make_config(changed(settings, **LORA), init={"model": str(base), "include": "encoder"})


@pytest.mark.slow
def test_frozen_parameters_are_saved_with_the_others(settings, base, tmp_path):
    frozen = {"freeze": "^encoder/", "ema_decay": 0.5}
    train(make_config(settings, init={"model": str(base)}, optim=frozen), str(tmp_path / "run"))
    before, after = by_path(load_model(base).params), by_path(load_model(tmp_path / "run").params)
    assert before.keys() == after.keys()
    for path, x in before.items():
        assert np.array_equal(x, after[path]) == path.startswith("encoder/"), path
    moments = [key for key in read_arrays(tmp_path / "run", 2) if key.startswith("optimizer")]
    assert any("decoder" in key for key in moments) and not any("encoder" in key for key in moments)
