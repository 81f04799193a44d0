"""Small model directories: the same bits, a card of what was recorded, and nothing swapped."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import own_models
import pytest
from safetensors.numpy import load_file

from transformer import cli
from transformer.inference.model_directory import load_model

RECORDS = [
    {"split": "data", "step": 0, "train a.en|a.de": {"kept": 1234}, "dev b": {"kept": 5}},
    {
        "split": "train",
        "step": 7,
        "source_tokens": 1000,
        "target_tokens": 2000,
        "tokens_per_second": 10.0,
        "loss": 1.0,
    },
    {"split": "test", "step": 6, "bleu": 99.0, "chrf": 9.0, "bleu_signature": "x", "chrf_signature": "y"},
    {
        "split": "test",
        "step": 7,
        "bleu": 12.345,
        "chrf": 50.0,
        "bleu_signature": "b|1",
        "chrf_signature": "c|2",
    },
]


def export(tmp_path: Path, *more: str) -> int:
    return cli.main(
        ["export", "safetensors", "--model", str(tmp_path / "run"), "--to", str(tmp_path / "small"), *more]
    )


def test_it_is_the_same_model_with_a_card_of_what_was_recorded(tmp_path, capsys):
    own_models.write(tmp_path / "run")
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (tmp_path / "run" / "metrics.jsonl").write_text(lines)
    said = ["--languages", "en,de", "--license", "mit", "--datasets", "cldr"]
    assert export(tmp_path, *said) == 0
    assert "with the parameters of step 7" in capsys.readouterr().out
    before, after = load_model(tmp_path / "run"), load_model(tmp_path / "small", "7")
    assert before.step == after.step == 7
    assert before.tokenizer.digest == after.tokenizer.digest
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    tensors = load_file(tmp_path / "small" / "model.safetensors")
    np.testing.assert_array_equal(tensors["shared/embedding"], before.params["shared"]["embedding"])
    card = (tmp_path / "small" / "README.md").read_text()
    front = dict(line.split(": ", 1) for line in card.split("---\n")[1].splitlines())
    assert json.loads(front["language"]) == ["en", "de"] and json.loads(front["license"]) == "mit"
    (index,) = json.loads(front["model-index"])
    assert index["results"][0]["metrics"][0] == {
        "type": "bleu",
        "value": round(12.345, 2),
        "name": "BLEU b|1",
    }
    assert "base_model" not in front and "99.0" not in card
    assert r"| test | chrF | 50.00 | `c\|2` |" in card
    assert "a.en|a.de: 1,234 pairs." in card
    assert (
        "7 steps; by the 1 that were logged, about 7,000 source and 14,000 target tokens, 0.58 hours" in card
    )
    # It is not written over, and has one step.
    assert export(tmp_path) == 4 and "is there already" in capsys.readouterr().err
    assert cli.main(["translate", "--model", str(tmp_path / "small"), "--checkpoint", "9"]) == 4


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        ({"nll": 3.0, "perplexity": 20.086}, "| test | perplexity | 20.09 | |"),
        ({"rouge1": 15.1, "signature": "r|1"}, r"| test | ROUGE-1 | 15.10 | `r\|1` |"),
    ],
)
def test_scores_of_other_tasks_are_in_the_card(tmp_path, scores, line):
    own_models.write(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"split": "test", "step": 7, **scores}) + "\n")
    assert export(tmp_path) == 0
    assert line in (tmp_path / "small" / "README.md").read_text()


def test_what_was_not_recorded_is_not_in_the_card(tmp_path):
    own_models.write(tmp_path / "run")
    assert export(tmp_path) == 0
    card = (tmp_path / "small" / "README.md").read_text()
    assert card.split("---\n")[1] == 'pipeline_tag: "translation"\n'
    assert "Scores" not in card and "Training" not in card


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("swapped", "tokenizer: is not the tokenizer that this model was trained with"),
        ("edited", "joint.model: damaged: sha256 is .* restore the file"),
        ("config", "config.model.norm is 'pre', was 'post'; put the old values back"),
        ("flipped", "model.safetensors is damaged: it has another xxh3_128"),
        ("seal", "seal.json: cannot be read: .*; restore it"),
    ],
)
def test_swapped_and_edited_parts_are_refused(tmp_path, capsys, how, message):
    own_models.write(tmp_path / "run")
    assert export(tmp_path) == 0
    small = tmp_path / "small"
    if how == "swapped":
        own_models.write(tmp_path / "other", joint=False, tied_embeddings="target")
        shutil.rmtree(small / "tokenizer")
        shutil.copytree(tmp_path / "other" / "tokenizer", small / "tokenizer")
    elif how == "edited":
        path = small / "tokenizer" / "joint.model"
        path.write_bytes(path.read_bytes().replace(b"<unk>", b"<UNK>"))
    elif how == "config":
        path = small / "config.json"
        path.write_text(path.read_text().replace('"norm": "post"', '"norm": "pre"'))
    elif how == "flipped":
        path = small / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    else:
        (small / "seal.json").write_text("{")
    capsys.readouterr()
    assert cli.main(["translate", "--model", str(small)]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said), said
