"""Options that several verbs have: which model, and how it searches."""

import argparse
import dataclasses

from transformer.config import DecodeConfig


def add_model(p: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds which model a verb reads."""
    p.add_argument("--model", required=required, metavar="DIR", help="folder of a run or an averaged model")
    p.add_argument(
        "--checkpoint",
        default="best",
        metavar="WHICH",
        help="best (by the run's metric; default), last, or a step",
    )


def add_decode(p: argparse.ArgumentParser) -> None:
    """Adds the settings of the search."""
    group = p.add_argument_group("search (defaults are the run's config.decode)")
    group.add_argument("--beam_size", type=int, metavar="N", help="hypotheses kept alive; 1 is greedy")
    group.add_argument(
        "--length_penalty",
        type=float,
        metavar="A",
        help="alpha of ((5 + length) / 6) ** alpha; by the rules of huggingface of length ** alpha",
    )
    group.add_argument(
        "--rules", metavar="R", help="of the search: paper, huggingface, huggingface_early, huggingface_never"
    )
    group.add_argument(
        "--max_length",
        type=int,
        metavar="N",
        dest="max_extra_length",
        help="longest output: the source's length + N, in tokens",
    )
    group.add_argument("--length_limit", type=int, metavar="N", help="longest output, whatever the source")
    group.add_argument("--min_length", type=int, metavar="N", help="shortest output, end mark included")
    group.add_argument(
        "--no_repeat_ngram_size", type=int, metavar="N", help="no output has N tokens in a row twice"
    )
    group.add_argument("--temperature", type=float, metavar="T", help="above 0: sample instead of searching")
    group.add_argument("--top_k", type=int, metavar="K", help="sample from the K likeliest pieces only")
    group.add_argument("--top_p", type=float, metavar="P", help="sample from the likeliest pieces of total P")
    group.add_argument("--seed", type=int, metavar="N", help="of the samples")
    group.add_argument("--batch_size", type=int, metavar="N", help="sentences translated together")


def option_of(field: str) -> str:
    """Returns the name of the option that sets a field of `DecodeConfig`."""
    return "max_length" if field == "max_extra_length" else field


def decode_options(args: argparse.Namespace) -> dict[str, int | float | str]:
    """Returns the search options that were given; the others are the run's own."""
    names = [field.name for field in dataclasses.fields(DecodeConfig)]
    return {name: value for name in names if (value := getattr(args, name)) is not None}
