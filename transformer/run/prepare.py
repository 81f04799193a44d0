"""From the configuration's data to encoded pairs and a tokenizer in the workdir."""

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from transformer.config import Config
from transformer.data.corpus import Corpus, Split, check_unchanged, open_corpora
from transformer.data.encoded import Counts, EncodedCorpus, encode_corpus, left_out
from transformer.data.labels import names_of
from transformer.data.pairs import Pair
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.searching import trees_of
from transformer.io.standard_error import say
from transformer.io.workdir import Workdir, write_json
from transformer.run.initial import base_tokenizer

Note = Callable[[str], None]


class PreparedData(NamedTuple):
    """Everything that training reads.

    Attributes:
      tokenizer: of both sides.
      train: encoded training pairs, one for each corpus.
      weights: their shares, or None to take each as often as it is long.
      dev: encoded dev pairs.
      dev_pairs: the same as text (sources may be frames), first `run.eval_lines` only, none left out for
        its length.
      counts: by "split corpus" what was read, kept and left out by cause.
    """

    tokenizer: Tokenizer
    train: list[EncodedCorpus]
    weights: list[float] | None
    dev: list[EncodedCorpus]
    dev_pairs: list[Pair]
    counts: dict[str, Counts]


def prepare_data(
    config: Config, workdir: Workdir, note: Note, check: Callable[[Tokenizer], None] = lambda tokenizer: None
) -> PreparedData:
    """Opens, checks, encodes and counts the training and dev data; trains the tokenizer if there is none.

    Args:
      config: the run.
      workdir: its folder.
      note: takes lines for the user.
      check: refuses a tokenizer, before it is saved.

    Raises:
      ConfigError: if there is no dev set to be patient with.
      DataError: if a file is missing, damaged or changed since the run began, if the tokenizer is
        damaged or of another size, or if no pair is left to train on, or of a dev set to score.
    """
    train = open_corpora(config.data, "train", workdir.data, config.is_masked)
    dev = open_corpora(config.data, "dev", workdir.data, config.is_masked)
    if config.run.patience and not dev:
        raise ConfigError(
            "config.run.patience: there is no dev set to watch; name or hold out one, or set it to 0"
        )
    _check_files(workdir, train, dev)
    tokenizer, is_new = _tokenizer(config, workdir, train, note), not Tokenizer.exists(workdir.tokenizer)
    if is_new or not workdir.config_file.exists():  # a tokenizer from elsewhere may have other labels
        tokenizer, is_new = tokenizer.with_labels(_labels(config, train, tokenizer, note)), True
    counts: dict[str, Counts] = {}

    def encode(split: Split, corpora: Sequence[Corpus]) -> list[EncodedCorpus]:
        encoded = []
        for i, corpus in enumerate(corpora):
            part = encode_corpus(corpus, tokenizer, config, workdir.data / f"{split}-{i}", note)
            name = f"{split} {corpus.name}"
            counts[f"{name} ({i + 1})" if name in counts else name] = part.counts
            note(describe(f"{split} {corpus.name}", part.counts))
            encoded.append(part)
        return encoded

    encoded_train, encoded_dev = encode("train", train), encode("dev", dev)
    weights = [c.weight for c in train if c.weight is not None]
    shares = weights or [1.0] * len(train)
    if not any(share * len(part) for share, part in zip(shares, encoded_train, strict=True)):
        names = ", ".join(c.name for c in train)
        causes = "; ".join(left_out(c.counts) for c in encoded_train)
        raise DataError(f"{names}: no usable line to train on (left out: {causes})")
    if dev and not any(map(len, encoded_dev)):
        names, causes = ", ".join(c.name for c in dev), "; ".join(left_out(c.counts) for c in encoded_dev)
        raise DataError(f"{names}: no usable line to score the model on (left out: {causes})")
    check(tokenizer)
    if is_new:  # an attempt that fails above leaves none to the next one
        tokenizer.save(workdir.tokenizer)
    return PreparedData(
        tokenizer, encoded_train, weights or None, encoded_dev, dev_lines(dev, config.run.eval_lines), counts
    )


def describe(name: str, counts: Counts) -> str:
    """Returns one line about a corpus, such as "train a.en": what was kept, its length, what was left out."""
    return (
        f"{name}: {counts['kept']:,} of {counts['lines']:,} pairs, "
        f"{counts['source_tokens']:,} + {counts['target_tokens']:,} tokens "
        f"({counts['unknown_tokens']:,} unknown); left out: {left_out(counts)}"
    )


def decodable(corpus: Corpus) -> list[Pair]:
    """Returns all pairs of a test set; tells how many are left out since they are not UTF-8, if any are."""
    pairs = list(corpus)
    kept = [pair for pair in pairs if pair is not None]
    if lost := len(pairs) - len(kept):
        note = f"{corpus.name}: {len(kept):,} of {len(pairs):,} pairs; left out: {lost:,} undecodable"
        say(note)
    return kept


def dev_lines(corpora: Sequence[Corpus], limit: int) -> list[Pair]:
    """Returns the first `limit` pairs as they are; all for -1."""
    pairs: list[Pair] = []
    for corpus in corpora:
        for pair in corpus:
            if 0 <= limit <= len(pairs):
                return pairs
            if pair is not None:
                pairs.append(pair)
    return pairs


def _check_files(workdir: Workdir, train: Sequence[Corpus], dev: Sequence[Corpus]) -> None:
    facts = [dataclasses.asdict(fact) for corpus in (*train, *dev) for fact in corpus.files]
    if workdir.config_file.exists() and workdir.corpus_file.exists():
        check_unchanged(json.loads(workdir.corpus_file.read_text(encoding="utf-8")), facts)
    else:
        write_json(workdir.corpus_file, facts)


def _tokenizer(config: Config, workdir: Workdir, corpora: Sequence[Corpus], note: Note) -> Tokenizer:
    of_trees = config.data.kind == "trees" and config.model.kind == "encoder_decoder"
    of_base = config.init.model and config.init.vocabulary == "base"
    if Tokenizer.exists(workdir.tokenizer):
        tokenizer = Tokenizer.load(workdir.tokenizer)
        sizes = {"source": tokenizer.source_vocab, "target": tokenizer.with_labels(()).target_vocab}
        for side, size in sizes.items():
            # A base's may have two sizes; its very pieces are compared when its rows are taken.
            if size != config.tokenizer.vocab_size and not of_base:
                raise DataError(
                    f"{workdir.tokenizer}: its {side} model has {size} pieces, "
                    f"config.tokenizer.vocab_size is {config.tokenizer.vocab_size}; make them equal, "
                    "or remove the folder to train a new one"
                )
        if not workdir.config_file.exists():
            note(f"tokenizer: {workdir.tokenizer}, which was there before; remove it to train a new one")
        return tokenizer
    if of_base:
        tokenizer = base_tokenizer(config)
        if trees := trees_of(config, tokenizer):
            _check_symbols(corpora, tokenizer, {*trees.opens, *trees.closes, *trees.tags})
        return tokenizer
    total = sum(map(len, corpora))
    every = -(-total // config.tokenizer.max_training_lines)
    note(f"tokenizer: training {config.tokenizer.model_type} on {-(-total // every) if every else 0:,} pairs")
    pairs = [pair for pair in _every_nth(corpora, max(every, 1)) if pair is not None]
    sources, targets = [s for s, _ in pairs], [t for _, t in pairs]
    if config.model.kind == "encoder_only":  # targets are labels, or the sources once more
        targets = []
    if config.model.source_features:
        sources = []
    if not any(map(str.strip, sources + targets)):
        names = ", ".join(corpus.name for corpus in corpora)
        raise DataError(f"{names}: no usable line to train on; every line is empty or not UTF-8")
    # Brackets with their labels are few, and each is one decision of the model.
    symbols = sorted({symbol for line in targets for symbol in line.split()}) if of_trees else []
    return train_tokenizer(sources, targets, config.tokenizer, symbols)


def _check_symbols(corpora: Sequence[Corpus], tokenizer: Tokenizer, known: Collection[int]) -> None:
    """Checks that a base's pieces write each symbol of the training trees as one, if they do so with any.

    Raises:
      DataError: naming the first that they cut, which a search among trees would never write.
    """
    symbols = sorted({symbol for corpus in corpora for pair in corpus if pair for symbol in pair[1].split()})
    before = len(tokenizer.special.target_prefix)
    for symbol, ids in zip(symbols, tokenizer.encode_target(symbols), strict=True):
        if len(ids) != before + 2 or ids[before] not in known:
            raise DataError(
                f"{', '.join(corpus.name for corpus in corpora)}: the symbol {symbol} is no piece of "
                "config.init.model, which writes trees with pieces of its own; set "
                "config.init.vocabulary=transplant"
            )


def _labels(config: Config, corpora: Sequence[Corpus], tokenizer: Tokenizer, note: Note) -> list[str]:
    """Returns the labels of the training data, in alphabetical order; none if its targets are no labels."""
    labels = config.data.labels
    if labels == "none":
        return []
    pairs = (pair for corpus in corpora for pair in corpus if pair is not None)
    found = sorted({name for _, text in pairs for name in names_of(text, labels) if name})
    files = ", ".join(corpus.name for corpus in corpora)
    if odd := next((name for name in found if "\t" in name), None):
        raise DataError(f"{files}: the label {odd!r} has a tab, which separates labels in outputs; change it")
    if len(found) < 2:
        raise DataError(f"{files}: the labels are {found}; there is nothing to tell apart")
    if len(found) == tokenizer.source_vocab:
        raise DataError(
            f"{files}: {len(found):,} labels, as many as config.tokenizer.vocab_size has pieces; change "
            "that, or is the target no file of labels?"
        )
    few = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    note(f"labels: {len(found):,} ({few})")
    return found


def _every_nth(corpora: Sequence[Corpus], n: int) -> Iterator[Pair | None]:
    for corpus in corpora:
        yield from (pair for i, pair in enumerate(corpus) if i % n == 0)
