"""`transformer classify`: labels for lines of text, or for their words."""

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from transformer.errors import ConfigError
from transformer.io.progress import Pace, Progress
from transformer.io.text import count_lines, line_writer, stream_blocks

if TYPE_CHECKING:
    from transformer.inference.classifier import Classifier

_BLOCK = 2048  # lines that are sorted by length together


def add_classify(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Adds the verb `classify`; returns its parser, which still lacks the options of the model."""
    p = verbs.add_parser(
        "classify",
        help="labels for lines of text, or for their words",
        description="Reads lines from standard input and writes for each its label, a tab and the label's "
        "probability; or, if the model labels words, the labels of all its words, a tab and their "
        "probabilities, separated by spaces. An empty line stays empty.",
    )
    p.add_argument("--input", metavar="FILE", help="text; default: standard input")
    p.add_argument("--output", metavar="FILE", help="default: standard output")
    p.add_argument("--n_best", type=int, default=1, metavar="N", help="of a line: its N likeliest labels")
    p.add_argument("--batch_size", type=int, metavar="N", help="lines read together")
    return p


def classify(args: argparse.Namespace) -> None:
    """Does what the arguments of the verb say.

    Raises:
      UserError: if the model, a file or an option cannot be used.
    """
    from transformer.inference.classifier import Classifier

    classifier = Classifier.load(args.model, args.checkpoint)
    if args.n_best != 1 and classifier.labels == "word":
        raise ConfigError("--n_best: this model labels words, each of which has one; leave it out")
    options = {} if args.batch_size is None else {"batch_size": args.batch_size}
    pace = Pace("classified", count_lines(args.input))
    with line_writer(args.output, reading=[args.input]) as write:
        for block in stream_blocks(args.input, _BLOCK):
            answers = classifier.n_best(block, args.n_best, first_line=pace.done, **options)
            if classifier.labels == "word":  # all labels, then all probabilities
                rows = (zip(*(best[0] for best in line), strict=True) for line in answers)
                cells = [[" ".join(_texts(column)) for column in row] for row in rows]
            else:
                cells = [list(_texts(x for best in line for pair in best for x in pair)) for line in answers]
            write(["\t".join(row) for row in cells])
            pace.add(len(block))
    pace.progress.close()
    report_cut(classifier, pace.progress)


def report_cut(classifier: "Classifier", progress: Progress) -> None:
    """Warns of the lines that had to be read in parts, if there were any."""
    if classifier.num_cut:
        progress.note(
            f"warning: {classifier.num_cut:,} lines were longer than the model was trained for "
            f"(model.max_length {classifier.max_length} tokens); they were read in parts, cut between words"
        )


def _texts(cells: Iterable[str | float]) -> Iterator[str]:
    return (cell if isinstance(cell, str) else f"{cell:.4f}" for cell in cells)
