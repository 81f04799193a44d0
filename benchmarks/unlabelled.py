"""Sentences without trees, for configs/gum_parsing_semi.py: speech, abstracts, and everyday sentences.

    pip install -e '.[rouge]'        # brings NLTK
    python benchmarks/unlabelled.py FOLDER > data/gum-const/unlabelled

FOLDER holds what configs/qmsum.py, configs/scitldr.py and configs/tatoeba_en_de.py say of their data, as
qmsum/train.jsonl.gz, scitldr-abstract/train.jsonl.gz and tatoeba-en-de/train.en.gz. Of each, COUNT different
sentences of 3 to 40 words are drawn, the same ones at each call; then all are shuffled.

Words and punctuation are set apart as in GUM's trees: NLTK's rules of the Penn Treebank, hyphens by
themselves, quotation marks and brackets as they are. In meetings marks of noises ({disfmarker}) are taken
out.
"""

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from nltk.tokenize import NLTKWordTokenizer

COUNT = 3_500  # sentences of each text
WORDS = range(3, 41)
NOISE = re.compile(r"\{[^}]*\}")
AFTER_SENTENCE = re.compile(r"(?<= [.?!]) ")
HYPHEN = re.compile(r"(?<=\w)-(?=\w)")


def words(text: str) -> str:
    """Returns the words of a sentence, separated by spaces."""
    spans = NLTKWordTokenizer().span_tokenize(text)
    return " ".join(HYPHEN.sub(" - ", text[start:end]) for start, end in spans)


def of_meetings(file: Path) -> Iterator[str]:
    """Yields the sentences said in QMSum's meetings."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            for turn in json.loads(line)["meeting_transcripts"]:
                said = " ".join(NOISE.sub(" ", turn["content"]).split())
                yield from map(words, AFTER_SENTENCE.split(said))


def of_abstracts(file: Path) -> Iterator[str]:
    """Yields the sentences of SciTLDR's abstracts."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield from map(words, json.loads(line)["source"])


def of_lines(file: Path) -> Iterator[str]:
    """Yields lines, of which each is a sentence."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(words, lines)


def main() -> None:
    """Prints the sentences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the three texts")
    folder = parser.parse_args().folder
    texts = {
        folder / "qmsum" / "train.jsonl.gz": of_meetings,
        folder / "scitldr-abstract" / "train.jsonl.gz": of_abstracts,
        folder / "tatoeba-en-de" / "train.en.gz": of_lines,
    }
    if missing := [str(file) for file in texts if not file.exists()]:
        raise SystemExit(f"{', '.join(missing)}: no such file")
    draw = random.Random(0)
    chosen: list[str] = []
    for file, sentences in texts.items():
        kept = dict.fromkeys(text for text in sentences(file) if len(text.split()) in WORDS)
        chosen += draw.sample(list(kept), COUNT)
    draw.shuffle(chosen)
    print("\n".join(chosen))


if __name__ == "__main__":
    main()
