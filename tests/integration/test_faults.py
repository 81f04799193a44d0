"""A run whose numbers go wrong finds back, or says that it cannot."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import compiled_once, make_config, read_arrays, write_corpus

from transformer.errors import ConfigError, DivergedError
from transformer.run import loop as loop_module
from transformer.run.train import train


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    with compiled_once():
        yield write_corpus(folder)


@pytest.fixture
def spoil(monkeypatch):
    """Returns a function that has parameters made infinite, as a broken device would, before some steps."""
    calls = []

    def jit_steps(*args, when):
        train_step, eval_step = real(*args)

        def spoiled(state, *rest):
            calls.append(None)
            if when(len(calls), int(state.step)):
                state = state._replace(params=jax.tree.map(lambda x: x * jnp.inf, state.params))
            return train_step(state, *rest)

        return spoiled, eval_step

    real = loop_module.jit_steps
    return lambda when: monkeypatch.setattr(
        loop_module, "jit_steps", lambda *args: jit_steps(*args, when=when)
    )


def entries(workdir, split):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]


def lost(said: str) -> float:
    """Returns the percentage of the goodput line that was lost to faults."""
    found = re.search(r"goodput of .*lost to faults ([\d.]+)%", said)
    return float(found[1]) if found else 0.0


def test_a_run_goes_back_and_past_the_batches(settings, tmp_path, spoil, capfd):
    """Spoilt in step 10, after the checkpoint of step 8: three skipped updates, back to 8, then on."""
    config = make_config(settings, run={"num_steps": 16, "max_skipped": 3, "eval_every": 8})
    spoil(lambda call, step: call == 10)
    train(config, str(tmp_path))
    said = capfd.readouterr().err
    assert (
        "3 updates in a row were not finite; back to step 8, past the batches since (return 1 of 3)" in said
    )
    assert lost(said) > 0
    assert [line["step"] for line in entries(tmp_path, "train")] == list(range(1, 17))
    assert [f"skipped ({n} since the start)" in said for n in (1, 2, 3, 4)] == [True, True, True, False]
    skipped = entries(tmp_path, "skipped")
    assert [line["step"] for line in skipped] == [10, 11, 12]
    corpus, number = skipped[0]["pairs"][0].rsplit(" ", 1)
    assert corpus == "train train.source|train.target" and 1 <= int(number) <= 300
    assert all(np.isfinite(x).all() for x in read_arrays(tmp_path, 16).values())
    # The pairs of the skipped steps came once: the data went on, it did not go back.
    whole = tmp_path / "whole"
    train(make_config(settings, run={"num_steps": 16, "eval_every": 8}), str(whole))
    position = json.loads((tmp_path / "checkpoints/16/position/metadata").read_text())
    assert position["rollbacks"] == 1
    assert position["best"] == entries(tmp_path, "dev")[0][config.run.best_metric]  # of step 8
    assert position["data"] != json.loads((whole / "checkpoints/16/position/metadata").read_text())["data"]


def test_a_run_that_goes_wrong_each_time_ends(settings, tmp_path, spoil):
    config = make_config(settings, run={"max_skipped": 2, "max_rollbacks": 2})
    spoil(lambda call, step: step == 9)
    with pytest.raises(DivergedError, match="gone back 2 times already; lower config"):
        train(config, str(tmp_path))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()} == {"7", "8"}
    assert all(np.isfinite(x).all() for x in read_arrays(tmp_path, 8).values())


def test_parameters_that_are_no_numbers_are_never_saved(settings, tmp_path, spoil):
    """Spoilt in the very step that is saved: its update is skipped, but the parameters are infinite."""
    config = make_config(settings, run={"num_steps": 12, "eval_every": 12})
    spoil(lambda call, step: call == 8)
    train(config, str(tmp_path))
    assert entries(tmp_path, "skipped")[0]["step"] == 8
    for step in ("8", "12"):
        assert all(np.isfinite(x).all() for x in read_arrays(tmp_path, int(step)).values())


def test_steps_that_a_killed_process_did_in_vain_are_lost_time(settings, tmp_path, capfd):
    train(make_config(settings, run={"num_steps": 8, "eval_every": 8}), str(tmp_path))
    assert lost(capfd.readouterr().err) == 0
    shutil.rmtree(tmp_path / "checkpoints/8")  # as if it had been killed before its last save
    train(make_config(settings, run={"num_steps": 8, "eval_every": 8}), str(tmp_path))
    said = capfd.readouterr().err
    assert "continuing after step 4" in said
    assert lost(said) > 0
    assert "training" not in said.partition("goodput of ")[2]  # steps 5 to 8 were done again, and no other


def test_too_many_shapes_are_not_compiled(settings, tmp_path, capfd):
    data = {"packing": False, "buckets": (16, 32)}
    train(make_config(settings, data=data, run={"num_steps": 16, "max_compilations": 2}), str(tmp_path / "a"))
    assert capfd.readouterr().err.count("compiling ...") == 2
    config = make_config(settings, data=data, run={"num_steps": 16, "max_compilations": 1})
    with pytest.raises(ConfigError, match=r"is one shape more than the 1 of .*; name fewer lengths in"):
        train(config, str(tmp_path / "b"))


def test_where_the_time_went(settings, tmp_path, capfd):
    train(make_config(settings, run={"num_steps": 8}), str(tmp_path))
    line = [line for line in capfd.readouterr().err.splitlines() if line.startswith("goodput of ")]
    assert len(line) == 1
    shares = dict(part.rsplit(" ", 1) for part in line[0].split(": ", 1)[1].split(", "))
    assert {"training", "compiling", "saving", "evaluating"} <= shares.keys()
    assert sum(float(share.rstrip("%")) for share in shares.values()) == pytest.approx(100, abs=1)
