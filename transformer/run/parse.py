"""`transformer parse`: sentences to trees, and trees against gold trees."""

import argparse
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformer.errors import ConfigError, DataError
from transformer.io.progress import Pace
from transformer.io.standard_error import say
from transformer.io.text import check_output, count_lines, line_writer, read_lines, stream_blocks
from transformer.io.workdir import write_json
from transformer.metrics.brackets import Brackets, score_trees
from transformer.parsing.linear import Repairs, restore
from transformer.parsing.trees import Tree, escaped, read_tree, words_of

if TYPE_CHECKING:
    from transformer.inference.translator import Translator

_BLOCK = 256  # sentences that are sorted by length together
_ALL = "all"


def add_parse(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Adds the verb `parse`; returns its parser, which still lacks the options of model and search."""
    p = verbs.add_parser(
        "parse",
        help="sentences to constituency trees",
        description="Reads sentences from standard input, one a line, words separated by spaces, and "
        "writes a tree for each. With --gold the sentences are those of gold trees, and the score of the "
        "trees is printed: labelled brackets by EVALB's rules.",
        epilog="Each output is a tree over all words of its line. What had to be repaired for that is told "
        "on standard error; docs/parsing.md says how.",
    )
    p.add_argument("--input", metavar="FILE", help="sentences; default: standard input")
    p.add_argument("--output", metavar="FILE", help="trees; default: standard output, with --gold none")
    p.add_argument(
        "--gold", metavar="FILE", help="gold trees, one a line: parse their words and print scores"
    )
    p.add_argument("--hypothesis", metavar="FILE", help="trees to score against --gold; no model is needed")
    p.add_argument(
        "--ids", metavar="FILE", help="names of the gold trees, such as GUM_news_flag: a score a genre"
    )
    p.add_argument("--gold_tags", action="store_true", help="score trees with the tags of the gold ones")
    p.add_argument("--json", metavar="FILE", help="also write the scores there as JSON")
    return p


def parse(args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Does what the arguments of the verb say; `options` are those of the search.

    Raises:
      UserError: if the model, a file or an option cannot be used.
    """
    if args.gold:
        _score(args, options)
        return
    for name in ("hypothesis", "ids", "gold_tags", "json"):
        if getattr(args, name):
            raise ConfigError(f"--{name}: needs --gold, the file of gold trees")
    blocks = (list(map(_words, block)) for block in stream_blocks(args.input, _BLOCK))
    for _ in _parse(args, blocks, count_lines(args.input), options):
        pass


def parse_sentences(
    translator: "Translator", sentences: Sequence[Sequence[str]], **options: Any
) -> list[tuple[Tree, Repairs] | None]:
    """Returns the tree of each sentence with what was repaired in it; None for no words.

    Args:
      translator: of a model that was trained to write trees as symbols.
      sentences: words, without brackets in them (`escaped`) and without spaces.
      **options: as `Translator.translate` takes them.
    """
    outputs = translator.translate([" ".join(words) for words in sentences], **options)
    return [
        restore(output.split(), words) if words else None
        for output, words in zip(outputs, sentences, strict=True)
    ]


def _score(args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Scores the trees of a file, or of a model, against the gold trees."""
    if args.input:
        raise ConfigError("--input: with --gold the sentences are those of the gold trees; leave one out")
    golds = _read_trees(args.gold, traces=args.hypothesis is not None)
    if not golds:
        raise DataError(f"{args.gold}: has no trees to score against")
    genres = _genres(args.ids, args.gold, len(golds)) if args.ids else []
    check_output(args.json, [args.gold, args.ids, args.hypothesis])
    if args.hypothesis and args.output:
        raise ConfigError("--output: with --hypothesis nothing is parsed; leave one out")
    if args.hypothesis:
        trees = _read_trees(args.hypothesis)
        if len(trees) != len(golds):
            counts = f"{args.gold} has {len(golds):,} trees, {args.hypothesis} {len(trees):,}"
            raise DataError(f"{counts}; tree n of one is scored against tree n of the other")
    else:
        sentences = [gold.words for gold in golds]
        blocks = (sentences[first : first + _BLOCK] for first in range(0, len(sentences), _BLOCK))
        trees = [tree for tree in _parse(args, blocks, len(golds), options) if tree]
    _report(args, list(zip(golds, trees, strict=True)), genres)


def _words(line: str) -> list[str]:
    return list(map(escaped, words_of(line)))


def _parse(
    args: argparse.Namespace,
    blocks: Iterable[Sequence[Sequence[str]]],
    count: int | None,
    options: dict[str, Any],
) -> Iterator[Tree | None]:
    """Yields the trees of all sentences, each after it was written; tells of repairs at the end."""
    from transformer.inference.model_directory import load_model
    from transformer.inference.translator import Translator
    from transformer.run.translate import report_split

    if args.model is None:
        raise ConfigError("--model: is needed (a run's folder), or --gold and --hypothesis (files of trees)")
    loaded = load_model(args.model, args.checkpoint)
    if loaded.config.data.kind != "trees" or loaded.config.model.kind != "encoder_decoder":
        raise ConfigError(f"--model: {args.model} was not trained to write trees (config.data.kind=trees)")
    translator = Translator.of(loaded)
    translator.settings(1, options)  # what cannot be is said before a file is emptied
    pace, repaired, repairs = Pace("parsed", count, "sentences"), 0, Repairs()
    with line_writer(args.output, reading=[args.gold, args.input, args.ids]) as write:
        for block in blocks:
            found = parse_sentences(translator, block, first_line=pace.done, **options)
            if args.output or not args.gold:
                write([str(each[0]) if each else "" for each in found])
            needed = [each[1] for each in found if each and each[1] != Repairs()]
            repairs = functools.reduce(Repairs.plus, needed, repairs)
            repaired += len(needed)
            pace.add(len(block))
            yield from (each[0] if each else None for each in found)
    pace.progress.close()
    report_split(translator, pace.progress)
    trees = "tree" if repaired == 1 else "trees"
    pace.progress.note(f"{pace.done:,} sentences parsed, {repaired:,} {trees} repaired: {repairs}")


def _read_trees(path: str, traces: bool = True) -> list[Tree]:
    return [read_tree(line, f"{path}: line {n}", traces) for n, line in enumerate(read_lines(path), start=1)]


def _genres(path: str, gold: str, count: int) -> list[str]:
    """Returns the genre of each tree: the second part of its name."""
    genres = []
    for n, line in enumerate(read_lines(path), start=1):
        parts = line.split("_")
        if len(parts) < 3:
            name = "a name whose second part is the genre, such as GUM_news_flag"
            raise DataError(f"{path}: line {n}: got {line[:40]!r}, expected {name}")
        genres.append(parts[1])
    if len(genres) != count:
        raise DataError(
            f"{path} has {len(genres):,} lines, {gold} {count:,}; line n of one names tree n of the other"
        )
    return genres


def _report(args: argparse.Namespace, pairs: Sequence[tuple[Tree, Tree]], genres: Sequence[str]) -> None:
    """Prints the scores, of each genre and of all, and writes them as JSON if asked."""
    scores = {}
    for name in sorted(set(genres)):
        chosen = (pair for pair, genre in zip(pairs, genres, strict=True) if genre == name)
        scores[name] = score_trees(chosen, args.gold_tags)
    scores[_ALL] = found = score_trees(pairs, args.gold_tags)
    for line in _table(scores):
        print(line)
    if args.json:
        write_json(Path(args.json), {name: s._asdict() | _percentages(s) for name, s in scores.items()})
    if found.errors:
        remedy = "" if args.gold_tags else ", or other punctuation, which --gold_tags mends"
        note = f"warning: {found.errors:,} trees count nowhere: they have other words than the gold ones"
        say(note + remedy)


def _percentages(found: Brackets) -> dict[str, float]:
    names = ("f1", "precision", "recall", "complete_match", "tagging_accuracy")
    return {name: getattr(found, name) for name in names}


def _table(scores: Mapping[str, Brackets]) -> Iterator[str]:
    """Yields the lines of a table."""
    counts, widest = ("sentences", "errors", "skipped"), max(map(len, scores))
    heads = [*counts, *_percentages(scores[_ALL])]
    yield "  ".join(["".ljust(widest), *heads])
    for name, found in scores.items():
        cells = [f"{getattr(found, count):,}" for count in counts]
        cells += [f"{value:.2f}" for value in _percentages(found).values()]
        yield "  ".join([name.ljust(widest), *(c.rjust(len(h)) for c, h in zip(cells, heads, strict=True))])
