"""`transformer attend`: who looked at what, as a page, pictures, numbers and an alignment."""

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformer.errors import ConfigError
from transformer.io.page import filled
from transformer.io.workdir import write_text

if TYPE_CHECKING:
    from transformer.inference.ablation import HeadOff
    from transformer.inference.attention_maps import AttentionMap

_PAGE, _TABLE = "attention.html", "attention.tsv"
_COLUMNS = "kind", "layer", "head", "query", "key", "weight", "query_word", "key_word"
_DIGITS = 4  # of weights on the page and in the table
_REACH = {
    "window": "a piece reads those at most {} places away",
    "block": "a piece reads its own block of {} and the neighbouring ones, in the decoder the one before",
    "compressed": "several pieces are read as one",
    "alternating": "in the encoder's layers 1, 3, ... a piece reads those at most {} places away; elsewhere "
    "several pieces are read as one",
}
_RECURS = "one a stack, which recurs: layer n is its step n, and a head that is off is so at every step"
# Name and explanation of each kind of attention, in the page's order.
_KINDS = {
    "encoder": (
        "encoder self-attention",
        "What each source piece reads of the source, the end mark included.",
    ),
    "decoder": (
        "decoder self-attention",
        "What each piece that the decoder is given reads of itself and those before it; the first is the "
        "start mark.",
    ),
    "cross": (
        "encoder-decoder attention",
        "What was read in the source while the piece to the left was predicted.",
    ),
}


def add_attend(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Adds the verb `attend`; returns its parser, which still lacks the options of the model."""
    p = verbs.add_parser(
        "attend",
        help="who looks at what: page, pictures, numbers, alignment",
        description="Shows the attention weights of a sentence pair, every layer and head: a page that needs "
        "no network (attention.html), pictures, and the numbers between words (attention.tsv). Prints the "
        "target, its alignment with the source by words (Pharaoh format: source-target, from 0), and the "
        "files.",
    )
    p.add_argument("source", metavar="SOURCE", help="a sentence")
    p.add_argument("target", metavar="TARGET", nargs="?", help="its translation; default: the model's own")
    p.add_argument(
        "--output", metavar="DIR", default="attention", help="folder for the files (default attention)"
    )
    p.add_argument(
        "--layer", type=int, metavar="N", help="of the decoder, from 1: aligns by it (default: the last)"
    )
    p.add_argument(
        "--ablate", action="store_true", help="also score the pair with each head switched off, one at a time"
    )
    return p


def attend(args: argparse.Namespace) -> None:
    """Does what the arguments of the verb say.

    Raises:
      UserError: if the model, a sentence or an option cannot be used.
    """
    from transformer.inference.ablation import without_each_head
    from transformer.inference.attention_maps import alignment, attention_maps
    from transformer.inference.model_directory import check_kind, load_model
    from transformer.inference.sentence_pair import sentence_pair

    loaded = load_model(args.model, args.checkpoint)
    check_kind(loaded.config.model, "encoder_decoder")
    layers = loaded.config.model.num_decoder_layers
    layer = layers if args.layer is None else args.layer
    if not 1 <= layer <= layers:
        raise ConfigError(f"--layer: the decoder has layers 1 to {layers}, got {layer}")
    if not args.source.strip():
        raise ConfigError("SOURCE: is empty; give a sentence")
    pair = sentence_pair(loaded, args.source, args.target)
    maps = attention_maps(loaded, pair)
    pairs = " ".join(f"{source}-{word}" for source, word in alignment(maps["cross"], layer - 1))
    facts = {"source": args.source, "target": pair.text, f"alignment by layer {layer}": pairs}
    if reach := _REACH.get(loaded.config.model.attention):
        facts["self-attention"] = reach.format(loaded.config.model.attention_radius)
    if loaded.config.model.recurrence != "none":
        facts["layers"] = _RECURS
    off: Sequence[HeadOff] = ()
    if args.ablate:
        whole, off = without_each_head(loaded, pair)
        facts["log-probability"] = f"{whole:.3f} nats"
    folder = Path(args.output)
    written = [folder / _PAGE, folder / _TABLE]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(written[0], page(facts, maps, off))
    write_text(written[1], table(maps))
    written += _pictures(maps, folder)
    print(f"target\t{pair.text}\nalignment\t{pairs}")
    if args.ablate:
        print(f"log-probability\t{whole:.4f}")
    for head in off:
        print(f"off\t{head.kind}\t{head.layer + 1}\t{head.head + 1}\t{head.change:.4f}")
    for file in written:
        print(f"file\t{file}")


def page(facts: Mapping[str, str], maps: Mapping[str, "AttentionMap"], off: Sequence["HeadOff"] = ()) -> str:
    """Returns the page: HTML that loads nothing.

    Args:
      facts: what stands above the figure, by name.
      maps: as `attention_maps` returns them.
      off: what switching heads off changes, as `without_each_head` returns it; empty: not shown.
    """
    data = {"facts": list(facts.items()), "kinds": [_shown(kind, maps[kind], off) for kind in _KINDS]}
    return filled("transformer.run", "attention_page.html", data)


def table(maps: Mapping[str, "AttentionMap"]) -> str:
    """Returns every weight between words, a line each after one of names, in columns divided by tabs.

    Layers and heads count from 1, words of either side from 0, marks such as "</s>" included. Fields with
    a tab or a quote are quoted, as `csv` does.

    Args:
      maps: as `attention_maps` returns them.
    """
    import numpy as np

    from transformer.inference.attention_maps import by_words

    text = io.StringIO()
    lines = csv.writer(text, delimiter="\t", lineterminator="\n")
    lines.writerow(_COLUMNS)
    for kind in _KINDS:
        found = by_words(maps[kind])
        for (layer, head, query, key), weight in np.ndenumerate(found.weights_LHTS):
            words = found.queries[query], found.keys[key]
            lines.writerow((kind, layer + 1, head + 1, query, key, f"{weight:.{_DIGITS}f}", *words))
    return text.getvalue()


def _shown(kind: str, found: "AttentionMap", off: Sequence["HeadOff"]) -> dict[str, Any]:
    """Returns one kind of attention as the page reads it."""
    from transformer.inference.attention_maps import by_words

    name, note = _KINDS[kind]
    num_layers, num_heads = found.weights_LHTS.shape[:2]
    changes = [head.change for head in off if head.kind == kind]
    maps = {
        unit: {
            "queries": m.queries,
            "keys": m.keys,
            # In float64, or each would be written with the 17 digits of its float32.
            "weights": m.weights_LHTS.astype(float).round(_DIGITS).tolist(),
        }
        for unit, m in (("pieces", found), ("words", by_words(found)))
    }
    rows = [changes[i : i + num_heads] for i in range(0, len(changes), num_heads)]
    if len(rows) == 1:
        rows *= num_layers  # a layer that recurs: a head of it is off at every step
    return {"name": name, "note": note, "layers": num_layers, "heads": num_heads, "off": rows or None, **maps}


def _pictures(maps: Mapping[str, "AttentionMap"], folder: Path) -> list[Path]:
    """Draws all layers (a row each) and heads of each kind; returns the files."""
    from transformer.run.pictures import heat_maps

    files = []
    for kind, (name, _) in _KINDS.items():
        found = maps[kind]
        num_heads = found.weights_LHTS.shape[1]
        panels = [
            (f"layer {i + 1}, head {h + 1}", weights_TS)
            for i, layer_HTS in enumerate(found.weights_LHTS)
            for h, weights_TS in enumerate(layer_HTS)
        ]
        files.append(folder / f"attention_{kind}.png")
        sides = (found.keys, "is read"), (found.queries, "reads")
        heat_maps(panels, num_heads, *sides, files[-1], name.capitalize())
    return files
