"""Every recipe: its words, its commands, and one real optimizer step on stand-in data."""

import ast
import random
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from transformer import recipes
from transformer.cli import _parser
from transformer.config import BASE_SECTIONS, PRESETS, Config, InitConfig, LoraConfig
from transformer.config_mapping import flat, to_dict
from transformer.errors import ConfigError
from transformer.io.metrics_file import read_metrics
from transformer.recipes import load_config
from transformer.run.train import train

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*.py"))
SIZES = {
    "model.d_model": 16,
    "model.d_ff": 32,
    "model.num_heads": 2,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
    "model.max_length": 32,
    "tokenizer.vocab_size": 40,
    "data.kind": "text",
    "data.train_weights": "",
    "data.target_length": 0,
    "data.batch_tokens": 128,
    "data.packing_bins": 8,
    "optim.loss_chunk": 64,
    "decode.beam_size": 2,
    "decode.max_extra_length": 2,
    "run.num_steps": 1,
    "run.eval_lines": 2,
}
# One that goes on from a base is begun without.
SIZES |= {
    f"{name}.{key}": "" if value == () else value
    for name, section in (("init", InitConfig()), ("lora", LoraConfig()))
    for key, value in vars(section).items()
}

# What an encoder alone reads instead: no second side, or one of labels.
FEATURES = 3
ENCODER = {"run.eval_lines": 0, "tokenizer.vocab_size": 38}
ALONE = {"data.train_target": "", "data.dev_target": "", "data.test_target": ""}
# What a classifier of lines reads: random words are no labels.
LABELS = {f"data.{split}_target": f"{split}.labels" for split in ("train", "dev", "test")}
# What a model of frames reads.
FRAMES = {"data.kind": "frames"} | {
    f"data.{split}_source": f"{split}.npy" for split in ("train", "dev", "test")
}
# What a language model of text reads.
LINES = {"data.kind": "lines", "run.eval_lines": 0} | {
    f"data.{split}_source": "" for split in ("train", "dev", "test")
}

# Between them they have nearly every option that recipes set; the others' steps are in `make test-slow`.
OFTEN = ("iwslt14_de_en", "multi30k_en_de_tiny", "text", "wmt14_en_de_big")


@pytest.fixture(autouse=True)
def bases(monkeypatch):
    """The run that a recipe starts from is that of another recipe, of its name."""

    def settings(folder):
        assert folder.parent.name == "runs"
        return to_dict(load_config(f"configs/{folder.name}.py", []))

    monkeypatch.setattr(recipes, "_settings", settings)


every_recipe = pytest.mark.parametrize("recipe", RECIPES)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """What several recipes share is compiled once."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def overrides(tmp_path_factory) -> list[str]:
    """Returns what turns any recipe into one small step on a corpus of random words."""
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(3)
    words = ["".join(draw.choices(["ba", "de", "fi", "gon", "lu", "mar", "s", "t"], k=3)) for _ in range(40)]
    files = {"data.root": str(folder)}
    for split, count in (("train", 100), ("dev", 4), ("test", 4)):
        lines = [draw.choices(words, k=3) for _ in range(count)]
        for side, order in (("source", 1), ("target", -1)):
            (folder / f"{split}.{side}").write_text("".join(" ".join(line[::order]) + "\n" for line in lines))
            files[f"data.{split}_{side}"] = f"{split}.{side}"
        (folder / f"{split}.labels").write_text("".join(f"label {i % 25}\n" for i in range(count)))
        np.save(folder / f"{split}.npy", np.ones((2 * count, FEATURES), np.float32))
        np.save(folder / f"{split}.lengths.npy", np.full(count, 2))
    return [f"--config.{key}={value}" for key, value in {**SIZES, **files}.items()]


@pytest.mark.parametrize(
    "recipe", [r if Path(r).stem in OFTEN else pytest.param(r, marks=pytest.mark.slow) for r in RECIPES]
)
def test_one_step(recipe, overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    changes, plain = {}, load_config(recipe, [])
    if plain.model.kind == "encoder_only":
        changes = ENCODER | (ALONE if plain.is_masked else LABELS if plain.data.labels == "line" else {})
    elif plain.model.source_features:
        changes = FRAMES | {"model.source_features": FEATURES}
    elif plain.model.kind == "decoder_only":
        changes = {"model.num_encoder_layers": 0} | ({} if plain.model.reads_source else LINES)
    config = load_config(recipe, [*overrides, *(f"--config.{key}={x}" for key, x in changes.items())])
    train(config, str(tmp_path / "run"))
    records = {record["split"]: record for record in read_metrics(tmp_path / "run")}
    assert records["train"]["step"] == 1
    assert 2 < records["train"]["loss"] < 8  # about log(40) = 3.7
    assert {"nll", "accuracy"} | ({"bleu", "chrf"} if config.run.eval_lines else set()) <= records[
        "dev"
    ].keys()


def docstring(recipe: str) -> str:
    text = ast.get_docstring(ast.parse((ROOT / recipe).read_text()))
    assert text, f"{recipe}: has no docstring"
    return text


def commands(recipe: str) -> list[list[str]]:
    """Returns the `transformer` commands that the docstring shows, split as a shell does."""
    lines = docstring(recipe).replace("\\\n", " ").split("\n")
    shown = [line.split(" < ")[0] for line in lines if line.startswith("    transformer ")]
    return [shlex.split(line)[1:] for line in shown]


@every_recipe
def test_docstring_says_how_to_run_it_and_what_came_out(recipe):
    text, name = docstring(recipe), Path(recipe).stem
    assert f"transformer train --config {recipe} --workdir runs/{name}" in text
    assert "Data:" in text
    # A signature of BLEU or ROUGE, or the number that a model has that writes nothing.
    assert re.search(r"Not run here\.|\|tok:|\|stems:|(accuracy|perplexity) \d", text)


@every_recipe
def test_commands_can_be_copied(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    folders = set()
    for command in commands(recipe):
        args, rest = _parser().parse_known_args(command)
        if args.verb == "train":
            config = load_config(args.config, rest)
            folders.add(args.workdir)
            continue
        assert not rest
        if args.verb == "evaluate" and args.hypothesis:
            continue  # files alone
        assert args.model in folders, "a folder that no command before has made"
        if args.verb == "average":
            assert args.last <= config.run.keep_latest
            assert config.run.eval_every % config.run.save_every == 0, "checkpoints are not evenly spaced"
            assert config.run.num_steps % config.run.save_every == 0
            folders.add(args.output)


@every_recipe
def test_only_what_differs_is_set(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(recipe, [])
    preset = {f"model.{key}": size for key, size in PRESETS[config.model.preset].items()}
    defaults = flat(Config()) | preset
    if config.init.model:
        base = recipes._settings(Path(config.init.model))
        own = {"tokenizer"} if config.init.vocabulary == "transplant" else set()
        inherited = [section for section in BASE_SECTIONS if section not in own]
        defaults |= {f"{section}.{key}": base[section][key] for section in inherited for key in base[section]}
    values = flat(config)
    targets = [
        ast.unparse(target).removeprefix("config.")
        for node in ast.walk(ast.parse((ROOT / recipe).read_text()))
        if isinstance(node, ast.Assign)
        for target in node.targets
    ]
    repeated = [key for key in targets if key in values and values[key] == defaults[key]]
    assert not repeated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = 1", "AttributeError"),
        (
            "from transformer.config import default_config\n"
            "def get_config():\n    config = default_config()\n    config.model.d_modle = 3\n",
            "d_modle.*d_model",
        ),
        ("def get_config():\n    return {'model': {'d_modle': 3}}", "unknown key; did you mean 'd_model'"),
        (
            "def get_config():\n    return {'run': 3}",
            r"mine\.py: get_config\(\) returned dict, expected sections",
        ),
        (
            "def get_config():\n    pass",
            r"mine\.py: get_config\(\) returned nothing, expected sections of keys",
        ),
        ("def get_config():\n    return {}['steps']", r"mine\.py, line 2: KeyError: steps$"),
    ],
)
def test_recipes_with_mistakes(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(file), [])
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"configs/quikstart\.py: no such recipe; did you mean 'quickstart"):
        load_config("configs/quikstart.py", [])
    with pytest.raises(ConfigError, match=r"nowhere/quickstart\.py: no such recipe"):
        load_config("nowhere/quickstart.py", [])
    with pytest.raises(ConfigError, match=r"README\.md: not a Python file"):
        load_config("README.md", [])
