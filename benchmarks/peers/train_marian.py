"""Trains MarianMTModel for some steps, as its users do, and writes what that took.

Adam (fused), label smoothing 0.1, scaled_dot_product_attention, float32 (on a GPU autocast to bfloat16);
padded batches of like length.
"""

import argparse
import json
import time

import numpy as np
import torch
from feed import PAD_ID, Meter, Padded, batches, usable_cores, write
from marian import device_facts, make_model
from torch.nn.functional import cross_entropy
from transformers import MarianMTModel


def loss_of(model: MarianMTModel, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns the smoothed loss per real target token."""
    start = torch.full_like(target[:, :1], model.config.decoder_start_token_id)
    logits = model(
        input_ids=source,
        attention_mask=(source != PAD_ID).long(),
        decoder_input_ids=torch.cat([start, target[:, :-1]], dim=1),
        use_cache=False,
    ).logits
    return cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD_ID, label_smoothing=0.1)


def main() -> None:
    """Reads the command line, trains, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True, help=".npz of encoded pairs")
    parser.add_argument("--sizes", required=True, type=json.loads, help="JSON, see marian.make_model")
    parser.add_argument("--target_tokens", type=int, default=4096, help="real ones in a step, about")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: bfloat16 products")
    parser.add_argument("--compile", action="store_true", help="torch.compile, with dynamic shapes")
    parser.add_argument("--json", required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = make_model(args.sizes).to(args.device).train()
    bfloat16 = torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
    compute = torch.compile(loss_of, dynamic=True) if args.compile else loss_of

    def step(batch: Padded) -> float:
        source, target = (torch.from_numpy(x).to(args.device) for x in (batch.source, batch.target))
        with bfloat16:
            loss = compute(model, source, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    feed = batches(args.pairs, args.target_tokens)
    early = Meter()
    for _ in range(args.warmup):
        step(next(feed))
    first_seconds, _ = early.read()
    seconds, taken = [], []
    meter = Meter()
    for _ in range(args.steps):
        batch = next(feed)
        start = time.perf_counter()
        loss = step(batch)
        seconds.append(time.perf_counter() - start)
        taken.append(batch)
    wall, cores = meter.read()
    source, target = sum(b.source_tokens for b in taken), sum(b.target_tokens for b in taken)
    median, p90 = np.percentile(seconds, [50, 90]).tolist()
    write(
        args.json,
        ("torch", "transformers", "numpy"),
        {
            "source_tokens_per_second": source / wall,
            "target_tokens_per_second": target / wall,
            "target_tokens_per_step": target / args.steps,
            "step_time_median": median,
            "step_time_p90": p90,
            "padding_target": 1 - target / sum(b.target.size for b in taken),
            "compile_time": max(first_seconds - args.warmup * median, 0.0) if args.compile else 0.0,
            "cores_busy": cores,
            "threads": args.threads,
            "last_loss": loss,
            "parameters": sum(p.numel() for p in model.parameters()),
            **device_facts(args.device),
        },
    )


if __name__ == "__main__":
    main()
