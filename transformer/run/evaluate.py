"""Scores of a model on a test set, or of a file of translations."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformer.data.corpus import Corpus, Split, open_corpora
from transformer.data.encoded import encode_corpus
from transformer.errors import ConfigError, DataError
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.inference.scorer import Scorer
from transformer.inference.translator import Translator
from transformer.io.metrics_file import add_metrics
from transformer.io.progress import Pace, Progress
from transformer.io.standard_error import say
from transformer.io.text import check_output, line_writer, read_lines
from transformer.io.workdir import Workdir, write_json
from transformer.metrics.bootstrap import BootstrapResult, paired_bootstrap
from transformer.metrics.rouge import rouge, rouge_scorer
from transformer.metrics.scores import make_metrics, score
from transformer.run.answers import score_labels, score_masked
from transformer.run.options import option_of
from transformer.run.prepare import decodable, describe
from transformer.run.sources import read_sources
from transformer.run.translate import report_split

_BLOCK = 512  # lines that are sorted by length together
_OF_TRANSLATIONS = ("baseline", "metric", "tokenize", "lowercase", "show")  # options


class _TestSet(NamedTuple):
    name: str
    sources: list[Any]  # lines, or frames
    references: list[list[str]]  # one list a reference set


def evaluate_files(args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Scores the file `args.hypothesis` against the files `args.reference` and prints the result."""
    _refuse(
        args, ("model", "source", "show", "output"), options, "is of a model; with --hypothesis none is used"
    )
    if not args.reference:
        raise ConfigError("--hypothesis: needs --reference, the file of reference translations")
    _check_outputs(args)
    _check_metric(args, args.tokenize or "13a")
    hypotheses = read_lines(args.hypothesis)
    baseline = _baseline(args, {args.hypothesis: len(hypotheses)})
    references = [read_lines(path) for path in args.reference]
    found = _report(args, args.hypothesis, hypotheses, references, args.tokenize or "13a", baseline)
    _save(args, {args.hypothesis: found})


def evaluate_model(args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Translates or labels the test sets that `args` names with a model, and prints their scores.

    The run's own test set is also logged to its metrics.jsonl. Of a language model of text alone it is
    the perplexity.
    """
    if args.model is None:
        raise ConfigError("--model: is needed (a run's folder), or --hypothesis (a file of translations)")
    _check_outputs(args)
    loaded = load_model(args.model, args.checkpoint)
    if loaded.config.model.kind == "encoder_only":
        _refuse(args, _OF_TRANSLATIONS, options, "is for translations, which this model does not make")
    with Workdir(args.model).data_cache() as cache:
        if loaded.config.is_masked:
            results = score_masked(args, loaded, cache)
        elif not loaded.config.model.reads_source:
            results = _score_lines(args, loaded, options, cache)
        else:
            sets = _test_sets(args, loaded, cache)
            score_sets = _score_labels if loaded.tokenizer.labels else _score_texts
            results = score_sets(args, loaded, sets, options)
    record = _save(args, results)
    is_own = args.source is None and args.split == "test"
    if is_own and (error := add_metrics(Path(args.model), "test", loaded.step, record)):
        say(f"warning: {error.filename}: cannot be written ({error.strerror}); it lacks the scores")


def _check_outputs(args: argparse.Namespace) -> None:
    for path in (args.output, args.json):
        check_output(path, [args.source, args.hypothesis, args.baseline, *(args.reference or ())])
    if args.output and args.json and Path(args.output).resolve() == Path(args.json).resolve():
        raise ConfigError("--json: is the file of --output; name another one")


def _save(args: argparse.Namespace, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the first set's scores, and beside them all "sets" if there are more; writes them if asked."""
    name, first = next(iter(results.items()))
    record = first if len(results) == 1 else {**first, "sets": results}
    if args.json:
        write_json(Path(args.json), {"name": name, **record})
    return record


def _refuse(args: argparse.Namespace, names: Sequence[str], options: Mapping[str, Any], why: str) -> None:
    """Refuses options that would do nothing: those of `names` that are given, and those of the search."""
    given = [name for name in names if getattr(args, name)]
    for option in (*given, *map(option_of, options)):
        raise ConfigError(f"--{option}: {why}; leave it out")


def _score_labels(
    args: argparse.Namespace, loaded: LoadedModel, sets: Sequence[_TestSet], options: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    if len(sets[0].references) > 1:
        raise ConfigError("--reference: a classifier is scored against one file of labels; name one")
    results: dict[str, dict[str, Any]] = {}
    for i, test in enumerate(sets):
        results[test.name], labels = score_labels(loaded, test.name, test.sources, test.references[0])
        _write(args, sets, i, labels)
    return results


def _score_texts(
    args: argparse.Namespace, loaded: LoadedModel, sets: Sequence[_TestSet], options: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    translator = Translator.of(loaded)
    _check_metric(args, args.tokenize or loaded.config.run.bleu_tokenize)
    baseline = _baseline(args, {test.name: len(test.sources) for test in sets})
    results: dict[str, dict[str, Any]] = {}
    for i, test in enumerate(sets):
        hypotheses = _translate(translator, test, options)
        tokenize = args.tokenize or loaded.config.run.bleu_tokenize
        _write(args, sets, i, hypotheses)
        results[test.name] = _report(args, test.name, hypotheses, test.references, tokenize, baseline)
        _show(test, hypotheses, args.show if i == 0 else 0)
    return results


def _write(args: argparse.Namespace, sets: Sequence[_TestSet], i: int, lines: Sequence[str]) -> None:
    """Writes what the model made of the i-th set, if asked."""
    if args.output:
        name = args.output if len(sets) == 1 else f"{args.output}.{i + 1}"
        with line_writer(name) as write:
            write(lines)


def _score_lines(
    args: argparse.Namespace, loaded: LoadedModel, options: dict[str, Any], cache: Path
) -> dict[str, dict[str, Any]]:
    """Prints how likely the run's own dev or test set is: the lines that training would take of it."""
    why = "a language model of text alone translates nothing (other text: transformer score --target FILE)"
    _refuse(args, ("source", "reference", "output", *_OF_TRANSLATIONS), options, why)
    scorer = Scorer.of(loaded)
    corpora = open_corpora(loaded.config.data, args.split, cache)
    if not corpora:
        raise ConfigError(
            f"config.data.{args.split}_target: the run has no {args.split} set; name another split"
        )
    results: dict[str, dict[str, Any]] = {}
    progress = Progress()
    for i, corpus in enumerate(corpora):
        folder = cache / f"{args.split}-{i}"
        encoded = encode_corpus(corpus, loaded.tokenizer, loaded.config, folder, progress.note)
        progress.note(describe(f"{args.split} {corpus.name}", encoded.counts))
        kept = set(map(encoded.number, range(len(encoded))))
        lines = [pair[1] for n, pair in enumerate(corpus) if pair is not None and corpus.number(n) in kept]
        if not lines:
            raise DataError(f"{corpus.name}: no line of it is left to score")
        found = scorer.likelihood(scorer.score(None, lines), lines)
        print(f"{corpus.name}: {len(lines):,} lines\n{found}", flush=True)
        scores = {name: getattr(found, name) for name in ("nll", "perplexity", "bits_per_byte")}
        results[corpus.name] = {"num_lines": len(lines), **found._asdict(), **scores}
    return results


def _test_sets(args: argparse.Namespace, loaded: LoadedModel, cache: Path) -> list[_TestSet]:
    if args.source is not None:
        if not args.reference:
            raise ConfigError("--source: needs --reference, the file of reference translations")
        sources = read_sources(args.source, loaded)
        references = [read_lines(path) for path in args.reference]
        for path, lines in zip(args.reference, references, strict=True):
            if len(lines) != len(sources):
                raise DataError(f"{args.source} has {len(sources):,} lines, {path} {len(lines):,}")
        return [_TestSet(args.source, sources, references)]
    if args.reference:
        raise ConfigError("--reference: needs --source, the file that it translates")
    split: Split = args.split
    corpora = open_corpora(loaded.config.data, split, cache)
    if not corpora:
        raise ConfigError(
            f"config.data.{split}_source: the run has no {split} set; give --source and --reference"
        )
    return [_as_test_set(corpus) for corpus in corpora]


def _as_test_set(corpus: Corpus) -> _TestSet:
    pairs = decodable(corpus)
    return _TestSet(corpus.name, [s for s, _ in pairs], [[t for _, t in pairs]])


def _translate(translator: Translator, test: _TestSet, options: dict[str, Any]) -> list[str]:
    pace = Pace("translated", len(test.sources))
    hypotheses: list[str] = []
    for first in range(0, len(test.sources), _BLOCK):
        hypotheses += translator.translate(test.sources[first : first + _BLOCK], first, **options)
        pace.add(len(hypotheses) - pace.done)
    pace.progress.close()
    report_split(translator, pace.progress)
    return hypotheses


def _report(
    args: argparse.Namespace,
    name: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str,
    baseline: Sequence[str],
) -> dict[str, Any]:
    """Prints the scores of one set and returns them."""
    if args.metric == "rouge":
        return _report_rouge(args, name, hypotheses, references)
    found = score(hypotheses, references, tokenize, args.lowercase)
    print(f"{name}: {found.num_lines:,} lines")
    print(f"BLEU {found.bleu:.2f}  {found.bleu_details}  [{found.bleu_signature}]")
    print(f"chrF {found.chrf:.2f}  [{found.chrf_signature}]")
    print(f"exact match: {found.exact_match:.1f} %", flush=True)
    result: dict[str, Any] = dataclasses.asdict(found)
    if args.baseline:
        compared = paired_bootstrap(hypotheses, baseline, references, tokenize, lowercase=args.lowercase)
        _print_comparison(compared, args.baseline)
        result["bootstrap"] = dataclasses.asdict(compared)
    return result


def _check_metric(args: argparse.Namespace, tokenize: str) -> None:
    """Finds out before anything is translated that the scores cannot be computed.

    Raises:
      ConfigError: if something is asked for that a measure has no use for, or a package is missing.
    """
    if args.metric != "rouge":
        make_metrics(tokenize, args.lowercase)
        return
    for option in ("baseline", "tokenize", "lowercase"):
        if getattr(args, option):
            raise ConfigError(f"--{option}: is of BLEU and chrF; leave it out with --metric rouge")
    rouge_scorer()


def _baseline(args: argparse.Namespace, counts: Mapping[str, int]) -> list[str]:
    """Returns the lines of the baseline, before anything is translated; none without one.

    Raises:
      DataError: if it has other lines, or cannot be read.
    """
    if not args.baseline:
        return []
    baseline = read_lines(args.baseline)
    for name, count in counts.items():
        if count != len(baseline):
            raise DataError(f"{name} has {count:,} lines, {args.baseline} {len(baseline):,}")
    return baseline


def _report_rouge(
    args: argparse.Namespace, name: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """As `_report`, for summaries."""
    found = rouge(hypotheses, references)
    print(f"{name}: {found.num_lines:,} lines")
    scores = f"ROUGE-1 {found.rouge1:.2f}  ROUGE-2 {found.rouge2:.2f}  ROUGE-L {found.rougeL:.2f}"
    print(f"{scores}  [{found.signature}]", flush=True)
    return dataclasses.asdict(found)


def _print_comparison(result: BootstrapResult, baseline: str) -> None:
    for name, c in (("BLEU", result.bleu), ("chrF", result.chrf)):
        print(
            f"{name} against {baseline}: {c.score:.2f} ({c.mean:.2f} ± {c.interval:.2f}) and "
            f"{c.baseline_score:.2f} ({c.baseline_mean:.2f} ± {c.baseline_interval:.2f}), "
            f"p = {c.p_value:.4f}  [{c.signature}]"
        )


def _show(test: _TestSet, hypotheses: Sequence[str], count: int) -> None:
    """Prints some translations, spread over the set, each with its source and reference."""
    stride = max(len(hypotheses) // count, 1) if count else 1
    for i in range(0, stride * count, stride)[: len(hypotheses)]:
        mark = "=" if hypotheses[i] == test.references[0][i] else "≠"
        print(f"\nsource       {test.sources[i]}\ntranslation  {hypotheses[i]}")
        print(f"reference  {mark} {test.references[0][i]}")
