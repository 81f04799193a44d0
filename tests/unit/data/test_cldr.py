"""The built-in corpus against German written by hand, and its promises: distinct, told, repeatable."""

import datetime
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal

import pytest
from babel import Locale

from transformer.data import cldr, cldr_kinds
from transformer.errors import ConfigError

NBSP = "\u00a0"
MONTHS = dict(
    zip(
        "January February March April May June July August September October November December".split(),  # noqa: SIM905
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split(),  # noqa: SIM905
        strict=True,
    )
)
DAY = datetime.date(1997, 3, 5)


@pytest.fixture(scope="module")
def corpus():
    return cldr.generate("en", "de", 6000, seed=0)


def source_lines(corpus):
    return [source for pairs in corpus.values() for source, _ in pairs]


@pytest.mark.parametrize(
    ("render", "arguments", "english", "german"),
    [
        (cldr_kinds.date_text, ("full", DAY), "Wednesday, March 5, 1997", "Mittwoch, 5. März 1997"),
        (cldr_kinds.date_text, ("medium", DAY), "Mar 5, 1997", "05.03.1997"),
        (cldr_kinds.date_text, ("yQQQQ", DAY), "1st quarter 1997", "1. Quartal 1997"),
        (cldr_kinds.time_text, ("medium", datetime.time(15, 7, 9)), "3:07:09\u202fPM", "15:07:09"),
        (cldr_kinds.time_text, ("short", datetime.time(0, 30)), "12:30\u202fAM", "00:30"),
        (
            cldr_kinds.interval_text,
            ("yMMMd", (DAY, datetime.date(1997, 3, 11))),
            "Mar 5\u2009–\u200911, 1997",
            "5.–11. März 1997",
        ),
        (
            cldr_kinds.duration_text,
            ("long", [("day", 2), ("hour", 3), ("minute", 1)]),
            "2 days, 3 hours, and 1 minute",
            "2 Tage, 3 Stunden und 1 Minute",
        ),
        (cldr_kinds.relative_text, ("day", -3), "3 days ago", "vor 3 Tagen"),
        (cldr_kinds.relative_text, ("year", 1), "in 1 year", "in 1 Jahr"),
        (cldr_kinds.relative_text, ("second", 199), "in 199 seconds", "in 199 Sekunden"),
        (
            cldr_kinds.money_text,
            (("USD", "standard"), Decimal("1234.5")),
            "$1,234.50",
            f"1.234,50{NBSP}$",
        ),
        (cldr_kinds.money_text, (("GBP", "name"), Decimal(2)), "2.00 British pounds", "2,00 Britische Pfund"),
        (cldr_kinds.money_text, (("JPY", "name"), Decimal("1.00")), "1 Japanese yen", "1 Japanischer Yen"),
        (
            cldr_kinds.unit_text,
            (("speed-kilometer-per-hour", "long"), Decimal("12.5")),
            "12.5 kilometers per hour",
            "12,5 Kilometer pro Stunde",
        ),
        (cldr_kinds.number_text, ("decimal", Decimal("-1234.567")), "-1,234.567", "-1.234,567"),
        (cldr_kinds.number_text, ("percent", Decimal("0.125")), "12.5%", f"12,5{NBSP}%"),
        (cldr_kinds.number_text, ("scientific", Decimal(123000)), "1.23E5", "1,23E5"),
        (cldr_kinds.compact_text, ("long", Decimal(1200000)), "1.2 million", "1,2 Millionen"),
        (
            cldr_kinds.names_text,
            ("or", [("territories", "FR"), ("territories", "JP"), ("territories", "PE")]),
            "France, Japan, or Peru",
            "Frankreich, Japan oder Peru",
        ),
    ],
)
def test_known_lines(render, arguments, english, german):
    assert render(*arguments, Locale("en")) == english
    assert render(*arguments, Locale("de")) == german


def test_dates_times_and_numbers_against_a_translation_by_hand(corpus):
    counts = defaultdict(int)
    for source, target in corpus["train"]:
        if match := re.fullmatch(r"([A-Z][a-z]+) (\d+), (\d{4})", source):
            month, day, year = match.groups()
            assert target == f"{day}. {MONTHS[month]} {year}"
            counts["date"] += 1
        elif match := re.fullmatch(r"(\d+):(\d\d)\u202f(AM|PM)", source):
            hour = int(match[1]) % 12 + 12 * (match[3] == "PM")
            assert target == f"{hour:02}:{match[2]}"
            counts["time"] += 1
        elif re.fullmatch(r"-?[\d,.]+", source):
            assert target == source.translate(str.maketrans(",.", ".,"))
            counts["number"] += 1
    assert counts["date"] > 50 and counts["time"] > 50 and counts["number"] > 200, dict(counts)


def test_every_kind_occurs(corpus):
    lines = source_lines(corpus)
    for pattern in (
        r"[A-Z][a-z]+day, .* \d{4}",
        r"\d+:\d\d:\d\d\u202f[AP]M",
        r"[A-Z][a-z]+ \d+, \d{4}, .*:.*",
        r".*\u2009–\u2009.*",
        r"\d+ hours?, \d+ minutes?, and \d+ seconds?",
        r"\d+ weeks? ago",
        r"-?\$[\d,]+\.\d\d",
        r".* euros",
        r"[\d.,]+ hectares?",
        r"[\d.,]+%",
        r"[\d.]+E-?\d+",
        r"[\d.]+ (million|thousand)",
        r".*, and .*an",
        r".* or .*ia",
    ):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern


def test_split_sizes_and_no_line_twice(corpus):
    assert {split: len(pairs) for split, pairs in corpus.items()} == {
        "train": 6000,
        "dev": 1000,
        "test": 1000,
    }
    lines = source_lines(corpus)
    assert len(set(lines)) == len(lines) == 8000


def test_single_names_are_for_training_only(corpus):
    train = dict(corpus["train"])
    assert train["Germany"] == "Deutschland" and train["Swahili"] == "Suaheli"
    held_out = dict(corpus["dev"] + corpus["test"])
    assert not held_out.keys() & set(map(str, Locale("en").territories.values()))
    assert not held_out.keys() & set(map(str, Locale("en").languages.values()))
    pairs_of_names = [re.fullmatch(r"([^\d,]+) (?:and|or) ([^\d,]+)", line) for line in held_out]
    names = {name for match in pairs_of_names if match for name in match.groups()}
    assert len(names) > 50 and names <= train.keys()


@pytest.mark.parametrize("locales", [("en", "fr"), ("fr", "de"), ("de", "ja"), ("ar", "en"), ("sw", "en")])
def test_any_two_locales_and_a_line_has_one_translation(locales):
    translations = defaultdict(set)
    for seed in (1, 2):
        corpus = cldr.generate(*locales, 2000, seed)
        assert len(set(source_lines(corpus))) == 4000
        for source, target in (pair for pairs in corpus.values() for pair in pairs):
            translations[source].add(target)
            for line in (source, target):
                assert line and line == line.strip() and not re.search(r"[\n\r{}]|duration-", line)
    assert [s for s, targets in translations.items() if len(targets) > 1] == []


def test_forms_that_do_not_tell_enough_are_left_out():
    french, german = Locale("fr"), Locale("de")
    # "août 1997" would be "August 1997" as the long form and "Aug. 1997" as the short one.
    draw = cldr_kinds.KINDS["date"][1](french, german)
    rng = cldr.Random(0)
    values = [draw(rng) for _ in range(2000)]
    texts = {(value(french), value(german)) for value in values}
    assert any(re.fullmatch(r"août \d{4}", source) for source, _ in texts)
    assert len(dict(texts)) == len(texts)


def test_seed_decides_everything_in_any_process():
    code = (
        "import json, sys; from transformer.data import cldr; "
        "json.dump(cldr.generate('en', 'de', 500, 3), sys.stdout)"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] == json.dumps(cldr.generate("en", "de", 500, 3)).encode()
    assert cldr.generate("en", "de", 500, 4) != cldr.generate("en", "de", 500, 3)


def test_hyphens_are_as_good_as_underscores():
    assert cldr.generate("pt-BR", "zh-Hant", 20, 0) == cldr.generate("pt_BR", "zh_Hant", 20, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("english!", "de", 10, 0), r"config\.data\.source_language: .*'english!'"),
        (("en", "de_ZZ", 10, 0), r"config\.data\.target_language: .*'de_ZZ'"),
        (("en", "de_Wxyz", 10, 0), r"config\.data\.target_language: .*'de_Wxyz'"),
        (("en", "de_DEE", 10, 0), r"config\.data\.target_language: .*'de_DEE'; did you mean 'de_DE'\?"),
        (("en", "", 10, 0), r"config\.data\.target_language: .*''; known: "),
        (("en", "de", 0, 0), r"config\.data\.cldr_pairs: expected 1 to 1,000,000 pairs, got 0"),
        (("en", "de", 10**9, 0), r"config\.data\.cldr_pairs: .*got 1,000,000,000"),
    ],
)
def test_errors_name_the_key(arguments, message):
    with pytest.raises(ConfigError, match=message) as raised:
        cldr.generate(*arguments)
    assert "\n" not in str(raised.value)


def test_too_few_distinct_lines(monkeypatch):
    monkeypatch.setattr(cldr, "KINDS", {"relative": cldr_kinds.KINDS["relative"]})
    with pytest.raises(
        ConfigError, match=r"config\.data\.cldr_pairs: en -> de has not enough distinct lines"
    ):
        cldr.generate("en", "de", 3000, 0)
