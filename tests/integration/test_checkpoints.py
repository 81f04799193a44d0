"""Which checkpoints are kept, chosen, averaged and refused; when a run ends early or fails."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import compiled_once, make_config, read_arrays, write_corpus

from transformer.config import RunConfig
from transformer.errors import CheckpointError, ConfigError, DivergedError
from transformer.inference.model_directory import choose_step, load_model
from transformer.io.checkpoint import Checkpoints
from transformer.io.checkpoint_folder import best_steps
from transformer.io.devices import make_mesh
from transformer.io.workdir import Workdir
from transformer.run import loop as loop_module
from transformer.run.average import average
from transformer.run.dev import evaluate_dev
from transformer.run.prepare import prepare_data
from transformer.run.train import train
from transformer.steps.train_step import eval_step


def save(folder, run, scores, arrays=None):
    """Saves a checkpoint for each step of `scores` and evaluates it, all in one process."""
    checkpoints = Checkpoints(folder, run)
    for step, metrics in scores.items():
        checkpoints.save(step, {"params": arrays or {"x": jnp.full(3, step)}}, {"step": step})
        if metrics is not None:
            checkpoints.add_metrics(step, metrics)
    checkpoints.close()


def steps(folder):
    """Complete checkpoints as they lie on the disk."""
    return sorted(int(path.name) for path in folder.iterdir())


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("metric", "sign"), [("nll", 1), ("bleu", -1)])
def test_the_latest_and_the_best_are_kept(tmp_path, metric, sign, processes):
    run = RunConfig(keep_latest=2, keep_best=2, best_metric=metric)
    values = {1: 3.0, 2: 1.0, 3: 4.0, 4: None, 5: 2.0, 6: 2.5, 7: None, 8: 5.0}
    scores = {step: None if x is None else {metric: sign * x} for step, x in values.items()}
    for part in ([1, 2, 3, 4, 5, 6, 7, 8],) if processes == 1 else ([1, 2, 3], [4, 5, 6, 7, 8]):
        save(tmp_path, run, {step: scores[step] for step in part})
    assert steps(tmp_path) == [2, 5, 7, 8]
    reader = Checkpoints(tmp_path)
    assert reader.steps() == [2, 5, 7, 8]
    assert reader.metrics(5) == scores[5] and reader.metrics(7) is None
    assert best_steps(tmp_path, metric, 1) == [2]
    assert best_steps(tmp_path, metric, 9) == [2, 5, 8]
    with pytest.raises(CheckpointError, match=r"no checkpoint has 'chrf'"):
        best_steps(tmp_path, "chrf", 1)
    items, position = reader.restore(5, {"params": {"x": jnp.zeros(3, int)}})
    assert position == {"step": 5} and items["params"]["x"].tolist() == [5, 5, 5]
    reader.close()


def test_none_of_the_best_are_kept_on_request_or_when_they_lack_the_metric(tmp_path):
    save(tmp_path / "a", RunConfig(keep_latest=1, keep_best=0), {1: {"bleu": 9.0}, 2: None, 3: None})
    assert steps(tmp_path / "a") == [3]
    # The metric of a run may be changed: the older checkpoints do not have the new one.
    save(tmp_path / "b", RunConfig(keep_latest=2, best_metric="nll"), {1: {"nll": 1.0}, 2: {"nll": 2.0}})
    later = {3: {"nll": 3.0, "bleu": 5.0}, 4: {"nll": 4.0, "bleu": 4.0}, 5: {"nll": 5.0, "bleu": 3.0}}
    save(tmp_path / "b", RunConfig(keep_latest=1, best_metric="bleu"), later)
    assert steps(tmp_path / "b") == [3, 5]


def test_choosing_a_step(tmp_path):
    config = make_config({}, run={"best_metric": "chrf", "keep_latest": 9})
    save(tmp_path / "scored", config.run, {2: {"chrf": 1.0}, 4: {"chrf": 3.0}, 6: {"chrf": 2.0}, 8: None})
    save(tmp_path / "plain", config.run, {3: None, 5: None})

    def choose(name, wanted):
        return choose_step(tmp_path / name, wanted, config.run.best_metric, tmp_path / name)

    assert [choose("scored", w) for w in ("best", "last", "2", "8")] == [4, 8, 2, 8]
    assert [choose("plain", w) for w in ("best", "last", "3")] == [5, 5, 3]
    for wrong in ("7", "-2", "first", "", "²"):
        with pytest.raises(
            CheckpointError, match=rf"no checkpoint '{wrong}'; choose best, last or one of 3, 5$"
        ):
            choose("plain", wrong)
    save(tmp_path / "diverged", config.run, {3: {"chrf": float("nan")}})
    with pytest.raises(CheckpointError, match="'chrf' is no number in any checkpoint; name a step, or take"):
        choose("diverged", "best")
    assert choose("diverged", "last") == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no complete checkpoint yet; train it first"):
        choose("empty", "last")


def test_other_arrays_are_refused_in_one_line(tmp_path):
    save(tmp_path, RunConfig(), {1: None}, {"w": jnp.ones((2, 3), jnp.float32)})
    reader = Checkpoints(tmp_path)

    def refused(pattern, **like):
        with pytest.raises(CheckpointError, match=pattern) as caught:
            reader.restore(1, like)
        assert "\n" not in str(caught.value)

    refused(
        r"/1: params: w is float32\[2, 3\], expected bfloat16", params={"w": jnp.ones((2, 3), "bfloat16")}
    )
    refused(r"/1: params: w is float32\[2, 3\], expected float32\[3, 2\]", params={"w": jnp.ones((3, 2))})
    refused(r"/1: params: v is missing; known: w$", params={"v": jnp.ones((2, 3))})
    refused(r"/1: params: the model has no place for w$", params={})
    refused(r"/1: has no item 'ema'", ema={"w": jnp.ones((2, 3))})
    reader.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the corpus."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with compiled_once():
        yield folder


@pytest.fixture(scope="module")
def settings(folder):
    return write_corpus(folder)


RUN = {"num_steps": 6, "save_every": 2, "eval_every": 3, "keep_latest": 3, "keep_best": 2}


@pytest.fixture(scope="module")
def finished(folder, settings):
    """A finished run of six steps with checkpoints 3, 4 and 6."""
    train(make_config(settings, run=RUN), str(folder / "run"))
    assert steps(folder / "run" / "checkpoints") == [3, 4, 6]
    return folder / "run"


def leaves(tree):
    """Arrays by path, as `read_arrays` names them."""
    return {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def dev_lines(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if line["split"] == "dev"}


def test_training_continues_from_the_newest_sound_checkpoint(finished, settings, tmp_path, capfd):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "checkpoints" / "6"
    file = max(newest.glob("params/ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    damage = f"{file.relative_to(newest)} is damaged"
    with pytest.raises(CheckpointError, match=f"{newest}: {damage}"):
        train(make_config(settings, run=RUN), str(tmp_path), strict_restore=True)
    train(make_config(settings, run=RUN), str(tmp_path))
    said = capfd.readouterr().err
    assert f"warning: {newest} is damaged, kept as 6.damaged: {damage}" in said
    assert "continuing after step 4\n" in said and "Traceback" not in said
    assert {key: x.tobytes() for key, x in read_arrays(tmp_path, 6).items()} == {
        key: x.tobytes() for key, x in read_arrays(finished, 6).items()
    }
    assert dev_lines(tmp_path) == dev_lines(finished)


def test_averages_are_the_mean(finished, tmp_path):
    assert average(str(finished), str(tmp_path / "last"), last=2) == [4, 6]
    assert average(str(finished), str(tmp_path / "best"), best=2) == [3, 6]
    for name, chosen in (("last", (4, 6)), ("best", (3, 6))):
        arrays = [read_arrays(finished, step) for step in chosen]
        loaded = load_model(tmp_path / name)
        assert loaded.step == 6 and loaded.config.optim.ema_decay == 0
        # The run keeps a moving average, which is its model.
        written = read_arrays(tmp_path / name, 6)
        assert len(written) == sum(key.startswith("ema") for key in arrays[0])
        for key, x in written.items():
            of_run = key.replace("params", "ema")
            mean = sum(a[of_run].astype(np.float64) for a in arrays) / 2
            np.testing.assert_array_equal(x, mean.astype(np.float32))
            np.testing.assert_array_equal(x, leaves(loaded.params)[key.removeprefix("params")])


def test_averages_that_cannot_be_made(finished, tmp_path):
    with pytest.raises(CheckpointError, match="has 3 checkpoints to average, not 4"):
        average(str(finished), str(tmp_path / "new"), last=4)
    with pytest.raises(CheckpointError, match="holds a run already"):
        average(str(finished), str(finished), last=1)
    with pytest.raises(ConfigError, match="at least 1"):
        average(str(finished), str(tmp_path / "new"), last=0)
    assert not (tmp_path / "new").exists()


def test_the_moving_average_is_what_is_evaluated_and_loaded(finished, settings):
    arrays = read_arrays(finished, 6)
    loaded = load_model(finished, "last")
    for name, x in leaves(loaded.params).items():
        np.testing.assert_array_equal(x, arrays["ema" + name])
        assert "norm" in name or not np.array_equal(x, arrays["params" + name])
    config = make_config(settings, run=RUN)
    data = prepare_data(config, Workdir(finished), print)

    def nll(params):
        step = functools.partial(eval_step, model=loaded.model, config=config)
        return evaluate_dev(params, step, loaded.model, data, config, make_mesh(config.mesh))["nll"]

    of_params = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(arrays["params" + jax.tree_util.keystr(path)]), loaded.params
    )
    logged = dev_lines(finished)[6]["nll"]
    assert nll(loaded.params) == pytest.approx(logged, rel=1e-5)
    assert nll(of_params) != pytest.approx(logged, rel=1e-3)


def script(monkeypatch, values):
    """Lets evaluations find these values, in turn."""
    rest = iter(values)
    monkeypatch.setattr(loop_module, "evaluate_dev", lambda *args: {"nll": next(rest), "bleu": 0.0})


PATIENT = {"num_steps": 12, "eval_every": 1, "save_every": 99, "keep_latest": 1, "patience": 3}


@pytest.mark.parametrize("stopped_after", [None, 2, 4])
def test_patience_counts_across_restarts(folder, settings, tmp_path, monkeypatch, capfd, stopped_after):
    values = [3.0, 2.5, 2.0, 2.0, 2.5, 2.25, 1.0]  # the same once more is no improvement
    script(monkeypatch, values)
    if stopped_after:
        train(make_config(settings, run=PATIENT | {"num_steps": stopped_after}), str(tmp_path))
    for _ in range(2):  # the second time there is nothing to do
        train(make_config(settings, run=PATIENT), str(tmp_path))
        assert [line["nll"] for line in dev_lines(tmp_path).values()] == values[:6]
        assert "finished early: nll has not improved on 2 in 3 evaluations" in capfd.readouterr().err
    assert steps(tmp_path / "checkpoints") == [4, 6]  # of equals the newer


def test_patience_with_a_metric_that_stands_still_or_is_changed(folder, settings, tmp_path, monkeypatch):
    script(monkeypatch, [5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    patient = PATIENT | {"patience": 2, "best_metric": "bleu", "eval_lines": 1}
    train(make_config(settings, run=patient), str(tmp_path))
    assert list(dev_lines(tmp_path)) == [1, 2, 3]
    train(make_config(settings, run=patient | {"best_metric": "nll"}), str(tmp_path))
    assert list(dev_lines(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]


def test_divergence_ends_the_run_and_spoils_no_checkpoint(folder, settings, tmp_path):
    run = RUN | {"save_every": 1, "max_skipped": 2, "max_rollbacks": 1}
    config = make_config(settings, optim={"learning_rate": 1e30}, run=run)
    with pytest.raises(
        DivergedError, match=r"^step \d+: 2 updates in a row were not finite, .*; lower config"
    ) as e:
        train(config, str(tmp_path))
    assert e.value.exit_code == 5
    for step in steps(tmp_path / "checkpoints"):
        assert all(np.isfinite(x).all() for x in read_arrays(tmp_path, step).values())
