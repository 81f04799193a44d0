"""ROUGE on hand-made cases."""

import pytest

from transformer.errors import DataError
from transformer.metrics.rouge import rouge

pytest.importorskip("rouge_score", reason="rouge-score, an optional dependency, is not installed")


def test_hand_made_summaries() -> None:
    """4 of 5 and 6 words; pairs 2 of 4 and 5; the longest common subsequence has 4 words, "ran" is a stem."""
    found = rouge(["the dogs ran home quickly"], [["the dog ran all way home"]])
    assert found.rouge1 == pytest.approx(100 * 2 * 4 / 11)
    assert found.rouge2 == pytest.approx(100 * 2 * 2 / 9)
    assert found.rougeL == pytest.approx(100 * 2 * 4 / 11)
    assert "stems:yes|nrefs:1" in found.signature


def test_means_over_lines_and_the_best_of_several_references() -> None:
    found = rouge(["a b", "c d"], [["x y", "c d"], ["a b", "x"]])
    assert (found.rouge1, found.rouge2, found.rougeL, found.num_lines) == (100, 100, 100, 2)
    assert rouge(["a b", "c d"], [["x y", "c d"]]).rouge1 == pytest.approx(50)


def test_a_missing_line_is_an_error() -> None:
    with pytest.raises(DataError, match="2 translations but 1 lines in reference set 1"):
        rouge(["a", "b"], [["a"]])
