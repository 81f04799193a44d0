"""Long files translated in portions: one of several shards, continued where an earlier command stopped."""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformer.errors import ConfigError, DataError
from transformer.io.text import check_output, is_stream, stream_blocks
from transformer.io.workdir import write_json

EVERY = 1 << 62  # lines: all of a stream, however many those are

Read = Callable[[str | None, int], Iterator[list[Any]]]  # (file, size) -> lists of its lines, or of frames


def shard_lines(source: str | None, shard: str | None, read: Read = stream_blocks) -> range:
    """Returns the numbers of the lines of a shard "I/N" of a file, from 0: N parts of like length, in order.

    Args:
      source: the file, or a stream.
      shard: which; None: all.
      read: the file.

    Returns:
      Their range, which of a stream ends with `EVERY`.

    Raises:
      ConfigError: if `shard` cannot be read, or is of a stream.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", "1/1" if shard is None else shard)
    index, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= index <= parts:
        raise ConfigError(f"--shard: {shard}: expected I/N with I from 1 to N, for example 2/8")
    if is_stream(source):
        if shard is not None:
            raise ConfigError("--shard: needs --input, a file: its lines are counted first")
        return range(EVERY)
    count = sum(map(len, read(source, 4096)))
    return range(count * (index - 1) // parts, count * index // parts)


def blocks_of(source: str | None, lines: range, size: int, read: Read = stream_blocks) -> Iterator[list[Any]]:
    """Yields the lines with these numbers in lists of at most `size`, each as soon as it is there."""
    number = 0
    for block in read(source, size):
        chosen = block[max(lines.start - number, 0) : max(lines.stop - number, 0)]
        number += len(block)
        if chosen:
            yield chosen
        if number >= lines.stop:
            return


def continue_output(source: str | None, output: str | None, numbered: bool, maker: Mapping[str, Any]) -> int:
    """Makes an output ready to be continued, and returns how many of its input lines are done.

    What makes the outputs is kept beside them, in `<output>.json`; half a line at the end is cut off.

    Args:
      source: the input file.
      output: the output file; may not exist yet.
      numbered: whether each output line begins with the number of its input line, of which there may be
        several; else each has one.
      maker: all that outputs depend on besides the input, as JSON values.

    Raises:
      ConfigError: if one of the files is a stream.
      DataError: if the output cannot be written, or was made of another input, by another model, or with
        other options.
    """
    if source is None or output is None or is_stream(source):
        raise ConfigError("--resume: needs --input and --output, two files")
    check_output(output, [source])
    with open(source, "rb") as file:
        wanted = {"input": hashlib.file_digest(file, "sha256").hexdigest(), **maker}
    record, path = Path(output + ".json"), Path(output)
    if not path.exists():
        write_json(record, wanted)
        return 0
    try:
        had = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{output}: exists, and {record} does not: it was not begun with --resume; "
            "remove it, or choose another --output"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{record}: cannot be read: {error}; remove it and {output}") from None
    if had != wanted:
        keys = [key for key in wanted if not isinstance(had, dict) or had.get(key) != wanted[key]]
        raise DataError(
            f"{output}: was begun with another {', '.join(keys)}; remove it, or choose another --output"
        )
    return _cut(path, numbered)


def _cut(path: Path, numbered: bool) -> int:
    """Cuts off what is not the whole output of an input line; returns the number of those that are whole."""
    done = whole = size = 0
    last = None
    with path.open("r+b") as file:
        for line in itertools.takewhile(lambda line: line.endswith(b"\n"), file):
            if numbered and (number := line.partition(b"\t")[0]) != last:
                # More of an input line's outputs might have come until those of the next begin.
                done, whole, last = done + (last is not None), size, number
            size += len(line)
            if not numbered:
                done, whole = done + 1, size
        file.truncate(whole)
    return done
