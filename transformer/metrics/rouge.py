"""ROUGE of summaries (Lin 2004), by the `rouge-score` package, with a signature that names the measure."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformer.errors import ConfigError
from transformer.metrics.scores import check_lines

_KINDS = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Rouge:
    """What a set of summaries scores: means over lines of F1, 0 to 100.

    Attributes:
      rouge1: of words.
      rouge2: of pairs of words.
      rougeL: of the longest common subsequence, each line as one sentence.
      num_lines: lines scored.
      signature: how it was computed, the version of the package included.
    """

    rouge1: float
    rouge2: float
    rougeL: float
    num_lines: int
    signature: str


def rouge(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Rouge:
    """Scores summaries, words by their stems and without case, as the package cuts them (a-z, 0-9 alone).

    Args:
      hypotheses: one summary a line.
      references: one or more sets of references; of several the best counts, for each measure and line.

    Raises:
      DataError: if there is nothing to score, or numbers of lines differ.
      ConfigError: if the package is not installed.
    """
    check_lines(hypotheses, references)
    scorer = rouge_scorer()
    sums = dict.fromkeys(_KINDS, 0.0)
    for hypothesis, *targets in zip(hypotheses, *references, strict=True):
        for kind, found in scorer.score_multi(targets, hypothesis).items():
            sums[kind] += 100 * found.fmeasure / len(hypotheses)
    version = importlib.metadata.version("rouge-score")
    signature = f"rouge-score:{version}|F1|stems:yes|nrefs:{len(references)}|best"
    return Rouge(**sums, num_lines=len(hypotheses), signature=signature)


def rouge_scorer() -> Any:
    """Returns the package's scorer.

    Raises:
      ConfigError: if the package is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError(
            "--metric rouge: needs the package rouge-score; pip install 'transformer[rouge]'"
        ) from error
    return RougeScorer(_KINDS, use_stemmer=True)
