"""Translates sentences with MarianMTModel.generate(), shortest first, and writes ids and seconds."""

import argparse

import torch
from feed import BOS_ID, EOS_ID, PAD_ID, Meter, padded, read_sentences, usable_cores, write
from marian import device_facts, load_model


def main() -> None:
    """Reads the command line, translates, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help=".npz that bridge.py wrote")
    parser.add_argument("--sentences", required=True, help=".npz of source ids")
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--length_penalty", type=float, default=1.0)
    parser.add_argument("--max_extra_length", type=int, default=50, help="longest output: source + N")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.weights).to(args.device, getattr(torch, args.dtype))
    sentences = read_sentences(args.sentences)
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    cut = [order[i : i + args.batch_size] for i in range(0, len(order), args.batch_size)]

    @torch.inference_mode()
    def translate(chosen: list[int]) -> list[list[int]]:
        source = torch.from_numpy(padded([sentences[i] for i in chosen])).to(args.device)
        rows = model.generate(
            source,
            attention_mask=(source != PAD_ID).long(),
            num_beams=args.beam_size,
            do_sample=False,
            length_penalty=args.length_penalty,
            max_new_tokens=source.shape[1] + args.max_extra_length,
        )
        return [[i for i in row if i not in (PAD_ID, BOS_ID, EOS_ID)] for row in rows.tolist()]

    translate(cut[len(cut) // 2])
    outputs: list[list[int]] = [[] for _ in sentences]
    meter = Meter()
    for chosen in cut:
        for i, ids in zip(chosen, translate(chosen), strict=True):
            outputs[i] = ids
    wall, cores = meter.read()
    result = {"seconds": wall, "cores_busy": cores, "threads": str(args.threads), "outputs": outputs}
    write(args.json, ("torch", "transformers", "numpy"), {**result, **device_facts(args.device)})


if __name__ == "__main__":
    main()
