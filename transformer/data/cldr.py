"""The built-in corpus: real localisation data of the Unicode CLDR, rendered in two locales by Babel.

Every pair is one value written in the source locale and in the target locale. The kinds and their
weights are in `cldr_kinds.KINDS`; an example of each, en -> de (no-break spaces are shown as plain
ones here, but kept in the corpus):

    date         Wednesday, March 5, 1997          Mittwoch, 5. März 1997
    time         3:07:09 PM                        15:07:09
    datetime     Mar 5, 1997, 3:07:09 PM           05.03.1997, 15:07:09
    interval     Mar 5 – 11, 1997                  5.–11. März 1997
    duration     2 days, 3 hours, and 1 minute     2 Tage, 3 Stunden und 1 Minute
    relative     3 days ago                        vor 3 Tagen
    money        $1,234.50                         1.234,50 $
    measurement  12.5 kilometers per hour          12,5 Kilometer pro Stunde
    number       -1,234.567                        -1.234,567
    percent      12.5%                             12,5 %
    scientific   1.23E5                            1,23E5
    compact      1.2 million                       1,2 Millionen
    names        France, Japan, and Peru           Frankreich, Japan und Peru

Besides, the train split holds each name on its own once ("France", "Frankreich"): a name cannot be
translated before it was seen, so dev and test hold no single names.

Source: Unicode CLDR (https://cldr.unicode.org) in the version that the installed Babel brings;
another version of Babel may write some lines differently.
"""

from random import Random

from babel import Locale, UnknownLocaleError, parse_locale
from babel.localedata import locale_identifiers

from transformer.data.cldr_kinds import KINDS, name_text, shared_names
from transformer.errors import ConfigError, did_you_mean

HELD_OUT = 1000  # lines of dev, and of test
MAX_PAIRS = 1_000_000  # a minute of work; larger corpora are better made of real text


def generate(
    source_locale: str, target_locale: str, num_pairs: int, seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Generates the corpus; equal arguments give equal lines.

    No source line occurs twice, in one split or in two, and each tells all that its target says.

    Args:
      source_locale: identifier that Babel knows, for example "en", "pt_BR" or "zh_Hant".
      target_locale: the same.
      num_pairs: pairs of the train split, 1 to `MAX_PAIRS`.
      seed: of the values and of the order.

    Returns:
      {"train": num_pairs pairs, "dev": 1000, "test": 1000}; a pair is (source line, target line).

    Raises:
      ConfigError: a locale is unknown, or the two locales have too few distinct lines.
    """
    source, target = _locale("source_language", source_locale), _locale("target_language", target_locale)
    if not 1 <= num_pairs <= MAX_PAIRS:
        raise ConfigError(f"config.data.cldr_pairs: expected 1 to {MAX_PAIRS:,} pairs, got {num_pairs:,}")
    rng = Random(seed)
    names = [(name_text(name, source), name_text(name, target)) for name in shared_names(source, target)]
    rng.shuffle(names)
    names = names[: num_pairs // 10]  # a small corpus is not to be names alone
    wanted = num_pairs - len(names) + 2 * HELD_OUT
    pairs = _distinct_pairs(source, target, wanted, {line for line, _ in names}, rng)
    rng.shuffle(pairs)  # late draws hold fewer lines of the small kinds than early ones
    train = names + pairs[2 * HELD_OUT :]
    rng.shuffle(train)
    return {"train": train, "dev": pairs[:HELD_OUT], "test": pairs[HELD_OUT : 2 * HELD_OUT]}


def _locale(key: str, name: str) -> Locale:
    """Returns Babel's locale of the identifier in config.data.`key`."""
    try:
        _, territory, script, *_ = parse_locale(name.replace("-", "_"))
        locale = Locale.parse(name.replace("-", "_"))
        # Babel takes the nearest locale for a territory or script that it does not know.
        if territory in (None, locale.territory) and script in (None, locale.script):
            return locale
    except (ValueError, UnknownLocaleError):
        pass  # reported below with the other unknown ones
    known = locale_identifiers()  # over a thousand: name only those of the language, if any
    kin = [k for k in known if k[:2] == name[:2].lower()] or [k for k in known if len(k) == 2]
    raise ConfigError(f"config.data.{key}: Babel knows no locale {name!r}{did_you_mean(name, kin)}")


def _distinct_pairs(
    source: Locale, target: Locale, wanted: int, taken: set[str], rng: Random
) -> list[tuple[str, str]]:
    """Draws `wanted` pairs with distinct source lines outside `taken`."""
    kinds = [(weight, kind(source, target)) for weight, kind in KINDS.values()]
    draws = [draw for _, draw in kinds if draw]
    weights = [weight for weight, draw in kinds if draw]
    pairs: dict[str, str] = {}
    unusable = set(taken)
    for _ in range(10 * HELD_OUT + 3 * wanted):
        render = rng.choices(draws, weights)[0](rng)
        line = render(source)
        if line in unusable:
            continue
        translation = render(target)
        if pairs.setdefault(line, translation) != translation:  # an ambiguous line helps nobody
            del pairs[line]
            unusable.add(line)
        elif len(pairs) == wanted:
            return list(pairs.items())
    raise ConfigError(
        f"config.data.cldr_pairs: {source} -> {target} has not enough distinct lines: needed {wanted:,} "
        f"with dev and test, found {len(pairs):,}; ask for fewer pairs or take real text (data.kind='text')"
    )
