"""An encoder alone, from text to labels: learnt, stopped, continued, begun from a masked language model."""

import random

import numpy as np
import pytest
from tiny_run import SETTINGS, changed, compiled_once, lines_of, read_arrays, write_recipe

from transformer import cli
from transformer.io.metrics_file import read_metrics

KINDS = {"insect": ["ant", "bee", "bug"], "big cat": ["lion", "lynx", "puma"], "": ["the", "and", "of"]}
CLASSES = {word: kind.replace(" ", "_") or "other" for kind, words in KINDS.items() for word in words}
TINY = changed(
    SETTINGS,
    model=dict(kind="encoder_only", max_length=8, dropout_rate=0.1),
    tokenizer=dict(model_type="word", vocab_size=4 + len(CLASSES)),
    data=dict(row_length=32),
    optim=dict(learning_rate=0.02, schedule="constant", accumulation_steps=1, ema_decay=0.0),
    run=dict(eval_every=20, save_every=20, best_metric="accuracy"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Lines that name an animal, with its kind, and a class for each word."""
    folder, draw = tmp_path_factory.mktemp("encoder"), random.Random(3)
    for split, count in (("train", 300), ("dev", 20)):
        rows = []
        for _ in range(count):
            kind = draw.choice(["insect", "big cat"])
            words = [*draw.choices(KINDS[""], k=draw.randint(0, 4)), draw.choice(KINDS[kind])]
            draw.shuffle(words)
            rows.append((" ".join(words), kind, " ".join(CLASSES[word] for word in words)))
        for name, lines in zip(("text", "kind", "classes"), zip(*rows, strict=True), strict=True):
            (folder / f"{split}.{name}").write_text("".join(f"{line}\n" for line in lines))
    with compiled_once():
        yield folder


def recipe(folder, name: str, labels: str, target: str = "", **changes):
    data = dict(root=str(folder), labels=labels, train_source=("train.text",), dev_source=("dev.text",))
    if target:
        data |= dict(train_target=(f"train.{target}",), dev_target=(f"dev.{target}",))
    return write_recipe(folder / f"{name}.py", changed(TINY, data=data, **changes))


def train(file, run, *overrides: str) -> int:
    return cli.main(["train", "--config", str(file), "--workdir", str(run), *overrides])


def test_a_classifier_of_lines_learns_and_continues_to_the_bit(folder, capsys):
    file = recipe(folder, "kind", "line", "kind")
    whole, stopped = folder / "whole", folder / "stopped"
    assert train(file, whole, "--config.run.num_steps=40") == 0
    assert train(file, stopped, "--config.run.num_steps=20") == 0
    assert train(file, stopped, "--config.run.num_steps=40") == 0
    assert lines_of(stopped) == lines_of(whole)
    ours, theirs = read_arrays(stopped, 40), read_arrays(whole, 40)
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        np.testing.assert_array_equal(x, theirs[path], err_msg=path)
    assert lines_of(whole)["dev", 40]["accuracy"] == 100
    capsys.readouterr()

    assert cli.main(["evaluate", "--model", str(whole), "--split", "dev"]) == 0
    assert "accuracy 100.00 %  (20 of 20 labels)" in capsys.readouterr().out
    (folder / "lines").write_text("the puma and\n\nbee\n" + " ".join(["of"] * 9 + ["ant"]) + "\n")
    arguments = ["classify", "--model", str(whole), "--input", str(folder / "lines"), "--n_best", "2"]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.split("\n")]
    assert rows[1] == [""] and rows[0][::2] == ["big cat", "insect"] and rows[2][0] == "insect"
    assert sum(map(float, rows[0][1::2])) == pytest.approx(1, abs=2e-4)
    assert "1 lines were longer than the model was trained for" in err
    assert cli.main(["translate", "--model", str(whole), "--input", str(folder / "lines")]) == 2
    assert "config.model.kind is 'encoder_only', and this needs 'encoder_decoder'" in capsys.readouterr().err


def test_a_classifier_of_words_begins_with_a_masked_language_model(folder, capsys):
    base, run = folder / "masked", folder / "classes"
    masked = recipe(folder, "masked", "none", run=dict(num_steps=3, best_metric="nll"))
    assert train(masked, base) == 0
    dev = lines_of(base)["dev", 3]
    assert 1 < dev["nll"] < 5 and dev["perplexity"] == pytest.approx(np.exp(dev["nll"]))  # log(13) = 2.6
    assert 0 < lines_of(base)["train", 3]["target_tokens"] < 0.3 * lines_of(base)["train", 3]["source_tokens"]
    capsys.readouterr()
    assert cli.main(["evaluate", "--model", str(base), "--split", "dev"]) == 0
    told = capsys.readouterr().out.split("nll ")[1].split()[0]
    assert float(told) == pytest.approx(dev["nll"], abs=1e-4)
    assert cli.main(["classify", "--model", str(base), "--input", str(folder / "dev.text")]) == 2
    assert "knows masked pieces and no labels" in capsys.readouterr().err

    file = recipe(folder, "classes", "word", "classes", run=dict(num_steps=40))
    assert train(file, run, f"--config.init.model={base}") == 0
    (init,) = [record for record in read_metrics(run) if record["split"] == "init"]
    assert init["new"] == ["output/embedding"] and not init["left"] and "shared/embedding" in init["taken"]
    assert "1 new (output/embedding)" in capsys.readouterr().err
    assert cli.main(["classify", "--model", str(run), "--input", str(folder / "dev.text")]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [labels for labels, _ in rows] == (folder / "dev.classes").read_text().splitlines()
    assert all(0.3 < float(p) <= 1 for _, ps in rows for p in ps.split())
