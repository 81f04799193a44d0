"""What a run would be, without running it."""

import json
import tempfile

import jax

from transformer.config import Config, to_dict
from transformer.data.encoded import left_out
from transformer.io.devices import make_mesh
from transformer.io.workdir import Workdir
from transformer.model.size import count_parameters, flops_per_token, memory_estimate
from transformer.model.transformer import Transformer
from transformer.run.prepare import prepare_data
from transformer.run.train import say


def dry_run(config: Config, root: str | None) -> None:
    """Prints the resolved configuration, parameters by part, FLOPs, memory and data counts.

    Reads all data, and trains a tokenizer if the run has none, in a temporary folder: nothing is
    left behind.
    """
    changes = Workdir(root).check_config(config) if root else []
    mesh = make_mesh(config.mesh)
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Workdir(scratch)
        if root and Workdir(root).tokenizer.exists():
            workdir.tokenizer = Workdir(root).tokenizer
        data = prepare_data(config, workdir, say)
        tokenizer = data.tokenizer
        counts = data.counts
        kept = max(sum(c["kept"] for name, c in counts.items() if name.startswith("train")), 1)
        mean = [
            sum(c[f"{side}_tokens"] for name, c in counts.items() if name.startswith("train")) / kept
            for side in ("source", "target")
        ]
    model = Transformer(config.model, tokenizer.source_vocab, tokenizer.target_vocab)
    row_length = config.data.row_length or config.model.max_length
    rows = config.data.batch_tokens // row_length // config.optim.accumulation_steps
    print(json.dumps(to_dict(config), indent=2, ensure_ascii=False))
    for line in changes:
        print(f"changed: {line}")
    print("\nparameters")
    for part, number in count_parameters(model).items():
        print(f"  {part:<12} {number:>14,}")
    print(
        f"\ntraining FLOPs per target token: {flops_per_token(model, *mean):,.0f} "
        f"(mean lengths {mean[0]:.1f} and {mean[1]:.1f} tokens)"
    )
    print(f"\nmemory estimate, bytes (all {jax.device_count()} devices: mesh {dict(mesh.shape)})")
    estimate = memory_estimate(
        model,
        config.optim.name,
        max(rows, 1),
        row_length,
        config.optim.ema_decay > 0,
        config.optim.loss_chunk,
    )
    for part, number in estimate.items():
        print(f"  {part:<12} {number:>18,}")
    print("\ndata")
    for name, count in counts.items():
        print(
            f"  {name}: {count['kept']:,} of {count['lines']:,} pairs, {count['source_tokens']:,} + "
            f"{count['target_tokens']:,} tokens; left out: {left_out(count)}"
        )
