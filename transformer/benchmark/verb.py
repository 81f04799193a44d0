"""`transformer benchmark`: how fast this machine trains and translates."""

import argparse

from transformer.errors import ConfigError, did_you_mean


def add_benchmark(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `benchmark`; `args.run(args)` returns the exit code, `args.overrides` are read too."""
    p = verbs.add_parser(
        "benchmark",
        help="measure training and decoding: tokens/s, MFU, memory, latency",
        description="Measures this machine with the program's own code. Nothing is kept but --json FILE.",
    )
    kinds = p.add_subparsers(dest="what", required=True, metavar="WHAT")
    _add_train(kinds)
    _add_scaling(kinds)
    # Its options are read by a parser of their own, for they live where JAX is loaded.
    decode = kinds.add_parser(
        "decode", help="sentences/s and latency of a trained model, with its score", add_help=False
    )
    decode.set_defaults(run=_decode)


def _add_train(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = kinds.add_parser(
        "train",
        help="tokens/s, step time, MFU and memory of training",
        description="Trains some steps of a recipe or preset, without checkpoints, and measures them. "
        "docs/benchmark.md says what each figure means.",
        epilog="--config.SECTION.KEY=VALUE changes the configuration, as for train",
    )
    _add_subject(p)
    p.add_argument(
        "--mesh", metavar="DxFxT", help="sizes of data, fsdp, tensor; default: the configuration's"
    )
    p.set_defaults(run=_train)


def _add_scaling(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    p = kinds.add_parser(
        "scaling",
        help="the same over several meshes",
        description="Runs `benchmark train` once for each mesh, in a process of its own, on the same global "
        "batch. On CPU devices are simulated: they share the cores, so only overhead shows.",
        epilog="--config.SECTION.KEY=VALUE changes the configuration, as for train",
    )
    _add_subject(p)
    p.add_argument(
        "--meshes", required=True, metavar="DxFxT,...", help="meshes, for example 1x1x1,2x1x1,8x1x1"
    )
    p.set_defaults(run=_scaling)


def _add_subject(p: argparse.ArgumentParser) -> None:
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", metavar="FILE", help="recipe, for example configs/benchmark_small.py")
    which.add_argument("--preset", choices=("tiny", "small", "base", "big"), help="sizes of the model")
    p.add_argument("--vocab_size", type=int, metavar="N", help="pieces, default: the configuration's")
    p.add_argument(
        "--data",
        choices=("real", "synthetic"),
        help="the recipe's own pairs, or random ones; default: real with --config, synthetic with --preset",
    )
    p.add_argument("--workdir", metavar="DIR", help="keeps tokenizer and encoded pairs of real data there")
    p.add_argument("--mean_length", type=float, metavar="N", help="source pieces of synthetic pairs (28)")
    p.add_argument("--steps", type=int, metavar="N", help="steps measured (20 on CPU, 100 elsewhere)")
    p.add_argument("--warmup", type=int, metavar="N", help="steps before them (3 on CPU, 20 elsewhere)")
    p.add_argument("--json", metavar="FILE", help="write the figures there")


def _train(args: argparse.Namespace) -> int:
    _check_words(args)
    from transformer.benchmark.train import run

    return run(args)


def _scaling(args: argparse.Namespace) -> int:
    _check_words(args)
    from transformer.benchmark.scaling import run

    return run(args)


def _decode(args: argparse.Namespace) -> int:
    from transformer.benchmark.decode import add_options, run

    parser = argparse.ArgumentParser(
        prog="transformer benchmark decode",
        description="Translates with a trained model and measures sentences/s, output tokens/s, latency, "
        "memory, and the score of what was written.",
    )
    add_options(parser)
    return run(parser.parse_args(args.overrides))


def _check_words(args: argparse.Namespace) -> None:
    for word in args.overrides:
        if word.startswith("-") and not word.startswith("--config."):
            known = ["--" + name for name in vars(args) if name not in ("verb", "what", "run", "overrides")]
            raise ConfigError(f"{word}: unknown argument{did_you_mean(word.partition('=')[0], known)}")
