"""`transformer explain`: what learners ask about the paper, answered by a model of their own."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from transformer.errors import ConfigError, DataError
from transformer.questions.texts import LANGUAGES

if TYPE_CHECKING:
    from transformer.inference.model_directory import LoadedModel

Ids = tuple[list[int], list[int]]

_QUESTIONS = 19
_LEAST = 2  # lines: some experiments exchange sources


def add_explain(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `explain`."""
    p = verbs.add_parser(
        "explain",
        help="nineteen questions about the Transformer, answered by your model",
        description="Answers what learners ask about the paper: a short text, and an experiment that is run "
        "on the model, with lines of its dev set.",
    )
    p.add_argument("--model", required=True, metavar="DIR", help="folder of a run or an averaged model")
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), last, or a step")
    p.add_argument("--question", type=int, nargs="+", metavar="N", help="1 to 19; default: all")
    p.add_argument("--language", choices=LANGUAGES, default="en", help="of the texts (default en)")
    p.add_argument("--source", metavar="FILE", help="other source text, for models without a dev set")
    p.add_argument("--target", metavar="FILE", help="its translations, line by line")
    p.add_argument(
        "--lines",
        type=int,
        default=32,
        metavar="N",
        help="pairs to use: the first of at most model.max_length tokens (default 32)",
    )
    p.add_argument(
        "--output", metavar="FILE", help="also write a page (.html, all languages) or Markdown (.md)"
    )
    p.set_defaults(run=explain)


def explain(args: argparse.Namespace) -> None:
    """Does what the arguments of the verb say.

    Raises:
      UserError: if the model, the lines or an option cannot be used.
    """
    numbers = _numbers(args.question)
    if args.lines < _LEAST:
        raise ConfigError(
            f"--lines: expected {_LEAST} or more, since sources are exchanged, got {args.lines}"
        )
    if args.output and Path(args.output).suffix not in (".html", ".md"):
        raise ConfigError(f"--output: {args.output}: expected a name that ends in .html or .md")
    if (args.source is None) != (args.target is None):
        raise ConfigError("--source and --target: give both, the text and its translation, or neither")

    from transformer.inference.model_directory import check_kind, check_reads_text, load_model
    from transformer.io.workdir import write_text
    from transformer.questions.experiments import EXPERIMENTS
    from transformer.questions.page import heading, markdown, page, plain
    from transformer.questions.subject import Subject

    loaded = load_model(args.model, args.checkpoint)
    check_kind(loaded.config.model, "encoder_decoder")
    check_reads_text(loaded.config.model)
    pairs = _pairs(args, loaded)
    found = {}
    subject = Subject.of(loaded, pairs)
    facts: dict[str, str | int] = {
        "model": Path(args.model).resolve().name,
        "step": loaded.step,
        "pairs": len(pairs),
    }
    if subject.recurs:
        facts["layers"] = "recur"
    print(heading(facts, args.language), end="\n\n")
    for number in numbers:
        found[number] = EXPERIMENTS[number](subject)
        print(plain(number, found[number], args.language), flush=True)
    if args.output:
        write = page if args.output.endswith(".html") else markdown
        write_text(Path(args.output), write(found, facts, args.language))


def _numbers(given: list[int] | None) -> list[int]:
    numbers = sorted(set(given or range(1, _QUESTIONS + 1)))
    for number in numbers:
        if not 1 <= number <= _QUESTIONS:
            raise ConfigError(f"--question: expected numbers from 1 to {_QUESTIONS}, got {number}")
    return numbers


def _pairs(args: argparse.Namespace, loaded: "LoadedModel") -> list[Ids]:
    """Returns the ids of the first pairs, as many as wanted, that the model was trained to read.

    Raises:
      ConfigError: if there is no text to take.
      DataError: if too few pairs can be used.
    """
    longest, tokenizer = loaded.config.model.max_length, loaded.tokenizer
    found: list[Ids] = []
    for source, target in _text(args, loaded):
        ids = tokenizer.encode_source([source])[0], tokenizer.encode_target([target])[0]
        if source.strip() and target.strip() and max(map(len, ids)) <= longest:
            found.append(ids)
            if len(found) == args.lines:
                break
    if len(found) < _LEAST:
        raise DataError(
            f"{args.source or 'the dev set'}: has {len(found)} pairs of lines that are not empty and have at "
            f"most {longest} tokens (model.max_length), {_LEAST} are needed; give others with "
            "--source and --target"
        )
    return found


def _text(args: argparse.Namespace, loaded: "LoadedModel") -> Iterator[tuple[str, str]]:
    from transformer.data.corpus import open_corpora
    from transformer.io.text import read_lines
    from transformer.io.workdir import Workdir

    if args.source is not None:
        sources, targets = read_lines(args.source), read_lines(args.target)
        if len(sources) != len(targets):
            raise DataError(f"{args.source} has {len(sources):,} lines, {args.target} {len(targets):,}")
        yield from zip(sources, targets, strict=True)
        return
    corpora = open_corpora(loaded.config.data, "dev", Workdir(args.model).data)
    if not corpora:
        raise ConfigError("--source: the run has no dev set; give --source and --target, two files")
    for corpus in corpora:
        yield from (pair for pair in corpus if pair is not None)
