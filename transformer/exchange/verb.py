"""The verbs `import` and `export`: models of others become model directories, and ours theirs."""

import argparse
import sys


def add_import(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `import`."""
    p = verbs.add_parser(
        "import",
        help="a model of another library",
        description="Makes a model directory of a folder that save_pretrained of transformers wrote.",
    )
    p.add_argument("form", choices=("hf",), help="whose: hf, Hugging Face's transformers")
    p.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="DIR",
        help="folder with config.json and model.safetensors, or a name on the Hub",
    )
    p.add_argument("--to", dest="target", required=True, metavar="DIR", help="folder of the new model")
    p.add_argument("--source_language", default="", metavar="CODE", help="for models that need it")
    p.add_argument("--target_language", default="", metavar="CODE", help="for models that need it")
    p.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> None:
    from transformer.exchange.hub import local_folder
    from transformer.exchange.importing import import_hf

    import_hf(local_folder(args.source), args.target, (args.source_language, args.target_language))


def add_export(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `export`."""
    p = verbs.add_parser(
        "export",
        help="a model for another library",
        description="Writes a model in the form that another library loads.",
    )
    p.add_argument("form", choices=("hf",), help="whose: hf, Hugging Face's transformers")
    p.add_argument("--model", required=True, metavar="DIR", help="folder of a run or another model of ours")
    p.add_argument("--checkpoint", default="best", metavar="WHICH", help="best (default), last, or a step")
    p.add_argument("--to", dest="target", required=True, metavar="DIR", help="the new folder")
    p.set_defaults(run=_export)


def say(message: str) -> None:
    """Writes a line to standard error."""
    print(message, file=sys.stderr, flush=True)


def _export(args: argparse.Namespace) -> None:
    from transformer.exchange.exporting import export_hf

    title = export_hf(args.model, args.target, args.checkpoint, say)
    print(f"{args.target}: for transformers' {title}")
