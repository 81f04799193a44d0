"""From our files to those that the peers read, and back: run by `compare.py` with the project's own Python.

bridge.py pairs --recipe FILE --data DIR --scratch DIR --output FILE.npz    encoded training pairs, sizes
bridge.py weights --model DIR --output FILE.npz                          a run's weights by Marian's names
bridge.py text --model DIR [--lines N] --output FOLDER    its test set: source.txt, reference.txt, source.npz
bridge.py score --model DIR --reference FILE --json FILE     puts BLEU in the place of a peer's outputs
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformer.config import Config
from transformer.data.corpus import open_corpora
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError, UserError
from transformer.inference.model_directory import load_model
from transformer.io.text import line_writer, read_lines
from transformer.io.workdir import Workdir
from transformer.metrics.scores import score
from transformer.recipes import load_config
from transformer.run.prepare import prepare_data
from transformer.special_ids import BOS_ID, PAD_ID

_ATTENTIONS = (("self_attention", "self_attn"), ("cross_attention", "encoder_attn"))
_PROJECTIONS = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))


def save_sentences(file: str, sentences: Iterable[Sequence[int]], **more: Any) -> None:
    """Writes ids one after the other as `tokens`, and where they are cut as `bounds`."""
    listed = [np.asarray(ids, np.int32) for ids in sentences]
    bounds = np.cumsum([0, *map(len, listed)])
    np.savez(file, tokens=np.concatenate(listed), bounds=bounds, **more)


def sizes(config: Config, vocab: int) -> str:
    """Returns the model's sizes as JSON, as peers/marian.py reads them."""
    m = config.model
    return json.dumps(
        {
            "vocab_size": vocab,
            "d_model": m.d_model,
            "heads": m.num_heads,
            "d_ff": m.d_ff,
            "encoder_layers": m.num_encoder_layers,
            "decoder_layers": m.num_decoder_layers,
            "dropout": m.dropout_rate,
        }
    )


def write_pairs(args: argparse.Namespace) -> None:
    """Prepares the recipe's training data as a run does, and writes its pairs with the model's sizes."""
    config = load_config(args.recipe, [f"--config.data.root={args.data}"])
    data = prepare_data(config, Workdir(args.scratch), lambda line: print(line, file=sys.stderr))
    vocab = data.tokenizer.target_vocab
    ids = (side for corpus in data.train for pair in corpus for side in pair)
    save_sentences(args.output, ids, sizes=np.array(sizes(config, vocab)))


def marian_weights(params: Any, config: Config) -> dict[str, np.ndarray]:
    """Returns the parameters by the names of MarianMTModel's state.

    Marian has all sines of the position signal before all cosines, we (as the paper) in turn: the model
    is the same with d_model's axis in another order everywhere.

    Raises:
      ConfigError: if Marian has no such model.
    """
    m = config.model
    needs = {
        "norm": (m.norm, "post"),
        "positions": (m.positions, "sinusoidal"),
        "tied_embeddings": (m.tied_embeddings, "all"),
        "activation": (m.activation, "relu"),
        "attention_bias": (m.attention_bias, True),
        "scan_layers": (m.scan_layers, False),
        "norm_epsilon": (m.norm_epsilon, 1e-5),
    }
    for key, (got, wanted) in needs.items():
        if got != wanted:
            raise ConfigError(
                f"config.model.{key}: is {got!r}, Marian's is {wanted!r}; "
                "train with a recipe of benchmarks/recipes"
            )
    order = np.concatenate([np.arange(0, m.d_model, 2), np.arange(1, m.d_model, 2)])
    table = np.asarray(params["shared"]["embedding"])
    bias = np.zeros((1, len(table)), np.float32)
    bias[:, [PAD_ID, BOS_ID]] = -1e9  # never part of an output
    weights = {"model.shared.weight": table[:, order], "final_logits_bias": bias}
    for stack in ("encoder", "decoder"):
        for name, layer in params[stack].items():
            place = f"model.{stack}.layers.{name.removeprefix('layer_')}"
            for ours, theirs in _layer(layer, m.d_model, order):
                weights[f"{place}.{ours}"] = np.ascontiguousarray(theirs)
    return weights


def _layer(layer: Any, d_model: int, order: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    """Yields Marian's name and value of each parameter of a layer; Linear's weights are [output, input]."""
    for ours, theirs in _ATTENTIONS:
        if ours not in layer:
            continue
        for part, name in _PROJECTIONS:
            kernel, bias = (np.asarray(layer[ours][part][key]) for key in ("kernel", "bias"))
            weight = kernel.reshape(d_model, d_model).T
            into = part == "out"
            yield f"{theirs}.{name}.weight", weight[order] if into else weight[:, order]
            yield f"{theirs}.{name}.bias", bias[order] if into else bias.reshape(-1)
        yield from _norm(f"{theirs}_layer_norm", layer[f"{ours}_norm"], order)
    inner, outer = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
    yield "fc1.weight", np.asarray(inner["kernel"]).T[:, order]
    yield "fc1.bias", np.asarray(inner["bias"])
    yield "fc2.weight", np.asarray(outer["kernel"]).T[order]
    yield "fc2.bias", np.asarray(outer["bias"])[order]
    yield from _norm("final_layer_norm", layer["feed_forward_norm"], order)


def _norm(name: str, norm: Any, order: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    yield f"{name}.weight", np.asarray(norm["scale"])[order]
    yield f"{name}.bias", np.asarray(norm["bias"])[order]


def write_weights(args: argparse.Namespace) -> None:
    """Writes a run's weights and sizes."""
    loaded = load_model(args.model, args.checkpoint)
    weights = marian_weights(loaded.params, loaded.config)
    np.savez(args.output, sizes=np.array(sizes(loaded.config, loaded.tokenizer.target_vocab)), **weights)


def write_text(args: argparse.Namespace) -> None:
    """Writes the first test set of a run as text, and its source as ids."""
    workdir, folder = Workdir(args.model), Path(args.output)
    corpora = open_corpora(workdir.load_config().data, "test", workdir.data)
    if not corpora:
        raise ConfigError(f"{args.model}: the run has no test set; train with a recipe of benchmarks/recipes")
    pairs = [pair for pair in corpora[0] if pair is not None][: args.lines]
    for name, lines in zip(("source", "reference"), zip(*pairs, strict=True), strict=True):
        with line_writer(str(folder / f"{name}.txt")) as write:
            write(lines)
    ids = Tokenizer.load(workdir.tokenizer).encode_source([source for source, _ in pairs])
    save_sentences(str(folder / "source.npz"), ids)


def add_score(args: argparse.Namespace) -> None:
    """Puts `bleu`, `sentences` and `output_tokens` (end marks included) in the place of the outputs."""
    tokenizer = Tokenizer.load(Workdir(args.model).tokenizer)
    file = Path(args.json)
    result = json.loads(file.read_text())
    outputs = result.pop("outputs")
    result["bleu"] = score(tokenizer.decode_target(outputs), [read_lines(args.reference)]).bleu
    result["sentences"] = len(outputs)
    result["output_tokens"] = sum(len(ids) + 1 for ids in outputs)
    file.write_text(json.dumps(result) + "\n")


def main() -> int:
    """Runs one of the verbs above; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    takes = {
        write_pairs: ("pairs", "recipe", "data", "scratch", "output"),
        write_weights: ("weights", "model", "output"),
        write_text: ("text", "model", "output"),
        add_score: ("score", "model", "reference", "json"),
    }
    for verb, (name, *options) in takes.items():
        p = verbs.add_parser(name, help=verb.__doc__)
        p.set_defaults(run=verb)
        for option in options:
            p.add_argument(f"--{option}", required=True)
        p.add_argument("--checkpoint", default="best")
        p.add_argument("--lines", type=int)
    args = parser.parse_args()
    try:
        args.run(args)
    except UserError as error:
        print(f"bridge.py: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
