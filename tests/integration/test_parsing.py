"""The parsing recipes on stand-in trees: one step, then trees for sentences and a score."""

import random

import pytest
from tiny_run import ROOT, compiled_once
from unit.parsing.treebank import random_tree

from transformer import cli
from transformer.io.metrics_file import read_metrics
from transformer.parsing.trees import TRACE, Tree, read_tree

SIZES = {
    "model.d_model": 16,
    "model.d_ff": 32,
    "model.num_heads": 2,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
    "model.max_length": 32,
    "tokenizer.vocab_size": 45,
    "data.batch_tokens": 128,
    "data.packing_bins": 8,
    "optim.loss_chunk": 64,
    "run.num_steps": 1,
    "decode.beam_size": 2,
    "decode.max_extra_length": 9,
}


def stand_in(draw: random.Random) -> Tree:
    tree = random_tree(draw, draw.randint(2, 6))
    return tree.tagged([leaf.tag.replace(TRACE, "NN") for leaf in tree.leaves])


@pytest.mark.parametrize("recipe", ["gum_parsing", pytest.param("gum_parsing_semi", marks=pytest.mark.slow)])
def test_from_trees_to_trees(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    draw, run = random.Random(12), tmp_path / "run"
    for split, count in (("train", 60), ("dev", 5), ("test", 5)):
        lines = (f"{stand_in(draw)}\n" for _ in range(count))
        (tmp_path / f"{split}.clean.trees.gz").write_text("".join(lines))
    (tmp_path / "silver.trees").write_text("".join(f"{stand_in(draw)}\n" for _ in range(20)))
    overrides = {**SIZES, "data.root": tmp_path}
    with compiled_once():
        arguments = ["train", "--config", f"configs/{recipe}.py", "--workdir", str(run)]
        assert cli.main([*arguments, *(f"--config.{key}={value}" for key, value in overrides.items())]) == 0
        records = {record["split"]: record for record in read_metrics(run)}
        assert 2 < records["train"]["loss"] < 8 and records["dev"]["nll"] < 8  # about log(45) = 3.8

        (tmp_path / "text").write_text("a b ( c\n\nd\n")
        capsys.readouterr()
        assert cli.main(["parse", "--model", str(run), "--input", str(tmp_path / "text")]) == 0
        out, err = capsys.readouterr()
        first, empty, last, end = out.split("\n")
        assert (empty, end) == ("", "")
        assert read_tree(first, "out").words == ("a", "b", "-LRB-", "c")
        assert read_tree(last, "out").words == ("d",)
        assert "3 sentences parsed, 0 trees repaired: none" in err  # of a model that knows nothing

        def refused(*arguments, code):
            assert cli.main([*map(str, arguments)]) == code
            return capsys.readouterr().err.splitlines()[-1]

        parse = "parse", "--model", run, "--input", tmp_path / "text"
        message = refused(*parse, "--output", tmp_path / "text", code=3)
        assert "is a file that is read" in message
        (tmp_path / "old").write_text("trees")
        for option in ("min_length", "no_repeat_ngram_size"):
            assert f"{option}: a tree ends" in refused(
                *parse, "--output", tmp_path / "old", f"--{option}=3", code=2
            )
        assert (tmp_path / "text").read_text() and (tmp_path / "old").read_text() == "trees"
        # Tags are symbols that the first model has no pieces for.
        others = {**overrides, "data.tree_tags": "true", "init.model": run}
        arguments[-1] = str(tmp_path / "other")
        message = refused(*arguments, *(f"--config.{key}={value}" for key, value in others.items()), code=3)
        assert "is no piece of config.init.model" in message and "init.vocabulary=transplant" in message

        gold = str(tmp_path / "dev.clean.trees.gz")
        assert cli.main(["parse", "--model", str(run), "--gold", gold, "--gold_tags"]) == 0
        assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["all", "5"]
