"""BLEU, chrF and exact match of whole test sets, by sacreBLEU, with the signatures that name the measure."""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from transformer.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True)
class Scores:
    """What a set of translations scores against its references.

    Attributes:
      bleu: corpus BLEU, 0 to 100.
      chrf: corpus chrF2, 0 to 100.
      exact_match: percent of lines equal to one of their references.
      num_lines: lines scored.
      bleu_signature: how sacreBLEU computed BLEU, its version included.
      chrf_signature: the same for chrF.
      bleu_details: n-gram precisions in percent, brevity penalty and lengths in tokens, as sacreBLEU prints
        them: "71.0/47.5/34.3/24.5 (BP = 0.999 ratio = 0.999 hyp_len = 12096 ref_len = 12103)".
    """

    bleu: float
    chrf: float
    exact_match: float
    num_lines: int
    bleu_signature: str
    chrf_signature: str
    bleu_details: str


def score(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str = "13a",
    lowercase: bool = False,
) -> Scores:
    """Scores plain, detokenised text.

    Args:
      hypotheses: one translation a line.
      references: one or more sets of references, each with one line for every translation.
      tokenize: sacreBLEU's tokenizer for BLEU ("13a", "intl", "zh", "ja-mecab", "char", "none", ...).
      lowercase: compare without case (all three measures).

    Returns:
      The scores over all lines.

    Raises:
      DataError: if there is nothing to score, or numbers of lines differ.
      ConfigError: if the tokenizer is unknown or not installed.

    References:
      Post, A Call for Clarity in Reporting BLEU Scores (WMT 2018); Popovic, chrF (WMT 2015).
    """
    check_lines(hypotheses, references)
    bleu, chrf = make_metrics(tokenize, lowercase)
    result = bleu.corpus_score(hypotheses, references)
    precisions = "/".join(f"{p:.1f}" for p in result.precisions)
    return Scores(
        bleu=float(result.score),
        chrf=float(chrf.corpus_score(hypotheses, references).score),
        exact_match=_exact_match(hypotheses, references, lowercase),
        num_lines=len(hypotheses),
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
        bleu_details=f"{precisions} (BP = {result.bp:.3f} ratio = {result.ratio:.3f} "
        f"hyp_len = {result.sys_len} ref_len = {result.ref_len})",
    )


def check_lines(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Checks that every hypothesis has its references.

    Raises:
      DataError: if there is nothing to score, or numbers of lines differ.
    """
    if not hypotheses or not references:
        missing = "translations" if not hypotheses else "references"
        raise DataError(f"nothing to score: no {missing}; give at least one line and one set of references")
    for number, lines in enumerate(references, start=1):
        if len(lines) != len(hypotheses):
            raise DataError(
                f"{len(hypotheses)} translations but {len(lines)} lines in reference set {number} of "
                f"{len(references)}; give one reference line for every translation, in the same order"
            )


def make_metrics(tokenize: str, lowercase: bool) -> tuple[BLEU, CHRF]:
    """Returns sacreBLEU's BLEU and chrF2 with its defaults.

    Raises:
      ConfigError: if the tokenizer is unknown or not installed.
    """
    if tokenize not in BLEU.TOKENIZERS:
        raise ConfigError(
            f"BLEU tokenizer: {tokenize!r} is not a choice{did_you_mean(tokenize, BLEU.TOKENIZERS)}"
        )
    cut = tokenize == "none"  # who chooses it need not be warned that the text is cut into words already
    try:
        return BLEU(tokenize=tokenize, lowercase=lowercase, force=cut), CHRF(lowercase=lowercase)
    except (RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"BLEU tokenizer {tokenize!r} is not installed: {reason}") from error


def _exact_match(hypotheses: Sequence[str], references: Sequence[Sequence[str]], lowercase: bool) -> float:
    fold = str.lower if lowercase else str
    hits = sum(fold(h) in map(fold, refs) for h, *refs in zip(hypotheses, *references, strict=True))
    return 100 * hits / len(hypotheses)
