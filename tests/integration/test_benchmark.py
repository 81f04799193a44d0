"""`transformer benchmark` from the command line: it trains the very steps that `train` does."""

import json

import pytest
from tiny_run import SETTINGS, changed, compiled_once, write_corpus, write_recipe

from transformer import cli
from transformer.benchmark import train as benchmark_train
from transformer.benchmark.peak import GemmPeak
from transformer.io.metrics_file import read_metrics

WARMUP, STEPS = 1, 2
ALL = WARMUP + 2 * STEPS


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_recipe(folder / "tiny.py", changed(write_corpus(folder), run={"num_steps": ALL}))


@pytest.fixture(autouse=True)
def known_peak(monkeypatch):
    monkeypatch.setattr(benchmark_train, "measure_gemm_peak", lambda *_, **__: GemmPeak(1e12, (1, 1, 1)))


def measure(capsys, *words: object) -> tuple[dict, str]:
    """Returns (the report as JSON, what was printed)."""
    *_, file = words
    capsys.readouterr()
    command = [
        "benchmark",
        "train",
        f"--steps={STEPS}",
        f"--warmup={WARMUP}",
        "--json",
        *words[-1:],
        *words[:-1],
    ]
    assert cli.main([str(word) for word in command]) == 0
    return json.loads(file.read_text()), capsys.readouterr().out


def test_real_data_give_the_losses_and_tokens_of_a_run(recipe, tmp_path, capsys):
    with compiled_once():
        report, out = measure(capsys, f"--config={recipe}", tmp_path / "report.json")
        assert cli.main(["train", f"--config={recipe}", f"--workdir={tmp_path / 'run'}"]) == 0
    steps = {line["step"]: line for line in read_metrics(tmp_path / "run") if line["split"] == "train"}
    figures = {name: figure["value"] for name, figure in report["figures"].items()}
    assert figures["last_loss"] == pytest.approx(steps[ALL]["loss"], rel=1e-5)
    together = [steps[step] for step in range(WARMUP + 1, WARMUP + STEPS + 1)]
    for side in ("source", "target"):
        tokens = sum(line[f"{side}_tokens"] for line in together)
        assert figures[f"{side}_tokens_per_step"] == tokens / STEPS
        assert figures[f"{side}_tokens_per_second"] == pytest.approx(tokens / STEPS / figures["step_time"])
        positions = SETTINGS["data"]["batch_tokens"]
        assert figures[f"padding_{side}"] == pytest.approx(1 - tokens / STEPS / positions)
    assert figures["compilations_late"] == 0 and figures["batch_shapes"] == 1
    assert figures["peak_memory"] > figures["step_memory"] > 0
    assert "target tokens per second" in out and "train.source|train.target" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "run"]


def test_synthetic_data_need_no_files(recipe, tmp_path, capsys):
    nowhere = "--config.data.root=nowhere"
    with compiled_once():
        words = f"--config={recipe}", "--data=synthetic", "--mean_length=12", nowhere
        report, out = measure(capsys, *words, tmp_path / "report.json")
    assert report["figures"]["mean_source_length"]["value"] == pytest.approx(12, rel=0.3)
    assert report["data"].startswith("synthetic") and "vocabulary 40 and 40" in out
    assert report["devices"]["platform"] == "cpu" and len(report["config_digest"]) == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset=tiny", "--steps=0"], "--steps 0: must be at least 1"),
        (["--preset=tiny", "--data=real"], "no training data is named"),
        (["--preset=tiny", "--workdir=x"], "--workdir: belongs to --data real"),
        (["--config=configs/quickstart.py", "--mean_length=9"], "--mean_length: belongs to --data synthetic"),
        (["--preset=tiny", "--mesh=2x1"], "must be DATAxFSDPxTENSOR"),
        (["--preset=tiny", "--mesh=64x1x1"], "needs 64 devices"),
        (
            ["--preset=tiny", "--mesh=1x1x1", "--config.mesh.sequence=2"],
            "--mesh 1x1x1: has no axis for config.mesh.sequence 2",
        ),
        (["--preset=tiny", "--warmpu=2"], "did you mean '--warmup'"),
        (["--preset=tiny", "--config.model.d_modle=2"], "did you mean 'd_model'"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert cli.main(["benchmark", "train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


def test_where_no_report_can_be_written(tmp_path, capsys):
    for file, message in (
        ("/nowhere/at/all.json", "there is no folder /nowhere/at"),
        (tmp_path, "is a folder"),
    ):
        assert cli.main(["benchmark", "train", "--preset=tiny", f"--json={file}"]) == 3
        out, err = capsys.readouterr()
        assert out == "" and message in err and err.count("\n") == 1


def test_scaling_passes_on_what_went_wrong(capsys):
    words = ["--preset=tiny", "--meshes=1x3x1", "--steps=1", "--vocab_size=50"]
    assert cli.main(["benchmark", "scaling", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "error: --meshes, 1x3x1: config.model.d_model: 128 is not divided by" in err


@pytest.mark.slow
def test_scaling(recipe, tmp_path, capsys):
    file = tmp_path / "report.json"
    words = [f"--config={recipe}", "--meshes=1x1x1,2x1x1", "--steps=2", "--warmup=1", f"--json={file}"]
    assert cli.main(["benchmark", "scaling", *words]) == 0
    out = capsys.readouterr().out
    report = json.loads(file.read_text())
    one, two = report["runs"]
    assert report["simulated"] and "share the cores" in out
    assert [row["devices"] for row in report["meshes"]] == [1, 2]
    assert report["meshes"][0]["bytes_sent"] == 0 < report["meshes"][1]["bytes_sent"]
    tokens = "target_tokens_per_step"
    assert one["figures"][tokens]["value"] == two["figures"][tokens]["value"]
    assert one["figures"]["last_loss"]["value"] == pytest.approx(
        two["figures"]["last_loss"]["value"], rel=1e-3
    )
