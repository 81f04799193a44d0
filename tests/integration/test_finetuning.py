"""Runs that begin with another model's parameters: what is taken, refused and remembered."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from tiny_run import (
    SETTINGS,
    compiled_once,
    lines_of,
    make_config,
    read_arrays,
    write_corpus,
    write_recipe,
)

from transformer.config import Config, LoraConfig, RunConfig, TokenizerConfig
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.model_directory import load_model
from transformer.io.checkpoint import Checkpoints
from transformer.io.digests import write_digests
from transformer.io.metrics_file import read_metrics
from transformer.io.workdir import Workdir
from transformer.recipes import load_config
from transformer.run.train import train
from transformer.special_ids import SpecialIds

STILL = 1e-30  # a learning rate that changes no parameter


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetuning")
    with compiled_once():
        yield folder


@pytest.fixture(scope="module")
def settings(place):
    settings = write_corpus(place, pairs=60)
    return {**settings, "optim": {"warmup_steps": 1}, "run": SETTINGS["run"] | {"num_steps": 2}}


@pytest.fixture(scope="module")
def base(place, settings):
    """A run of two steps, from another seed and with the step of `one_still_step`; its folder."""
    still = {"learning_rate": STILL}
    train(make_config(settings, optim=still, run={"init_seed": 1}), str(place / "base"))
    return place / "base"


def start(settings, base, **changes) -> Config:
    """Returns the configuration of a run that starts from `base`."""
    changes["init"] = {"model": str(base), **changes.get("init", {})}
    return make_config(settings, **changes)


def one_still_step(settings, base, **changes) -> Config:
    return start(settings, base, optim={"learning_rate": STILL}, run={"num_steps": 1}, **changes)


def params_of(folder, step):
    return {k: x for k, x in read_arrays(folder, step).items() if k.startswith("params")}


def is_same(a, b):
    """Returns whether two arrays differ by no more than still steps do where a parameter is 0."""
    return np.abs(a - b).max() < 1e-25


def test_everything_is_taken(settings, base, tmp_path, capsys):
    train(one_still_step(settings, base), str(tmp_path / "run"))
    old, new = params_of(base, 2), params_of(tmp_path / "run", 1)
    assert old.keys() == new.keys()
    assert all(is_same(old[key], new[key]) for key in old)
    report = next(line for line in read_metrics(tmp_path / "run") if line["split"] == "init")
    assert len(report["taken"]) == len(old) and not report["left"] and not report["new"]
    assert f"{len(old)} parameters taken, 0 left, 0 new" in capsys.readouterr().err
    tokenizers = [(folder / "tokenizer" / "joint.model").read_bytes() for folder in (base, tmp_path / "run")]
    assert tokenizers[0] == tokenizers[1]


@pytest.mark.slow
def test_what_is_not_chosen_is_new(settings, base, tmp_path):
    chosen = {"include": "encoder|shared", "exclude": "norm"}
    train(one_still_step(settings, base, init=chosen), str(tmp_path / "run"))
    old, new = params_of(base, 2), params_of(tmp_path / "run", 1)
    report = next(line for line in read_metrics(tmp_path / "run") if line["split"] == "init")
    for key in old:
        path = "/".join(re.findall(r"'(\w+)'", key))
        taken = bool(re.search("encoder|shared", path)) and "norm" not in path
        assert (path in report["taken"], path in report["left"], path in report["new"]) == (
            taken,
            not taken,
            not taken,
        )
        if path.endswith(("kernel", "embedding")):
            assert is_same(old[key], new[key]) == taken


def test_a_stopped_run_continues_to_the_bit_without_its_base(settings, base, place, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    config = start(settings, moved, run={"save_every": 1})
    for name in ("whole", "stopped"):
        first = {"num_steps": 1} if name == "stopped" else {}
        once = dataclasses.replace(config, run=dataclasses.replace(config.run, **first))
        train(once, str(tmp_path / name))
    shutil.rmtree(moved)
    train(config, str(tmp_path / "stopped"))
    whole, stopped = (read_arrays(tmp_path / name, 2) for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(np.array_equal(whole[key], stopped[key]) for key in whole)
    at = ("train", 2)
    assert lines_of(tmp_path / "whole")[at] == lines_of(tmp_path / "stopped")[at]


def test_another_base_is_refused_when_a_run_continues(settings, base, tmp_path):
    train(one_still_step(settings, base), str(tmp_path / "run"))
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(base, copy)
    train(one_still_step(settings, copy), str(tmp_path / "run"))  # the same parameters elsewhere
    with pytest.raises(CheckpointError, match=r"run: began with step 2 of .*base, not 1; give that as"):
        train(one_still_step(settings, base, init={"checkpoint": "1"}), str(tmp_path / "run"))
    train(make_config(settings, optim={"learning_rate": STILL}, run={"num_steps": 1}), str(other))
    with pytest.raises(CheckpointError, match=r"run: began with the parameters of .*base, step 2; those of"):
        train(one_still_step(settings, other), str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="other: its run did not begin with the parameters of"):
        train(one_still_step(settings, base), str(other))


def test_other_shapes_are_all_listed(settings, base, tmp_path):
    config = start(settings, base, model={"d_ff": 64, "param_dtype": "bfloat16"})
    with pytest.raises(CheckpointError) as caught:
        train(config, str(tmp_path / "run"))
    lines = str(caught.value).splitlines()
    assert len(lines) == len(params_of(base, 2))  # every dtype is another
    wi = next(line for line in lines if "encoder/layer_0/feed_forward/wi/kernel" in line)
    assert "is float32[16, 32], this run's is bfloat16[16, 64]; leave config.model as it is there" in wi
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_mistakes(settings, base, tmp_path):
    with pytest.raises(ConfigError, match=r"init.include: 'embeding' is found in no .*mean 'embedding'"):
        train(start(settings, base, init={"include": "embeding"}), str(tmp_path / "a"))
    with pytest.raises(ConfigError, match=r"no parameter of .* is one of this run's and chosen"):
        train(start(settings, base, init={"exclude": "."}), str(tmp_path / "b"))
    with pytest.raises(ConfigError, match=r"config.init.include: '\(' is no regular expression"):
        start(settings, base, init={"include": "("})
    with pytest.raises(ConfigError, match=r"vocab_size \(there 40, here 30\); leave config.tokenizer"):
        train(start(settings, base, tokenizer={"vocab_size": 30}), str(tmp_path / "c"))
    small = {"model_type": "char", "vocab_size": 12}
    own = train_tokenizer(["abcdefg"], ["gfedcba"], TokenizerConfig(**small))
    own.save(tmp_path / "d" / "tokenizer")
    with pytest.raises(CheckpointError, match="shared/embedding: rows are those of its own tokenizer"):
        train(start(settings, base, tokenizer=small), str(tmp_path / "d"))


def test_settings_come_from_the_base(settings, base, tmp_path, monkeypatch):
    data = settings["data"]
    other = {"model": {"dropout_rate": 0.3, "preset": "small", "norm": "pre"}, "tokenizer": {"vocab_size": 9}}
    recipe = write_recipe(tmp_path / "mine.py", {**other, "data": data})
    given = ["--config.init.model=" + str(base), "--config.decode.beam_size=4"]
    config, plain = load_config(str(recipe), given), make_config(settings)
    assert config.model == dataclasses.replace(plain.model, dropout_rate=0.3)
    assert config.tokenizer == plain.tokenizer
    moved = load_config(str(recipe), [*given, "--config.init.vocabulary=transplant"])
    assert moved.tokenizer == TokenizerConfig(vocab_size=9) and moved.model == config.model
    assert load_config(str(recipe), [*given, "--config.model.norm=pre"]).model.norm == "pre"
    assert config.optim == Config().optim
    beams = json.loads((base / "config.json").read_text())["decode"] | {"beam_size": 2}
    recorded = {"model": dataclasses.asdict(plain.model), "tokenizer": {}, "decode": beams}
    assert load_config(str(recipe), given[:1], recorded).decode.beam_size == 2
    assert load_config(str(recipe), given, recorded).decode.beam_size == 4  # stated, though the default
    assert load_config(str(recipe), [given[0], "--config.model.preset=base"]).model.d_model == 512
    monkeypatch.setenv("HOME", str(base.parent))  # where "~" is: it is written out once, for all who read it
    assert load_config(str(recipe), [f"--config.init.model=~/{base.name}"]).init.model == str(base)
    with pytest.raises(ConfigError, match=r"nowhere: has no config.json; give the folder of a run"):
        load_config(str(recipe), ["--config.init.model=nowhere"])


def test_another_tokenizer_is_transplanted(settings, base, tmp_path, capsys):
    config = one_still_step(settings, base, init={"vocabulary": "transplant"}, tokenizer={"vocab_size": 44})
    train(config, str(tmp_path / "run"))
    old, new = params_of(base, 2), params_of(tmp_path / "run", 1)
    table = "params['shared']['embedding']"
    assert old.keys() == new.keys() and new[table].shape == (44, 16)
    assert all(is_same(old[key], new[key]) for key in old if key != table)
    report = next(line for line in read_metrics(tmp_path / "run") if line["split"] == "init")
    assert sum(report["pieces"]["source"].values()) == 44 and not report["new"]
    assert f"source pieces: {report['pieces']['source']['equal']} as they were" in capsys.readouterr().err


def optimizer_of(folder, step):
    return {k: x for k, x in read_arrays(folder, step).items() if k.startswith("optimizer")}


def test_moments_of_the_base_go_on(settings, base, tmp_path, capsys):
    """After a step, Adam's moments are their decayed sums with the new gradient, worked out without ours."""
    betas = {"beta1": 0.9, "beta2": 0.98, "learning_rate": STILL}
    for name, init in (("fresh", {}), ("taken", {"optimizer": True})):
        config = start(settings, base, optim=betas, run={"num_steps": 1}, init=init)
        train(config, str(tmp_path / name))
    assert "of its optimizer taken" in capsys.readouterr().err
    old, fresh, taken = (
        optimizer_of(*at) for at in ((base, 2), (tmp_path / "fresh", 1), (tmp_path / "taken", 1))
    )
    assert old.keys() == taken.keys()
    for key in old:
        if "mu" in key or "nu" in key:
            decay = 0.9 if "mu" in key else 0.98
            np.testing.assert_allclose(taken[key], decay * old[key] + fresh[key], rtol=1e-4, atol=1e-9)
    counts = [key for key in old if "count" in key]
    assert [int(taken[key] - fresh[key]) for key in counts] == [2, 0]  # Adam's, and the schedule's
    assert all(int(fresh[key]) == 1 for key in counts)


def test_moments_of_a_transplanted_vocabulary(settings, base, tmp_path):
    config = one_still_step(
        settings, base, init={"vocabulary": "transplant", "optimizer": True}, tokenizer={"vocab_size": 44}
    )
    train(config, str(tmp_path / "run"))
    old, new = optimizer_of(base, 2), optimizer_of(tmp_path / "run", 1)
    (key,) = (key for key in old if "nu" in key and "shared" in key)
    assert old[key].shape == (40, 16) and new[key].shape == (44, 16)
    assert (new[key] >= 0.98 * old[key].min(axis=0)).all()  # means of old rows, decayed once


def test_moments_that_cannot_be_taken(settings, base, tmp_path):
    taken = {"optimizer": True}
    with pytest.raises(CheckpointError, match="has the moments of adam, this run's are of lion; leave"):
        lion = start(settings, base, init=taken, optim={"name": "lion"})
        train(lion, str(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="shared/embedding begins at random, its moments cannot; leave"):
        train(start(settings, base, init=taken | {"exclude": "shared"}), str(tmp_path / "b"))
    with pytest.raises(ConfigError, match=r"init.optimizer: adapters are new, and so are their moments"):
        start(settings, base, init=taken, lora={"rank": 2})
    with pytest.raises(ConfigError, match=r"init.optimizer: is of a base, and there is none"):
        make_config(settings, init=taken)
    shutil.copytree(base, tmp_path / "export")
    shutil.rmtree(tmp_path / "export/checkpoints/2/optimizer")
    write_digests(tmp_path / "export/checkpoints/2")
    with pytest.raises(CheckpointError, match="export, step 2: has no optimizer, as imports, exports and"):
        train(start(settings, tmp_path / "export", init=taken), str(tmp_path / "c"))


@pytest.mark.slow
def test_a_language_is_added(settings, base, tmp_path):
    """To a base whose tokenizer tells of languages by ids, as imported ones do."""
    own = Tokenizer.load(base / "tokenizer")
    pieces = [*own.source_pieces(range(own.source_vocab)), "aaa_Latn", "bbb_Latn"]
    known = SpecialIds(source_prefix=(40,), target_prefix=(41,), hidden=(0, 2, 3, 40, 41))
    tokenizer = Tokenizer(own.models[0], None, (pieces, pieces), known)
    draw = np.random.default_rng(0)
    params = load_model(base).params
    rows = draw.normal(size=(42, 16)).astype(np.float32)
    several = Workdir(tmp_path / "several")
    tokenizer.save(several.tokenizer)
    written = Checkpoints(several.checkpoints, RunConfig())
    written.save(0, {"params": params | {"shared": {"embedding": rows}}}, {})
    written.close()
    plain = make_config(settings, optim={"ema_decay": 0.0}, tokenizer={"vocab_size": 42})
    several.save_config(plain)

    added = {"target_language": "ccc_Latn", "language_like": "aaa_Latn"}
    config = one_still_step(settings, several.root, init=added, tokenizer={"vocab_size": 42})
    train(config, str(tmp_path / "run"))
    found = params_of(tmp_path / "run", 1)["params['shared']['embedding']"]
    assert is_same(found, np.concatenate([rows, rows[40:41]]))
    assert Tokenizer.load(tmp_path / "run" / "tokenizer").encode_target(["a"])[0][0] == 42
    train(config, str(tmp_path / "run"))  # continues: there is nothing left to do
    assert load_model(tmp_path / "run").params["shared"]["embedding"].shape == (43, 16)
    alone = dataclasses.replace(config, lora=LoraConfig(rank=2))
    with pytest.raises(CheckpointError, match="has not all of shared/embedding, and adapters alone are"):
        train(alone, str(tmp_path / "adapted"))
