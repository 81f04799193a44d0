"""BLEU and chrF against hand computation and against numbers that sacreBLEU's command line gave."""

import functools
import gzip
import json
import math
import pathlib

import pytest
import sacrebleu

from transformer.errors import ConfigError, DataError
from transformer.metrics import scores

DATA = pathlib.Path(__file__).parents[4] / "shared/data/bleu-check"
# (hypothesis, references) -> metric of the file, and the options that should give it.
CASES = {
    ("es-MX", ("es", "es-2")): ("bleu-13a", {}),
    ("es-MX", ("es",)): ("bleu-13a-lc", {"lowercase": True}),
    ("es-MX.cut8", ("es",)): ("bleu-intl", {"tokenize": "intl"}),
    ("pt-BR", ("pt",)): ("bleu-char", {"tokenize": "char"}),
    ("es", ("es",)): ("bleu-none", {"tokenize": "none"}),
}


@pytest.mark.parametrize("tokenize", ["13a", "none"])
def test_text_that_is_cut_already_is_warned_of_unless_it_is_expected(tokenize, caplog):
    scores.score(["a b ."] * 101, [["a b ."] * 101], tokenize=tokenize)
    assert ("detokenize" in caplog.text) == (tokenize == "13a")


def test_bleu_by_hand():
    # Matching n-grams: 6 of 7 words, 4 of 6 pairs, 2 of 5 triples ("a b c", "b c d"), 1 of 4.
    result = scores.score(["a b c d X f g"], [["a b c d e f g"]])
    expected = 100 * math.exp(sum(map(math.log, (6 / 7, 4 / 6, 2 / 5, 1 / 4))) / 4)
    assert result.bleu == pytest.approx(expected, rel=1e-9)
    assert result.bleu_details == "85.7/66.7/40.0/25.0 (BP = 1.000 ratio = 1.000 hyp_len = 7 ref_len = 7)"


def test_brevity_penalty_by_hand():
    result = scores.score(["a b c d e"], [["a b c d e f g"]])
    assert result.bleu == pytest.approx(100 * math.exp(1 - 7 / 5), rel=1e-9)


def test_second_reference_set_counts():
    # Neither reference alone holds all n-grams of the hypothesis.
    first, second = "a b c d x x x x", "y y y y e f g h"
    hypothesis = "a b c d"
    alone = scores.score([hypothesis, "e f g h"], [[first, first]])
    both = scores.score([hypothesis, "e f g h"], [[first, first], [second, second]])
    assert alone.bleu < both.bleu
    assert both.bleu_details.startswith("100.0/100.0/100.0/100.0")
    assert both.bleu_signature.startswith("nrefs:2|")


def test_exact_match_takes_any_reference_and_the_case():
    hypotheses, references = ["A b", "c", "d", "e"], [["a b", "c", "x", "y"], ["q", "q", "d", "z"]]
    assert scores.score(hypotheses, references).exact_match == 50.0
    assert scores.score(hypotheses, references, lowercase=True).exact_match == 75.0


def test_signatures_name_everything():
    result = scores.score(["a"], [["a"]], tokenize="intl", lowercase=True)
    version = sacrebleu.__version__
    assert result.bleu_signature == f"nrefs:1|case:lc|eff:no|tok:intl|smooth:exp|version:{version}"
    assert result.chrf_signature == f"nrefs:1|case:lc|eff:yes|nc:6|nw:0|space:no|version:{version}"


def test_unequal_lengths_name_both_counts():
    with pytest.raises(DataError, match=r"^3 translations but 2 lines in reference set 2 of 2; give"):
        scores.score(["a"] * 3, [["a"] * 3, ["a"] * 2])


@pytest.mark.parametrize(
    ("hypotheses", "references", "missing"), [([], [[]], "translations"), (["a"], [], "references")]
)
def test_empty_input_is_an_error(hypotheses, references, missing):
    with pytest.raises(DataError, match=f"no {missing}"):
        scores.score(hypotheses, references)


def test_unknown_tokenizer_is_an_error():
    with pytest.raises(ConfigError, match=r"'intel' is not a choice.*intl"):
        scores.score(["a"], [["a"]], tokenize="intel")


@functools.cache
def lines(name):
    with gzip.open(DATA / f"newstest2019.{name}.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


@pytest.mark.skipif(not (DATA / "expected.json").exists(), reason="needs ../shared/data/bleu-check")
@pytest.mark.parametrize("pairing", CASES)
def test_real_data(pairing):
    name, options = CASES[pairing]
    expected = {
        entry["metric"]: entry
        for entry in json.loads((DATA / "expected.json").read_text())
        if (entry["hypothesis"], tuple(entry["references"])) == pairing
    }
    wanted = expected[name]
    result = scores.score(lines(pairing[0]), [lines(r) for r in pairing[1]], **options)
    assert result.num_lines == 1997
    assert result.bleu == pytest.approx(wanted["score"], abs=1e-9)
    assert result.bleu_signature.rpartition("|")[0] == wanted["signature"].rpartition("|")[0]
    precisions = "/".join(f"{p:.1f}" for p in wanted["precisions"])
    assert result.bleu_details.startswith(f"{precisions} (BP = {wanted['bp']:.3f} ratio")
    assert result.bleu_details.endswith(f"hyp_len = {wanted['sys_len']} ref_len = {wanted['ref_len']})")
    if not options.get("lowercase"):  # the file holds no lowercased chrF
        assert result.chrf == pytest.approx(expected["chrf"]["score"], abs=1e-9)
