"""Scores of an encoder alone on a test set: how many labels are right, or how well it finds masked pieces."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from transformer.data.corpus import Split, open_corpora
from transformer.data.encoded import encode_corpus
from transformer.data.labels import names_of
from transformer.errors import ConfigError, DataError
from transformer.inference.classifier import Classifier
from transformer.inference.model_directory import LoadedModel
from transformer.io.progress import Pace, Progress
from transformer.run.classify import report_cut
from transformer.run.dev import token_scores
from transformer.run.prepare import describe
from transformer.steps.train_step import eval_step

_BLOCK = 2048  # lines that are sorted by length together


def score_labels(
    loaded: LoadedModel, name: str, lines: Sequence[str], gold: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Labels the lines of a test set, prints how many labels are right, and returns (that, lines of labels).

    Args:
      loaded: a classifier.
      name: of the set.
      lines: its text.
      gold: a line of labels for each; one that training had not is never found, and a line without text or
        without labels is left out, as in training.

    Raises:
      DataError: if a line has not a label for each word.
    """
    classifier, pace, found = Classifier.of(loaded), Pace("classified", len(lines)), []
    for first in range(0, len(lines), _BLOCK):
        answers = classifier.classify(lines[first : first + _BLOCK], first_line=first)
        found += [[answer.label for answer in line] for line in answers]
        pace.add(len(answers))
    pace.progress.close()
    report_cut(classifier, pace.progress)
    right = count = empty = 0
    for number, (labels, text) in enumerate(zip(found, gold, strict=True), 1):
        names = names_of(text, classifier.labels) if text.strip() else []
        if not (names and labels):
            empty += 1
            continue
        if len(names) != len(labels):
            raise DataError(
                f"{name}: line {number}: {len(names)} labels for {len(labels)} words; make them equal"
            )
        right, count = right + sum(map(str.__eq__, names, labels)), count + len(names)
    if not count:
        raise DataError(f"{name}: has no labels to score")
    if empty:
        pace.progress.note(f"{name}: left out: {empty:,} lines without text or without labels")
    scores = {"accuracy": 100 * right / count, "labels": count, "lines": len(lines) - empty}
    print(f"{name}: {len(lines) - empty:,} lines")
    print(f"accuracy {scores['accuracy']:.2f} %  ({right:,} of {count:,} labels)", flush=True)
    return scores, [" ".join(labels) for labels in found]


def score_masked(args: argparse.Namespace, loaded: LoadedModel, cache: Path) -> dict[str, dict[str, Any]]:
    """Prints how well a model finds masked pieces of the run's own test or dev sets, and returns it by set.

    What is read of them is kept in the folder `cache`.

    Raises:
      ConfigError: if there is no such set, or an option asks for something else.
    """
    for option in ("source", "reference", "output"):
        if getattr(args, option):
            raise ConfigError(
                f"--{option}: a masked language model is scored on its run's own sets; leave it out"
            )
    split: Split = args.split
    config, results = loaded.config, {}
    step = partial(jax.jit(partial(eval_step, model=loaded.model, config=config)), loaded.params)
    progress = Progress()
    corpora = open_corpora(config.data, split, cache, alone=True)
    if not corpora:
        raise ConfigError(f"config.data.{split}_source: the run has no {split} set")
    for i, corpus in enumerate(corpora):
        encoded = encode_corpus(corpus, loaded.tokenizer, config, cache / f"{split}-{i}", progress.note)
        progress.note(describe(f"{split} {corpus.name}", encoded.counts))
        scores: dict[str, Any] = token_scores(step, [encoded], loaded.tokenizer, config)
        if not scores:
            raise DataError(f"{corpus.name}: has no pieces to mask")
        results[corpus.name] = scores
        told = "  ".join(f"{key} {value:.4f}" for key, value in scores.items())
        print(f"{corpus.name}: {len(encoded):,} lines\n{told}", flush=True)
    return results
