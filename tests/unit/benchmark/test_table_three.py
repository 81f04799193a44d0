"""The table of benchmarks/ablation.py, and two updates of one row on stand-in data."""

import gzip
import json
import random
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import ablation  # noqa: E402

from transformer.recipes import load_config  # noqa: E402


def result(perplexity: float, bleu: float, steps: int = 9, layers: tuple[float, ...] = ()) -> dict:
    figures = dict(steps=steps, perplexity=perplexity, bleu=bleu, layers=layers)
    return dict(**figures, parameters=1234567, tokens_per_second=999.6)


def test_means_spreads_and_what_was_not_run(tmp_path: Path) -> None:
    rows = [row for row in ablation.ROWS if row.name in ("base", "A1", "rotary", "adaptive")]
    results = {
        "base": [result(5.0, 30.0), result(6.0, 31.0), result(7.0, 32.0)],
        "rotary": [result(4.567, 33)],
        "adaptive": [result(5, 33, layers=(2.5, 3.0)), result(5, 33, layers=(3.5, 3.123))],
    }
    lines = ablation.table(rows, results)
    assert lines[2].startswith("| base | nothing | 6.00 ± 1.00 | 31.0 ± 1.0 | 1,234,567 | 1,000 | 3 | ")
    assert lines[3].startswith("| A1 | `model.num_heads=1` | not run yet |  |  |  | 0 | ")
    assert lines[4].startswith("| rotary | `model.positions=rotary` | 4.57 | 33.0 | 1,234,567 | 1,000 | 1 | ")
    assert "`model.recurrence=adaptive` (taken: 3.00 + 3.06) | 5.00 ± 0.00 |" in lines[5]
    assert {line.count("|") for line in lines} == {9}
    document = tmp_path / "ablation.md"
    document.write_text(f"before\n\n{ablation.BEGIN}\nold\n{ablation.END}\n\nafter\n")
    for _ in range(2):
        ablation.write_between(document, lines)
        text = document.read_text()
        assert "old" not in text
        assert text.startswith("before\n\n<!--")
        assert text.endswith("<!-- end of table -->\n\nafter\n")
        assert "\n".join(["", *lines, ""]) in text
    document.write_text("no marks")
    with pytest.raises(ValueError, match="has not one line"):
        ablation.write_between(document, lines)
    with pytest.raises(ValueError, match=r"runs of \[8, 9\] updates are not to be compared"):
        ablation.table(rows, {"base": [result(5, 30), result(5, 30, steps=8)]})


def test_results_outlive_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.jsonl"
    for folder, row, seed, bleu in (
        ("a", "C1", 1, 20),
        ("a", "base", 0, 30),
        ("b", "C1", 0, 22),
        ("c", "C1", 1, 24),
    ):
        place = tmp_path / folder / row
        place.mkdir(parents=True)
        (place / f"{seed}.json").write_text(json.dumps(result(5, bleu)))
    for folder in "abc":
        words = ["table", "--folder", str(tmp_path / folder), "--kept", str(kept), "--rows", "base,C1"]
        assert ablation.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("| base | nothing | 5.00 | 30.0 |")
    assert "| 23.0 ± 1.4 |" in lines[-1]
    found = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(line["row"], line["seed"], line["bleu"]) for line in found] == [
        ("base", 0, 30),
        ("C1", 0, 22),
        ("C1", 1, 24),
    ]


def test_every_row_is_a_possible_configuration_of_its_own() -> None:
    found = {}
    for row in ablation.ROWS:
        words = ablation.command(row, 3, Path("there"), Path("data"), 7, [])
        config = load_config(str(ablation.RECIPE), words[words.index("there") + 1 :])
        assert config.run.num_steps == config.run.eval_every == 7
        assert config.data.seed == config.run.init_seed == config.run.dropout_seed == 3
        found[row.name] = config
    assert len(set(found.values())) == len(found) == len(ablation.ROWS)


@pytest.mark.slow
def test_two_updates_are_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(7)
    for split, count in (("train", 120), ("val", 4)):
        lines = [
            " ".join(draw.choices(["ab", "bc", "ca", "abc"], k=draw.randint(1, 4))) for _ in range(count)
        ]
        for side in ("en", "de"):
            with gzip.open(tmp_path / f"{split}.lc.norm.tok.{side}.gz", "wt") as file:
                file.write("".join(line + "\n" for line in lines))
    words = ["run", "--data", str(tmp_path), "--folder", str(tmp_path / "runs"), "--steps", "2"]
    words += ["--rows", "adaptive", "--config.tokenizer.vocab_size=13", "--config.model.d_model=16"]
    words += ["--config.model.d_ff=16", "--config.data.batch_tokens=128", "--config.data.test_source="]
    assert ablation.main([*words, "--config.data.test_target="]) == 0
    found = json.loads((tmp_path / "runs" / "adaptive" / "0.json").read_text())
    assert found["steps"] == 2
    assert found["perplexity"] > 1
    assert len(found["layers"]) == 2
    assert all(1 <= taken <= 4 for taken in found["layers"])
    assert found["parameters"] > 1000
    assert found["tokens_per_second"] > 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was run before")

    monkeypatch.setattr(ablation.subprocess, "run", never)
    assert ablation.main(words) == 0
    with pytest.raises(SystemExit):
        ablation.main(["run", "--data", str(tmp_path), "--rows", "Z9"])
