"""The kinds of lines of the built-in corpus: how a value of each is drawn and written in a locale.

A kind looks at the two locales once and returns a function that draws values, or None where they
share no form of it. A drawn value is a function that writes it in a given locale. Forms (date
styles, units, currencies, names) whose source lines do not tell what the target needs are left out.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import TypeVar

from babel import Locale, dates, lists, numbers, units

Render = Callable[[Locale], str]
Draw = Callable[[Random], Render]
Kind = Callable[[Locale, Locale], Draw | None]
Form = TypeVar("Form")
Value = TypeVar("Value")
Text = Callable[[Form, Value, Locale], str]  # writes a value in a form

# A hundred years, so that patterns with two digits for the year stay unambiguous.
_FIRST_DAY, _LAST_DAY = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
_DATE_STYLES = ("full", "long", "medium", "yMMMEd", "MMMEd", "MMMMd", "yMMMM", "yMMM", "yQQQQ")
_INTERVAL_SKELETONS = ("yMMMd", "yMMMEd", "yMMMM")
# What a letter of a CLDR date pattern tells, where that is not the letter itself: an hour of 24
# tells the half of the day too, and the era is always the same.
_FACTS = {"L": "M", "e": "E", "c": "E", "q": "Q", "K": "h", "H": "ha", "k": "ha", "b": "a", "B": "a", "G": ""}
_LARGEST_PART = {"year": 99, "month": 11, "week": 51, "day": 30, "hour": 23, "minute": 59, "second": 59}
_COUNTS = tuple(map(Decimal, (1, 2, 5, 11)))  # of different plurals in most languages
_SIGNS = (1,) * 9 + (-1,)
_SECONDS = dict(dates.TIMEDELTA_UNITS)
_CURRENCIES = "USD EUR GBP JPY CNY INR CHF CAD AUD NZD SEK NOK DKK PLN CZK HUF TRY ZAR BRL MXN KRW ILS"
_UNITS = """
length-kilometer length-meter length-centimeter length-millimeter length-mile length-foot length-inch
length-yard length-light-year area-square-kilometer area-square-meter area-hectare area-acre
volume-liter volume-milliliter volume-cubic-meter mass-kilogram mass-gram mass-milligram mass-tonne
mass-pound mass-ounce temperature-celsius temperature-fahrenheit speed-kilometer-per-hour
speed-meter-per-second speed-mile-per-hour power-watt power-kilowatt power-megawatt power-horsepower
energy-joule energy-kilocalorie energy-kilowatt-hour electric-volt electric-ampere frequency-hertz
frequency-megahertz pressure-hectopascal pressure-bar digital-byte digital-kilobyte digital-megabyte
digital-gigabyte digital-terabyte angle-degree graphics-pixel graphics-megapixel
"""
_TERRITORIES = """
AE AF AL AM AO AR AT AU AZ BA BD BE BF BG BJ BO BR BT BW BY CA CD CF CH CI CL CM CN CO CR CU CY CZ DE
DK DO DZ EC EE EG ES ET FI FR GA GB GE GH GN GR GT HK HN HR HT HU ID IE IL IN IQ IR IS IT JM JO JP KE
KG KH KR KW KZ LA LB LK LT LU LV LY MA MD ME MG MK ML MM MN MT MU MW MX MY MZ NA NE NG NI NL NO NP NZ
OM PA PE PG PH PK PL PT PY QA RO RS RU RW SA SD SE SG SI SK SN SO SV SY TD TG TH TJ TM TN TR TW TZ UA
UG US UY UZ VE VN YE ZA ZM ZW
"""
_LANGUAGES = """
af am ar az be bg bn bs ca cs cy da de el en es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka
kk km kn ko ky la lo lt lv mi mk ml mn mr ms mt my ne nl pa pl ps pt rm ro ru si sk sl so sq sr sv sw
ta te th tr uk ur uz vi xh yi yo zh zu
"""


def date_text(style: str, day: datetime.date, locale: Locale) -> str:
    """Returns the date in a CLDR style ("full", "long", "medium") or skeleton ("yMMMEd")."""
    if style in locale.date_formats:
        return dates.format_date(day, style, locale=locale)
    return dates.format_skeleton(style, day, fuzzy=False, locale=locale)


def time_text(style: str, time: datetime.time, locale: Locale) -> str:
    """Returns the time of day in a CLDR style: "3:07 PM" (short), "3:07:09 PM" (medium)."""
    return dates.format_time(time, style, locale=locale)


def datetime_text(style: str, moment: datetime.datetime, locale: Locale) -> str:
    """Returns date and time in a CLDR style: "Mar 5, 1997, 3:07:09 PM" (medium)."""
    return dates.format_datetime(moment, style, locale=locale)


def interval_text(skeleton: str, ends: tuple[datetime.date, datetime.date], locale: Locale) -> str:
    """Returns the days from the first to the last: "Mar 5 – 11, 1997" (yMMMd)."""
    return dates.format_interval(*ends, skeleton, fuzzy=False, locale=locale)


def unit_text(form: tuple[str, str], value: Decimal, locale: Locale) -> str:
    """Returns the value in a CLDR unit of a length, ("length-mile", "long") or "short": "2 miles", "2 mi"."""
    unit, length = form
    return units.format_unit(value, unit, length, locale=locale)  # type: ignore[arg-type]


def duration_text(length: str, parts: Iterable[tuple[str, int]], locale: Locale) -> str:
    """Returns a list of parts, such as (("hour", 2), ("minute", 15)): "2 hours and 15 minutes"."""
    texts = [unit_text((f"duration-{unit}", length), Decimal(count), locale) for unit, count in parts]
    return lists.format_list(texts, locale=locale)


def relative_text(unit: str, count: int, locale: Locale) -> str:
    """Returns the time in `count` units from now, in the past if negative: "3 days ago"."""
    return dates.format_timedelta(
        datetime.timedelta(seconds=count * _SECONDS[unit]),
        granularity=unit,  # type: ignore[arg-type]
        threshold=float("inf"),  # never round to a larger unit
        add_direction=True,
        locale=locale,
    )


def money_text(form: tuple[str, str], amount: Decimal, locale: Locale) -> str:
    """Returns the amount in ("USD", "standard"), "$2.50", or ("USD", "name"), "2.50 US dollars"."""
    currency, style = form
    # The plural goes by the digits that are written: "1.00 dollars", "1 yen".
    amount = amount.quantize(Decimal(1).scaleb(-numbers.get_currency_precision(currency)))
    return numbers.format_currency(amount, currency, format_type=style, locale=locale)  # type: ignore[arg-type]


def number_text(style: str, value: Decimal, locale: Locale) -> str:
    """Returns the number in full: as "decimal", "percent" or "scientific"."""
    if style == "decimal":
        return numbers.format_decimal(value, locale=locale)
    format_number = numbers.format_percent if style == "percent" else numbers.format_scientific
    return format_number(value, decimal_quantization=False, locale=locale)


def compact_text(length: str, value: Decimal, locale: Locale) -> str:
    """Returns the number with its power of ten in words: "1.2M" (short), "1.2 million" (long)."""
    # Three decimals: enough for three digits that count, whatever power a locale names.
    return numbers.format_compact_decimal(value, format_type=length, fraction_digits=3, locale=locale)  # type: ignore[arg-type]


def name_text(name: tuple[str, str], locale: Locale) -> str:
    """Returns what ("territories", "DE") or ("languages", "de") is called in the locale."""
    table, code = name
    return str(getattr(locale, table)[code])


def names_text(style: str, names: Iterable[tuple[str, str]], locale: Locale) -> str:
    """Returns a list of names: "France and Peru" (standard), "France or Peru" (or)."""
    return lists.format_list([name_text(name, locale) for name in names], style, locale)  # type: ignore[arg-type]


def shared_names(source: Locale, target: Locale) -> list[tuple[str, str]]:
    """Returns the names, for `name_text`, that both locales have and the source tells apart."""
    names = [("territories", code) for code in _TERRITORIES.split()]
    names += [("languages", code) for code in _LANGUAGES.split()]
    known = [(t, code) for t, code in names if code in getattr(source, t) and code in getattr(target, t)]
    return _unambiguous(lambda name, _, locale: name_text(name, locale), known, [None], source, target)


def _drawn(
    text: Text[Form, Value], forms: Sequence[Form], draw_value: Callable[[Random], Value]
) -> Draw | None:
    """Returns a function that draws a form and a value; None without forms."""

    def draw(rng: Random) -> Render:
        form, value = rng.choice(forms), draw_value(rng)
        return lambda locale: text(form, value, locale)

    return draw if forms else None


def _unambiguous(
    text: Text[Form, Value], forms: Sequence[Form], probes: Sequence[Value], source: Locale, target: Locale
) -> list[Form]:
    """Returns the forms in which no two probed values share a source line but not the target."""
    known: dict[str, str] = {}
    kept = []
    for form in forms:
        pairs = [(text(form, probe, source), text(form, probe, target)) for probe in probes]
        merged = known | dict(pairs)
        if len(merged) > len(known) and all(merged[s] == t for s, t in [*known.items(), *pairs]):
            known = merged
            kept.append(form)
    return kept


def _facts(*patterns: str) -> set[str]:
    """Returns what date patterns tell the reader, as letters."""
    letters = re.sub(r"'[^']*'|[^A-Za-z]", "", " ".join(patterns))
    return set("".join(_FACTS.get(letter, letter) for letter in letters))


def _told(source: Sequence[str], target: Sequence[str]) -> bool:
    """Whether the source's date patterns tell every fact that the target's write."""
    return _facts(*target) <= _facts(*source)


def _draw_day(rng: Random) -> datetime.date:
    return _FIRST_DAY + datetime.timedelta(rng.randrange((_LAST_DAY - _FIRST_DAY).days + 1))


def _draw_time(rng: Random) -> datetime.time:
    return datetime.time(rng.randrange(24), rng.randrange(60), rng.randrange(60))


def _draw_decimal(rng: Random, digits: int, places: int) -> Decimal:
    """Draws a positive decimal of 1 to `digits` digits, up to `places` of them after the point."""
    value = Decimal(rng.randrange(1, 10 ** rng.randint(1, digits))).scaleb(-rng.randint(0, places))
    return value.normalize() + 0  # 1.50 as 1.5 and 1E+2 as 100, since plurals go by the digits


def _draw_parts(rng: Random) -> list[tuple[str, int]]:
    """Draws one to three neighbouring parts of a duration."""
    size = rng.choice((1, 2, 2, 3, 3))
    start = rng.randrange(len(_LARGEST_PART) - size + 1)
    return [(unit, rng.randint(1, most)) for unit, most in list(_LARGEST_PART.items())[start : start + size]]


def _draw_ends(rng: Random) -> tuple[datetime.date, datetime.date]:
    start = _draw_day(rng)
    return start, start + datetime.timedelta(rng.choice((rng.randint(1, 20), rng.randint(32, 400))))


def _dates(source: Locale, target: Locale) -> Draw | None:
    def told(style: str) -> bool:
        from_, to = (x.date_formats.get(style) or x.datetime_skeletons.get(style) for x in (source, target))
        return bool(from_ and to) and _told([from_.pattern], [to.pattern])  # type: ignore[union-attr]

    # All months: in French "août" is a month's long name and its short one too, in German not.
    probes = [datetime.date(1990 + month, month, 5) for month in range(1, 13)]
    styles = _unambiguous(date_text, [s for s in _DATE_STYLES if told(s)], probes, source, target)
    return _drawn(date_text, styles, _draw_day)


def _times(source: Locale, target: Locale) -> Draw | None:
    formats = source.time_formats, target.time_formats
    styles = [style for style in ("short", "medium") if _told(*([f[style].pattern] for f in formats))]
    return _drawn(time_text, styles, _draw_time)


def _datetimes(source: Locale, target: Locale) -> Draw | None:
    formats = [(x.date_formats["medium"].pattern, x.time_formats["medium"].pattern) for x in (source, target)]
    styles = ["medium"] if _told(*formats) else []
    return _drawn(
        datetime_text, styles, lambda rng: datetime.datetime.combine(_draw_day(rng), _draw_time(rng))
    )


def _intervals(source: Locale, target: Locale) -> Draw | None:
    def clear(formats: Mapping[str, Sequence[str]], skeleton: str) -> bool:
        """Whether both ends tell the largest field that differs and the smaller ones."""
        fields = {field: set("yMd"["yMd".find(field) :]) & set(skeleton) for field in formats}
        return all(fields[field] <= _facts(part) for field in formats for part in formats[field])

    def told(skeleton: str) -> bool:
        from_, to = (locale.interval_formats.get(skeleton, {}) for locale in (source, target))
        same = bool(from_) and from_.keys() == to.keys() and all(_told(from_[f], to[f]) for f in from_)
        return same and clear(from_, skeleton) and clear(to, skeleton)

    starts = [datetime.date(1990 + month, month, 5) for month in range(1, 13)]
    probes = [(start, start + datetime.timedelta(days)) for start in starts for days in (1, 40, 400)]
    skeletons = [skeleton for skeleton in _INTERVAL_SKELETONS if told(skeleton)]
    return _drawn(interval_text, _unambiguous(interval_text, skeletons, probes, source, target), _draw_ends)


def _with_words(forms: Iterable[tuple[str, str]], source: Locale, target: Locale) -> list[tuple[str, str]]:
    """Returns the forms for which both locales have words; Babel writes the unit's code otherwise."""
    places = [(locale, value) for locale in (source, target) for value in _COUNTS]
    return [form for form in forms if all(form[0] not in unit_text(form, v, locale) for locale, v in places)]


def _durations(source: Locale, target: Locale) -> Draw | None:
    lengths = []
    for length in ("long", "short"):
        forms = [(f"duration-{unit}", length) for unit in _LARGEST_PART]
        if _with_words(forms, source, target) == forms:
            lengths.append(length)
    probes = [[(unit, int(count))] for unit in _LARGEST_PART for count in _COUNTS]
    return _drawn(duration_text, _unambiguous(duration_text, lengths, probes, source, target), _draw_parts)


def _relative_times(source: Locale, target: Locale) -> Draw | None:
    forms = _unambiguous(relative_text, list(_LARGEST_PART), (-5, -2, -1, 1, 2, 5), source, target)
    return _drawn(relative_text, forms, lambda rng: rng.choice((1, -1)) * rng.randint(1, 199))


def _money(source: Locale, target: Locale) -> Draw | None:
    forms = [(currency, style) for currency in _CURRENCIES.split() for style in ("standard", "name")]
    forms = _unambiguous(money_text, forms, _COUNTS, source, target)
    return _drawn(money_text, forms, lambda rng: rng.choice(_SIGNS) * _draw_decimal(rng, 6, 2))


def _measurements(source: Locale, target: Locale) -> Draw | None:
    forms = _with_words([(u, length) for u in _UNITS.split() for length in ("long", "short")], source, target)
    forms = _unambiguous(unit_text, forms, [*_COUNTS, Decimal("0.5"), Decimal("1.5")], source, target)
    return _drawn(unit_text, forms, lambda rng: _draw_decimal(rng, 4, 2))


def _numbers(source: Locale, target: Locale) -> Draw | None:
    return _drawn(number_text, ["decimal"], lambda rng: rng.choice(_SIGNS) * _draw_decimal(rng, 8, 3))


def _percents(source: Locale, target: Locale) -> Draw | None:
    return _drawn(number_text, ["percent"], lambda rng: _draw_decimal(rng, 4, 2).scaleb(-2))


def _scientific(source: Locale, target: Locale) -> Draw | None:
    return _drawn(
        number_text, ["scientific"], lambda rng: _draw_decimal(rng, 4, 0).scaleb(rng.randint(-12, 12))
    )


def _compact(source: Locale, target: Locale) -> Draw | None:
    lengths = sorted(source.compact_decimal_formats.keys() & target.compact_decimal_formats.keys())
    return _drawn(compact_text, lengths, lambda rng: _draw_decimal(rng, 3, 0).scaleb(rng.randint(1, 11)))


def _name_lists(source: Locale, target: Locale) -> Draw | None:
    names = shared_names(source, target)
    tables = [[name for name in names if name[0] == table] for table in ("territories", "languages")]
    tables = [table for table in tables if len(table) >= 4]
    styles = ["standard", "or"] if tables else []
    return _drawn(names_text, styles, lambda rng: rng.sample(rng.choice(tables), rng.choice((2, 2, 3, 3, 4))))


# kind -> (weight, function of the two locales). Small kinds run dry sooner and come out rarer.
KINDS: Mapping[str, tuple[float, Kind]] = {
    "date": (18, _dates),
    "time": (6, _times),
    "datetime": (8, _datetimes),
    "interval": (6, _intervals),
    "duration": (10, _durations),
    "relative": (4, _relative_times),
    "money": (14, _money),
    "measurement": (12, _measurements),
    "number": (8, _numbers),
    "percent": (3, _percents),
    "scientific": (2, _scientific),
    "compact": (4, _compact),
    "names": (12, _name_lists),
}
