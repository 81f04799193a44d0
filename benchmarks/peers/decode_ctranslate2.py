"""Translates sentences with CTranslate2 and writes ids and seconds."""

import argparse
import json
from pathlib import Path

import ctranslate2
from feed import Meter, read_sentences, usable_cores, write


def read_names(model: Path, side: str) -> list[str]:
    """Returns the name of each id of a side."""
    names = (f"{side}_vocabulary.json", "shared_vocabulary.json")
    return json.loads(next(model / name for name in names if (model / name).exists()).read_text("utf-8"))


def main() -> None:
    """Reads the command line, translates, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder that `transformer export ctranslate2` wrote")
    parser.add_argument("--sentences", required=True, help=".npz of source ids")
    parser.add_argument("--compute_type", choices=("float32", "int8"), default="float32")
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--length_penalty", type=float, default=1.0)
    parser.add_argument("--max_extra_length", type=int, default=50, help="longest output: source + N")
    parser.add_argument("--inter_threads", type=int, default=1, help="batches at the same time")
    parser.add_argument("--intra_threads", type=int, default=usable_cores(), help="threads of each")
    parser.add_argument("--json", required=True)
    args = parser.parse_args()
    source, target = (read_names(Path(args.model), side) for side in ("source", "target"))
    places = {name: i for i, name in enumerate(target)}
    ids = read_sentences(args.sentences)
    sentences = [[source[i] for i in row[:-1]] for row in ids]  # the library adds the end mark itself
    translator = ctranslate2.Translator(
        args.model,
        device="cpu",
        compute_type=args.compute_type,
        inter_threads=args.inter_threads,
        intra_threads=args.intra_threads,
    )

    def translate(lines: list[list[str]]) -> list[list[int]]:
        found = translator.translate_batch(  # which sorts by length itself
            lines,
            max_batch_size=args.batch_size,
            beam_size=args.beam_size,
            length_penalty=args.length_penalty,
            max_decoding_length=max(map(len, ids)) + args.max_extra_length,
        )
        return [[places[piece] for piece in one.hypotheses[0]] for one in found]

    translate(sentences[: args.inter_threads * args.batch_size])
    meter = Meter()
    outputs = translate(sentences)
    wall, cores = meter.read()
    threads = f"{args.inter_threads} x {args.intra_threads}"
    result = {"device": "cpu", "threads": threads, "seconds": wall, "cores_busy": cores, "outputs": outputs}
    write(args.json, ("ctranslate2", "numpy"), result)


if __name__ == "__main__":
    main()
