"""The verbs `import`, `export` and `push`: models of others become model directories, and ours theirs."""

import argparse
from typing import TYPE_CHECKING

from transformer.io.standard_error import say

if TYPE_CHECKING:
    from transformer.exchange.card import Said


_OWN_FORMS = ("marian", "fairseq")  # what these programs write themselves


def add_import(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `import`."""
    p = verbs.add_parser(
        "import",
        help="a model of another library",
        description="Makes a model directory of what save_pretrained of transformers wrote, or Marian, or "
        "fairseq.",
    )
    p.add_argument(
        "form",
        choices=("hf", *_OWN_FORMS),
        help="whose: hf, Hugging Face's transformers; marian, Marian-NMT; fairseq",
    )
    p.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="DIR",
        help="hf: folder with config.json and model.safetensors, or a name on the Hub; marian: folder with "
        "model.npz and its vocabularies; fairseq: folder with config.json or config.yaml, model.safetensors, "
        "dict.xx.txt and SentencePiece models",
    )
    p.add_argument("--to", dest="target", required=True, metavar="DIR", help="folder of the new model")
    p.add_argument("--source_language", default="", metavar="CODE", help="for models that need it")
    p.add_argument("--target_language", default="", metavar="CODE", help="for models that need it")
    p.add_argument(
        "--allow_pickle",
        action="store_true",
        help="read pytorch_model.bin where there are no safetensors; needs PyTorch 2.6 or newer, which "
        "reads it as tensors alone",
    )
    p.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> None:
    from transformer.errors import ConfigError
    from transformer.exchange.hub import local_folder
    from transformer.exchange.importing import import_fairseq, import_hf, import_marian

    languages = args.source_language, args.target_language
    if args.form in _OWN_FORMS:
        if any(languages) or args.allow_pickle:
            raise ConfigError(
                f"--source_language, --target_language, --allow_pickle: are for hf, not for {args.form}"
            )
        read = import_marian if args.form == "marian" else import_fairseq
        return read(args.source, args.target, say)
    folder = local_folder(args.source, args.allow_pickle)
    import_hf(folder, args.target, languages, args.allow_pickle, say)


def add_export(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `export`."""
    p = verbs.add_parser(
        "export",
        help="a model for another library, or for the Hub",
        description="Writes a model in the form that others load, with a model card.",
    )
    p.add_argument(
        "form",
        choices=tuple(_EXPORTS),
        help="hf: for Hugging Face's transformers; safetensors: ours, small; ctranslate2",
    )
    p.add_argument("--model", required=True, metavar="DIR", help="folder of a run or another model of ours")
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), last, or a step")
    p.add_argument("--to", dest="target", required=True, metavar="DIR", help="the new folder")
    p.add_argument(
        "--quantization", default="float32", metavar="Q", help="ctranslate2: of matrices, for example int8"
    )
    p.add_argument(
        "--verify",
        nargs="?",
        const="",
        metavar="FILE",
        help="hf, ctranslate2: run both and compare, on lines of FILE or on random pieces",
    )
    card = p.add_argument_group("model card (what is not given is left out)")
    card.add_argument("--languages", default="", metavar="CODES", help="for example en,de")
    card.add_argument("--license", default="", metavar="ID", help="by its name on the Hub, as cc-by-4.0")
    card.add_argument("--datasets", default="", metavar="NAMES", help="that it was trained on, with commas")
    card.add_argument("--base_model", default="", metavar="NAME", help="that training began with")
    p.set_defaults(run=_export)


def add_push(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `push`."""
    p = verbs.add_parser(
        "push",
        help="bring an exported model to the Hub",
        description="Brings a folder that `export` wrote to the Hugging Face Hub. Log in beforehand with "
        "`hf auth login`, or set HF_TOKEN.",
    )
    p.add_argument("--from", dest="source", required=True, metavar="DIR", help="folder that export wrote")
    p.add_argument("--to", dest="target", required=True, metavar="OWNER/NAME", help="made if there is none")
    p.add_argument("--private", action="store_true", help="a new one is seen by its owner only")
    p.set_defaults(run=_push)


def _push(args: argparse.Namespace) -> None:
    from transformer.exchange.hub import push

    print(push(args.source, args.target, args.private))


def _export(args: argparse.Namespace) -> None:
    from transformer.exchange.card import Said

    languages, datasets = (tuple(filter(None, x.split(","))) for x in (args.languages, args.datasets))
    _EXPORTS[args.form](args, Said(languages, args.license, datasets, args.base_model))


def _export_hf(args: argparse.Namespace, said: "Said") -> None:
    from transformer.exchange.exporting import export_hf

    title, compared = export_hf(args.model, args.target, args.checkpoint, said, _lines(args), say)
    print(f"{args.target}: for transformers' {title}")
    print_if(compared)


def _export_safetensors(args: argparse.Namespace, said: "Said") -> None:
    from transformer.errors import ConfigError
    from transformer.exchange.export_safetensors import export_safetensors

    if args.verify is not None:
        raise ConfigError("--verify: is for hf and ctranslate2; safetensors keeps the bits")
    step = export_safetensors(args.model, args.target, args.checkpoint, said)
    print(f"{args.target}: a model directory with the parameters of step {step:,}")


def _export_ctranslate2(args: argparse.Namespace, said: "Said") -> None:
    from transformer.errors import ConfigError, did_you_mean
    from transformer.exchange.export_ctranslate2 import QUANTIZATIONS, export_ctranslate2

    if args.quantization not in QUANTIZATIONS:
        guess = did_you_mean(args.quantization, QUANTIZATIONS)
        raise ConfigError(f"--quantization: '{args.quantization}' is not known{guess}")
    wanted = args.model, args.target, args.checkpoint, args.quantization
    compared = export_ctranslate2(*wanted, said, _lines(args))
    print(f"{args.target}: for ctranslate2, {args.quantization}")
    print_if(compared)


def _lines(args: argparse.Namespace) -> list[str] | None:
    """Returns the lines to compare translations on: none for random ones, None for no comparison."""
    from transformer.io.text import read_lines

    return read_lines(args.verify) if args.verify else None if args.verify is None else []


def print_if(result: str) -> None:
    """Prints a result, if there is one."""
    if result:
        print(result)


_EXPORTS = {"hf": _export_hf, "safetensors": _export_safetensors, "ctranslate2": _export_ctranslate2}
