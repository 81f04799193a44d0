"""Paired bootstrap: agrees with sacreBLEU's command line; tells a worse system from an equal one."""

import os
import random
import re
import subprocess
import sys

import pytest

from transformer.errors import ConfigError, DataError
from transformer.metrics.bootstrap import paired_bootstrap


def corpus(num_lines, noise, seed):
    """Returns references and translations in which a share `noise` of the words is wrong."""
    rng = random.Random(seed)
    references = [[f"w{rng.randrange(50)}" for _ in range(rng.randrange(6, 14))] for _ in range(num_lines)]
    noisy = [[w if rng.random() > noise else "wrong" for w in line] for line in references]
    return [" ".join(line) for line in references], [" ".join(line) for line in noisy]


REFERENCES, GOOD = corpus(100, 0.1, seed=1)
_, BAD = corpus(100, 0.3, seed=1)


def test_a_system_against_itself_does_not_differ():
    result = paired_bootstrap(GOOD, list(GOOD), [REFERENCES], num_samples=100)
    for comparison in (result.bleu, result.chrf):
        assert comparison.p_value == 1.0
        assert comparison.mean == comparison.baseline_mean


def test_a_clearly_worse_system_is_found_either_way_round():
    better = paired_bootstrap(GOOD, BAD, [REFERENCES], num_samples=200)
    worse = paired_bootstrap(BAD, GOOD, [REFERENCES], num_samples=200)
    for up, down in ((better.bleu, worse.bleu), (better.chrf, worse.chrf)):
        assert up.p_value < 0.05 and down.p_value < 0.05
        assert up.mean - up.interval > up.baseline_mean + up.baseline_interval
        assert up.score == down.baseline_score and up.mean == pytest.approx(down.baseline_mean)


def test_equally_noisy_systems_do_not_differ():
    # Two lines in ten are worse, two others better by as much.
    first = [r.replace("w1", "x", 1) if i % 10 < 2 else r for i, r in enumerate(REFERENCES)]
    second = [r.replace("w1", "x", 1) if 2 <= i % 10 < 4 else r for i, r in enumerate(REFERENCES)]
    assert paired_bootstrap(first, second, [REFERENCES], num_samples=200).bleu.p_value > 0.05


def test_the_seed_decides_and_the_environment_is_left_alone(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "77")
    one, again, other = (
        paired_bootstrap(GOOD, BAD, [REFERENCES], num_samples=50, seed=seed) for seed in (5, 5, 6)
    )
    assert one == again
    assert one.bleu.mean != other.bleu.mean
    assert "seed:5" in one.bleu.signature and "bs:50" in one.bleu.signature
    assert os.environ["SACREBLEU_SEED"] == "77"
    monkeypatch.delenv("SACREBLEU_SEED")
    paired_bootstrap(GOOD, BAD, [REFERENCES], num_samples=1)
    assert "SACREBLEU_SEED" not in os.environ


def test_agrees_with_the_command_line(tmp_path):
    for name, text in (("ref", REFERENCES), ("good", GOOD), ("bad", BAD)):
        (tmp_path / name).write_text("\n".join(text) + "\n")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "bad", "good", "-m", "bleu", "chrf"]
    options = ["--paired-bs", "--paired-bs-n", "100", "--format", "latex", "-w", "4"]
    environment = {**os.environ, "SACREBLEU_SEED": "12345", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command + options, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=True
    )
    # Two rows, the baseline's and the system's: score (mean ± interval), and the system's p-value.
    cells = re.findall(r"([\d.]+) \(([\d.]+) ± ([\d.]+)\)(?: \(p = ([\d.]+)\))?", done.stdout)
    result = paired_bootstrap(GOOD, BAD, [REFERENCES], num_samples=100)
    for ours, base, system in ((result.bleu, *cells[0::2]), (result.chrf, *cells[1::2])):
        wanted = (ours.score, ours.mean, ours.interval, ours.p_value)
        assert list(map(float, system)) == pytest.approx(wanted, abs=1e-4)
        wanted = (ours.baseline_score, ours.baseline_mean, ours.baseline_interval)
        assert list(map(float, base[:3])) == pytest.approx(wanted, abs=1e-4)


def test_input_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="2 translations but 1 of the baseline"):
        paired_bootstrap(["a", "b"], ["a"], [["a", "b"]])
    with pytest.raises(DataError, match="2 translations but 3 lines"):
        paired_bootstrap(["a", "b"], ["a", "b"], [["a", "b", "c"]])
    for option in ("seed", "num_samples"):
        with pytest.raises(ConfigError, match=f"{option}: must be at least 1, got 0"):
            paired_bootstrap(["a"], ["a"], [["a"]], **{option: 0})
