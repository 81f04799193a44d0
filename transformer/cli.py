"""The command `transformer`: one thin verb each.

Standard output carries results only; progress and messages go to standard error. A user's mistake
is one line and an exit code (see errors.py), never a traceback.
"""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from transformer import __version__
from transformer.benchmark.verb import add_benchmark
from transformer.doctor.verb import add_doctor
from transformer.errors import UserError, did_you_mean
from transformer.exchange.inspect_verb import add_diff, add_inspect
from transformer.exchange.verb import add_export, add_import, add_push
from transformer.io.compilation_cache import tell_cache_failures_once
from transformer.io.standard_error import forget_standard_output, forgive_standard_error, say
from transformer.questions.verb import add_explain
from transformer.recipes import PREFIX, load_config
from transformer.run.attend import add_attend, attend
from transformer.run.classify import add_classify, classify
from transformer.run.launch import add_launch
from transformer.run.options import add_decode, add_model, decode_options, option_of
from transformer.run.parse import add_parse, parse

_EPILOG = """exit codes: 0 done, 2 usage or configuration, 3 data, 4 checkpoint, 5 diverged,
6 another process lost, 75 stopped by SIGTERM and saved, 130 stopped
by Ctrl-C and saved"""

_WITH_OVERRIDES = ("train", "doctor", "benchmark")  # verbs that take --config.SECTION.KEY=VALUE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    forgive_standard_error()
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if stray := _stray(args.verb, rest):
        options = ["--" + option_of(name) for name in vars(args) if name not in ("verb", "run")]
        name = stray.partition("=")[0]
        guess = "; give it without this name" if name in options else did_you_mean(name, options)
        if stray.startswith(PREFIX[2:]):
            guess = f"; did you mean '--{stray}'?"
        parser.error(f"{stray}: unknown argument{guess}")
    args.overrides = rest
    _quiet_libraries()
    try:
        code = 0
        if args.verb == "train":
            _train(args, rest)
        else:
            code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        say(f"transformer: error: {error}")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        forget_standard_output()
        return 0
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        where = f"{error.filename}: " if error.filename else ""
        say(f"transformer: error: {where}{error.strerror}")
        if error.filename is None:
            forget_standard_output()
        return UserError.exit_code
    except KeyboardInterrupt:
        return 130


def _stray(verb: str, rest: Sequence[str]) -> str:
    """Returns the first argument that no verb, or not this one, has; empty if there is none."""
    if verb not in _WITH_OVERRIDES:
        return next(iter(rest), "")
    if verb != "train":  # they look themselves
        return ""
    is_value = False
    for argument in rest:
        if not (is_value or argument.startswith(PREFIX)):
            return argument
        is_value = not is_value and "=" not in argument
    return ""


class _Parser(argparse.ArgumentParser):
    """Tells of a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.exit_code, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _quiet_libraries() -> None:
    """Keeps libraries' own chatter off the person's screen; their errors stay."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("jax").setLevel(logging.ERROR)
    tell_cache_failures_once()


def _train(args: argparse.Namespace, overrides: list[str]) -> None:
    from transformer.io.workdir import Workdir

    origin = Workdir(args.workdir).load_origin() if args.workdir else None
    config = load_config(args.config, overrides, origin and origin.settings)
    if args.dry_run:
        from transformer.run.dry_run import dry_run

        dry_run(config, args.workdir)
    else:
        from transformer.errors import ConfigError

        if args.workdir is None:
            raise ConfigError(
                "--workdir: is needed: the folder that the run is kept in, for example runs/mine"
            )
        from transformer.io.processes import start
        from transformer.run.train import train

        processes = start(args.coordinator, args.num_processes, args.process_id, args.heartbeat)
        if processes.count > 1:
            os.dup2(2, 1)  # gloo tells of its connections on standard output, which is for results
        train(config, args.workdir, args.strict_restore, processes)


def _translate(args: argparse.Namespace) -> None:
    from transformer.run.translate import translate

    files, portion = (args.input, args.output), (args.shard, args.resume)
    translate(args.model, args.checkpoint, *files, args.n_best, decode_options(args), *portion)


def _score(args: argparse.Namespace) -> None:
    from transformer.run.translate import score_files

    score_files(
        args.model, args.checkpoint, args.source, args.target, args.output, args.length_penalty or 0.0
    )


def _evaluate(args: argparse.Namespace) -> None:
    from transformer.run import evaluate

    if args.hypothesis:
        evaluate.evaluate_files(args, decode_options(args))
    else:
        evaluate.evaluate_model(args, decode_options(args))


def _parse(args: argparse.Namespace) -> None:
    parse(args, decode_options(args))


def _average(args: argparse.Namespace) -> None:
    from transformer.run.average import average

    average(args.model, args.output, last=args.last, best=args.best)


def _plot(args: argparse.Namespace) -> None:
    from transformer.run.plot import plot

    plot(args.model, args.source)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="transformer",
        description="Train, resume, translate, score, classify: the Transformer in JAX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"transformer {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_train(verbs)
    add_launch(verbs)
    add_doctor(verbs)
    add_benchmark(verbs)
    _add_translate(verbs)
    _add_score(verbs)
    _add_evaluate(verbs)
    _add_parse(verbs)
    _add_classify(verbs)
    _add_average(verbs)
    _add_plot(verbs)
    _add_attend(verbs)
    add_explain(verbs)
    add_import(verbs)
    add_export(verbs)
    add_push(verbs)
    add_inspect(verbs)
    add_diff(verbs)
    return parser


def _add_train(verbs: argparse._SubParsersAction) -> None:
    p = verbs.add_parser(
        "train",
        help="train a model, or continue a run",
        description="Trains a model from a recipe. Running the same command again continues the run.",
        epilog="Every key of the configuration can be changed: --config.SECTION.KEY=VALUE, for example "
        "--config.model.d_model=256 or --config.data.train_source=a.en,b.en. "
        "--dry_run prints all keys with their values.",
    )
    p.add_argument(
        "--config", required=True, metavar="FILE", help="recipe, for example configs/quickstart.py"
    )
    p.add_argument("--workdir", metavar="DIR", help="folder of the run; made if missing")
    p.add_argument(
        "--dry_run",
        action="store_true",
        help="print configuration, parameters, FLOPs, memory and data counts; train and write nothing",
    )

    p.add_argument(
        "--strict_restore",
        action="store_true",
        help="stop if the newest checkpoint is damaged; default: continue from the newest sound one",
    )
    group = p.add_argument_group(
        "several processes (Slurm, Open MPI, Kubernetes and TPU pods say it themselves)"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--num_processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process_id", type=int, metavar="I", help="this one, from 0")
    group.add_argument(
        "--heartbeat",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds of silence after which a process counts as lost (default 60)",
    )


def _add_translate(verbs: argparse._SubParsersAction) -> None:
    p = verbs.add_parser(
        "translate",
        help="translate lines of text",
        description="Translates standard input line by line; a model of text alone goes on with each line.",
        epilog="With --n_best each output line is: input line number, score, log-probability, text, "
        "separated by tabs; a line of which there are fewer outputs, such as an empty one, has fewer.",
    )
    add_model(p)
    p.add_argument("--input", metavar="FILE", help="source text, or frames; default: standard input")
    p.add_argument("--output", metavar="FILE", help="default: standard output")
    p.add_argument("--n_best", type=int, metavar="N", help="print the N best outputs of a line, with scores")
    p.add_argument("--shard", metavar="I/N", help="translate only the I-th of N parts of --input")
    p.add_argument(
        "--resume", action="store_true", help="continue --output, where the same command stopped before"
    )
    add_decode(p)
    p.set_defaults(run=_translate)


def _add_score(verbs: argparse._SubParsersAction) -> None:
    p = verbs.add_parser(
        "score",
        help="log-probability of given translations",
        description="Prints the log-probability (nats, end mark included) of each pair of lines, or line.",
    )
    add_model(p)
    p.add_argument("--source", metavar="FILE", help="source text, or frames; a model of text alone has none")
    p.add_argument("--target", required=True, metavar="FILE", help="its translations, line by line")
    p.add_argument("--output", metavar="FILE", help="default: standard output")
    p.add_argument(
        "--length_penalty",
        type=float,
        metavar="A",
        help="divide by ((5 + length) / 6) ** A, or as the model's search does; default 0",
    )
    p.set_defaults(run=_score)


def _add_evaluate(verbs: argparse._SubParsersAction) -> None:
    p = verbs.add_parser(
        "evaluate",
        help="BLEU and chrF, or ROUGE, of a model or of a file; perplexity; accuracy of a classifier",
        description="Translates a test set with a model, or takes a file of translations, and prints "
        "sacreBLEU's BLEU and chrF with their signatures, or ROUGE. Of a classifier it prints the share of "
        "labels that are right, of a language model the perplexity of its set, of a masked one how likely it "
        "finds the pieces that were masked.",
    )
    add_model(p, required=False)
    p.add_argument(
        "--split", choices=("dev", "test"), default="test", help="the run's own set (default test)"
    )
    p.add_argument("--source", metavar="FILE", help="other source text, or frames, to translate")
    p.add_argument("--reference", metavar="FILE", nargs="+", help="its reference translations")
    p.add_argument("--hypothesis", metavar="FILE", help="translations to score; no model is needed")
    p.add_argument("--baseline", metavar="FILE", help="a second system's output: paired bootstrap test")
    p.add_argument("--metric", choices=("bleu", "rouge"), help="default bleu; rouge: of summaries")
    p.add_argument("--tokenize", metavar="NAME", help="sacreBLEU tokenizer; default: the run's, or 13a")
    p.add_argument("--lowercase", action="store_true", help="score without case")
    p.add_argument("--show", type=int, default=0, metavar="N", help="print N translations with references")
    p.add_argument("--output", metavar="FILE", help="write the translations there")
    p.add_argument("--json", metavar="FILE", help="write the scores of all sets there as JSON")
    add_decode(p)
    p.set_defaults(run=_evaluate)


def _add_parse(verbs: argparse._SubParsersAction) -> None:
    p = add_parse(verbs)
    add_model(p, required=False)
    add_decode(p)
    p.set_defaults(run=_parse)


def _add_classify(verbs: argparse._SubParsersAction) -> None:
    p = add_classify(verbs)
    add_model(p)
    p.set_defaults(run=classify)


def _add_average(verbs: argparse._SubParsersAction) -> None:
    p = verbs.add_parser(
        "average",
        help="mean of several checkpoints",
        description="Writes a model whose parameters are the mean of checkpoints of a run (paper, 6.1).",
    )
    p.add_argument("--model", required=True, metavar="DIR", help="folder of a run")
    p.add_argument("--output", required=True, metavar="DIR", help="folder of the averaged model")
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--last", type=int, metavar="N", help="the last N checkpoints")
    which.add_argument("--best", type=int, metavar="N", help="the best N by the run's metric")
    p.set_defaults(run=_average)


def _add_plot(verbs: argparse._SubParsersAction) -> None:
    p = verbs.add_parser(
        "plot",
        help="pictures of a run: learning curve, attention",
        description="Draws learning_curve.png and attention.png into the run's folder; the curve alone "
        "where no decoder reads an encoder, or sources are frames.",
    )
    p.add_argument("--model", required=True, metavar="DIR", help="folder of a run")
    p.add_argument("--source", metavar="TEXT", help="sentence whose attention is drawn; default: a dev line")
    p.set_defaults(run=_plot)


def _add_attend(verbs: argparse._SubParsersAction) -> None:
    p = add_attend(verbs)
    add_model(p)
    p.set_defaults(run=attend)
