"""Text through a model: translate and score files or streams."""

import dataclasses
from functools import partial
from typing import Any

from transformer.config_mapping import replace_decode
from transformer.errors import DataError
from transformer.inference.model_directory import load_model
from transformer.inference.scorer import Likelihood, Scorer
from transformer.inference.translator import Translator
from transformer.io.digests import digest_arrays
from transformer.io.progress import Pace, Progress
from transformer.io.standard_error import say
from transformer.io.text import line_writer, read_lines
from transformer.paths import by_path
from transformer.run.portions import EVERY, blocks_of, continue_output, shard_lines
from transformer.run.sources import digest_beside, read_sources, source_blocks

_BLOCK = 2048  # lines that are sorted by length together


def translate(
    model: str,
    checkpoint: str,
    source: str | None,
    output: str | None,
    n_best: int | None,
    options: dict[str, Any],
    shard: str | None = None,
    resume: bool = False,
) -> None:
    """Translates a file or standard input, line by line, in order, or goes on with its lines.

    What is true of lines is true of samples, where the model reads frames.

    Args:
      model: folder of a run.
      checkpoint: "best", "last" or a step.
      source: input file; None: standard input.
      output: output file; None: standard output.
      n_best: outputs for each line, written with line number and scores; None: the best, alone.
      options: search options to change.
      shard: "I/N": only the I-th of N parts of the input; None: all of it.
      resume: continue an output that the same command began.

    Raises:
      UserError: if the model, the input or an option cannot be used.
    """
    loaded = load_model(model, checkpoint)
    translator = Translator.of(loaded)
    read = partial(source_blocks, loaded=loaded)
    lines, done = shard_lines(source, shard, read), 0
    if resume:
        search = dataclasses.asdict(replace_decode(loaded.config.decode, options)) | {"batch_size": 0}
        digest = digest_arrays(by_path(loaded.params))
        maker = {"model": digest, "search": search, "shard": shard, "n_best": n_best}
        maker |= digest_beside(source, loaded)
        done = continue_output(source, output, n_best is not None, maker)
        say(f"{output}: {done:,} lines are done already")
    done += lines.start
    unit = "samples" if loaded.config.model.source_features else "lines"
    pace = Pace("translated", None if lines.stop == EVERY else lines.stop - done, unit)
    count = 1 if n_best is None else n_best
    translator.settings(count, options)  # what cannot be is said before a file is emptied
    with line_writer(output, append=resume, reading=[source]) as write:
        for block in blocks_of(source, range(done, lines.stop), _BLOCK, read):
            found = translator.translate_n_best(block, count, first_line=done, **options)
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
            pace.add(len(block))
    pace.progress.close()
    report_split(translator, pace.progress)


def report_split(translator: Translator, progress: Progress) -> None:
    """Warns of the lines that had to be split, if there were any."""
    if translator.num_split:
        progress.note(
            f"warning: {translator.num_split:,} lines were longer than the model was trained for "
            f"(model.max_length {translator.max_length} tokens); they were split, text at sentence ends, and "
            "joined"
        )


def score_files(
    model: str, checkpoint: str, source: str | None, target: str, output: str | None, length_penalty: float
) -> None:
    """Writes the log-probability of each pair of lines of two files, and tells of the perplexity.

    A language model of text alone has no source.

    Raises:
      UserError: if the model or a file cannot be used, or the numbers of lines differ.
    """
    loaded, targets = load_model(model, checkpoint), read_lines(target)
    sources = None if source is None else read_sources(source, loaded)
    if sources is not None and len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources):,} lines, {target} {len(targets):,}; pair n is line n of both"
        )
    scorer = Scorer.of(loaded)
    pace = Pace("scored", len(targets))
    likelihood = Likelihood(0.0, 0, 0)
    with line_writer(output, reading=[source, target]) as write:
        for first in range(0, len(targets), _BLOCK):
            block = slice(first, first + _BLOCK)
            read = None if sources is None else sources[block]
            scores = scorer.score(read, targets[block], length_penalty=length_penalty, first_line=first)
            write([f"{s:.6f}" for s in scores])
            likelihood = likelihood.plus(scorer.likelihood(scores, targets[block]))
            pace.add(len(scores))
    pace.progress.close()
    if not length_penalty:
        pace.progress.note(str(likelihood))
