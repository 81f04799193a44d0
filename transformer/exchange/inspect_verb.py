"""The verbs `inspect` and `diff`: what a model directory holds, and in what two of them differ."""

import argparse


def add_inspect(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `inspect`."""
    p = verbs.add_parser(
        "inspect",
        help="what a model directory holds",
        description="Prints sizes, settings, tokenizer, digests and checkpoints of a model.",
    )
    p.add_argument("model", metavar="DIR", help="folder of a run or another model of ours")
    p.add_argument("--tensors", action="store_true", help="list every parameter")
    _add_checkpoint(p)
    p.set_defaults(run=_inspect)


def add_diff(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `diff`."""
    p = verbs.add_parser(
        "diff",
        help="in what two models differ",
        description="Prints a line for each key, piece count and tensor in which two models differ.",
        epilog="The exit code is 0 if they are the same, and 1 if they are not.",
    )
    p.add_argument("first", metavar="A", help="folder of a model")
    p.add_argument("second", metavar="B", help="folder of another")
    _add_checkpoint(p)
    p.set_defaults(run=_diff)


def _add_checkpoint(p: argparse.ArgumentParser) -> None:
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), last, or a step")


def _inspect(args: argparse.Namespace) -> None:
    from transformer.exchange.inspecting import inspect

    for line in inspect(args.model, args.checkpoint, args.tensors):
        print(line)


def _diff(args: argparse.Namespace) -> int:
    from transformer.exchange.inspecting import diff

    lines = list(diff((args.first, args.second), args.checkpoint))
    for line in lines:
        print(line)
    return 1 if lines else 0
