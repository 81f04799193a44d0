"""Is one system better than another, or is it the choice of test sentences? Paired bootstrap resampling."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.significance import PairedTest

from transformer.errors import ConfigError, DataError
from transformer.metrics.scores import check_lines, make_metrics

_SEED_VARIABLE = "SACREBLEU_SEED"


@dataclass(frozen=True)
class Comparison:
    """A system beside its baseline, in one metric (0 to 100).

    Attributes:
      score: of the system, on the test set as it is.
      mean: of the system, over the resampled test sets.
      interval: half the width of the 95% interval: mean - interval to mean + interval.
      baseline_score, baseline_mean, baseline_interval: the same for the baseline.
      p_value: how probable a difference at least this large is if the systems are equally good;
        below 0.05 by convention "significant".
      signature: sacreBLEU's, with seed and number of samples.
    """

    score: float
    mean: float
    interval: float
    baseline_score: float
    baseline_mean: float
    baseline_interval: float
    p_value: float
    signature: str


@dataclass(frozen=True)
class BootstrapResult:
    """The comparison in BLEU and in chrF."""

    bleu: Comparison
    chrf: Comparison


def paired_bootstrap(
    hypotheses: Sequence[str],
    baseline: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str = "13a",
    num_samples: int = 1000,
    seed: int = 12345,
    lowercase: bool = False,
) -> BootstrapResult:
    """Compares two systems on the same test set; agrees with `sacrebleu --paired-bs`.

    One difference: sacreBLEU gives a system that ties with its baseline in every sample the smallest possible
    p-value; here it is 1.

    Args:
      hypotheses: the system's translations, one a line.
      baseline: the other system's translations of the same lines.
      references: one or more sets of references, each with one line for every translation.
      tokenize: sacreBLEU's tokenizer for BLEU.
      num_samples: resampled test sets, each as large as the test set; at least 1.
      seed: of the resampling; at least 1, because sacreBLEU takes 0 for "no fixed seed".
      lowercase: compare without case.

    Returns:
      The comparison in both metrics.

    Raises:
      DataError: if there is nothing to score, or numbers of lines differ.
      ConfigError: if the tokenizer, `num_samples` or `seed` cannot be used.

    References:
      Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004).
    """
    for name, value in (("num_samples", num_samples), ("seed", seed)):
        if value < 1:
            raise ConfigError(f"bootstrap {name}: must be at least 1, got {value}")
    check_lines(hypotheses, references)
    if len(baseline) != len(hypotheses):
        raise DataError(
            f"{len(hypotheses)} translations but {len(baseline)} of the baseline; "
            "give the translations of the same lines"
        )
    bleu, chrf = make_metrics(tokenize, lowercase)
    systems = [("baseline", baseline), ("system", hypotheses)]
    with _sacrebleu_seed(seed):
        test = PairedTest(
            systems, {"BLEU": bleu, "chrF": chrf}, references, test_type="bs", n_samples=num_samples
        )
        signatures, results = test()
    # The keys are the scores' own names, in the order of the metrics: "BLEU", then "chrF2".
    bleu_name, chrf_name = signatures
    return BootstrapResult(
        bleu=_comparison(results[bleu_name], str(signatures[bleu_name])),
        chrf=_comparison(results[chrf_name], str(signatures[chrf_name])),
    )


def _comparison(results: Sequence[Any], signature: str) -> Comparison:
    baseline, system = results
    # sacreBLEU counts samples that differ by strictly more than the test set does: none, in a perfect tie.
    tie = (system.score, system.mean, system.ci) == (baseline.score, baseline.mean, baseline.ci)
    return Comparison(
        score=float(system.score),
        mean=float(system.mean),
        interval=float(system.ci),
        baseline_score=float(baseline.score),
        baseline_mean=float(baseline.mean),
        baseline_interval=float(baseline.ci),
        p_value=1.0 if tie else float(system.p_value),
        signature=signature,
    )


@contextlib.contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """Sets the environment variable that is sacreBLEU's only way to be given a seed."""
    before = os.environ.get(_SEED_VARIABLE)
    os.environ[_SEED_VARIABLE] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_VARIABLE]
        else:
            os.environ[_SEED_VARIABLE] = before
