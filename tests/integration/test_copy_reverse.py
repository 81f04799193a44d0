"""A small model learns to copy and to reverse what it has never seen: the whole way, text to text."""

import random
from pathlib import Path

import pytest

from transformer.config_mapping import from_config_dict
from transformer.inference.translator import Translator
from transformer.run.train import train

LETTERS = "abcdefghij"
TRAIN, DEV, TEST = 20_000, 64, 256
STEPS = 200


def draw_lines(count: int) -> list[str]:
    """Different sequences of 2 to 6 letters."""
    draw = random.Random(0)
    lines: dict[str, None] = {}
    while len(lines) < count:
        lines[" ".join(draw.choices(LETTERS, k=draw.randint(2, 6)))] = None
    return list(lines)


@pytest.mark.parametrize("task", [pytest.param("copy", marks=pytest.mark.slow), "reverse"])
def test_a_small_model_learns(tmp_path: Path, task: str):
    sources = draw_lines(TRAIN + DEV + TEST)
    targets = sources if task == "copy" else [line[::-1] for line in sources]
    files = {}
    for split, rows in (("train", slice(TRAIN)), ("dev", slice(TRAIN, TRAIN + DEV))):
        for side, lines in (("source", sources), ("target", targets)):
            (tmp_path / f"{split}.{side}").write_text("".join(f"{line}\n" for line in lines[rows]))
            files[f"{split}_{side}"] = (f"{split}.{side}",)
    config = from_config_dict(
        {
            "model": dict(
                d_model=64,
                d_ff=128,
                num_heads=4,
                num_encoder_layers=2,
                num_decoder_layers=2,
                dropout_rate=0.0,
                max_length=12,
                norm="pre",
            ),
            "tokenizer": dict(model_type="word", vocab_size=4 + len(LETTERS)),
            "data": dict(root=str(tmp_path), row_length=16, batch_tokens=768, **files),
            "optim": dict(learning_rate=4e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
            "decode": dict(max_extra_length=4),
            "run": dict(
                num_steps=STEPS,
                eval_every=STEPS,
                save_every=STEPS,
                eval_lines=DEV,
                best_metric="exact_match",
            ),
        }
    )
    train(config, str(tmp_path / "run"))
    outputs = Translator.load(tmp_path / "run").translate(sources[TRAIN + DEV :])
    exact = sum(a == b for a, b in zip(outputs, targets[TRAIN + DEV :], strict=True))
    assert exact >= 0.98 * TEST
