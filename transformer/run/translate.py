"""Text through a model: translate and score files or streams."""

import time
from typing import Any

from transformer.errors import DataError
from transformer.inference.scorer import Scorer
from transformer.inference.translator import Translator
from transformer.io.progress import Progress
from transformer.io.text import line_writer, read_lines, stream_blocks

_BLOCK = 2048  # lines that are sorted by length together


def translate(
    model: str,
    checkpoint: str,
    source: str | None,
    output: str | None,
    n_best: int | None,
    options: dict[str, Any],
) -> None:
    """Translates a file or standard input, line by line, in order.

    Args:
      model: folder of a run.
      checkpoint: "best", "last" or a step.
      source: input file; None: standard input.
      output: output file; None: standard output.
      n_best: outputs for each line, written with line number and scores; None: the best, alone.
      options: search options to change.

    Raises:
      UserError: if the model, the input or an option cannot be used.
    """
    translator = Translator.load(model, checkpoint)
    progress = Progress(None, time.monotonic)
    start, done = time.monotonic(), 0
    with line_writer(output) as write:
        for block in stream_blocks(source, _BLOCK):
            found = translator.translate_n_best(block, n_best or 1, first_line=done, **options)
            if n_best is None:
                write([best[0].text for best in found])
            else:
                write(
                    [
                        f"{done + i}\t{t.score:.6f}\t{t.log_prob:.6f}\t{t.text}"
                        for i, best in enumerate(found, 1)
                        for t in best
                    ]
                )
            done += len(block)
            progress.show(f"translated {done:,} lines  {done / (time.monotonic() - start):,.1f} lines/s")
    progress.close()
    report_split(translator, progress)


def report_split(translator: Translator, progress: Progress) -> None:
    """Warns of the lines that had to be split, if there were any."""
    if translator.num_split:
        progress.note(
            f"warning: {translator.num_split:,} lines were longer than the model was trained for "
            f"(model.max_length {translator.max_length} tokens); they were split at sentence ends and joined"
        )


def score_files(
    model: str, checkpoint: str, source: str, target: str, output: str | None, length_penalty: float
) -> None:
    """Writes the log-probability of each pair of lines of two files.

    Raises:
      UserError: if the model or a file cannot be used, or the numbers of lines differ.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources):,} lines, {target} {len(targets):,}; pair n is line n of both"
        )
    scorer = Scorer.load(model, checkpoint)
    progress = Progress(None, time.monotonic)
    with line_writer(output) as write:
        for first in range(0, len(sources), _BLOCK):
            block = slice(first, first + _BLOCK)
            scores = scorer.score(sources[block], targets[block], length_penalty=length_penalty)
            write([f"{s:.6f}" for s in scores])
            progress.show(f"scored {first + len(scores):,} of {len(sources):,} pairs")
    progress.close()
