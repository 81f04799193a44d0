"""Summaries as files of lines: QMSum's meetings and SciTLDR's abstracts, and the lead baseline.

    python benchmarks/summaries.py qmsum DIR FOLDER       DIR/{train,val,test}.jsonl.gz -> FOLDER
    python benchmarks/summaries.py scitldr DIR FOLDER     DIR/{train,dev,test}.jsonl.gz -> FOLDER
    transformer evaluate --metric rouge --hypothesis FOLDER/lead.txt --reference FOLDER/test.target*

FOLDER gets train, dev and test with the endings .source and .target, a line each; where summaries of a
paper are several, .target.2 and so on have the others (the first one again where there are fewer).
lead.txt is a baseline for the test set.

A source of QMSum is the query and then the whole meeting, each turn after its speaker. Lead is the
first sentence of a SciTLDR abstract, and of a meeting as many words as summaries to train on have on
the mean, without the query.
"""

import argparse
import gzip
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPLITS = {"train": "train", "val": "dev", "dev": "dev", "test": "test"}
BREAK = " ||| "  # between the query and the meeting

Example = tuple[str, list[str], str]  # source, summaries, what lead takes words from


def line(text: str) -> str:
    """Returns the text with single spaces, on one line."""
    return " ".join(text.split())


def of_meeting(meeting: dict[str, Any]) -> Iterator[Example]:
    """Yields an example for each query of a meeting."""
    turns = line(" ".join(f"{t['speaker']}: {t['content']}" for t in meeting["meeting_transcripts"]))
    for query in (*meeting["general_query_list"], *meeting["specific_query_list"]):
        yield f"{line(query['query'])}{BREAK}{turns}", [line(query["answer"])], turns


def of_paper(paper: dict[str, Any]) -> Iterator[Example]:
    """Yields the one example of a paper."""
    yield line(" ".join(paper["source"])), [line(t) for t in paper["target"]], line(paper["source"][0])


KINDS = {"qmsum": of_meeting, "scitldr": of_paper}


def prepare(kind: str, source: Path, folder: Path) -> None:
    """Writes the files of all splits, and the lead baseline."""
    if not (source / "train.jsonl.gz").exists():
        raise SystemExit(f"{source}: has no train.jsonl.gz; expected it and those of the other sets")
    folder.mkdir(parents=True, exist_ok=True)
    words = 0
    for name, split in SPLITS.items():
        if not (file := source / f"{name}.jsonl.gz").exists():
            continue
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            examples = [example for text in lines for example in KINDS[kind](json.loads(text))]
        if split == "train":
            words = round(statistics.mean(len(targets[0].split()) for _, targets, _ in examples))
        write(folder / f"{split}.source", [source for source, _, _ in examples])
        for number in range(max(len(targets) for _, targets, _ in examples)):
            chosen = [targets[number if number < len(targets) else 0] for _, targets, _ in examples]
            write(folder / f"{split}.target{f'.{number + 1}' if number else ''}", chosen)
        if split == "test":
            cut = [text if kind == "scitldr" else " ".join(text.split()[:words]) for _, _, text in examples]
            write(folder / "lead.txt", cut)
        print(f"{split}: {len(examples):,} examples")


def write(file: Path, lines: list[str]) -> None:
    file.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")


def main() -> None:
    """Prepares one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("source", type=Path, metavar="DIR", help="the .jsonl.gz files")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the lines go")
    args = parser.parse_args()
    prepare(args.kind, args.source, args.folder)


if __name__ == "__main__":
    main()
