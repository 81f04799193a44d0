"""What a person who made a mistake sees: one line, an exit code, nothing compiled, nothing spoilt."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import ROOT, changed, compiled_once, write_corpus, write_recipe

from transformer import cli

Cli = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """Returns a recipe of one small step, with its corpus next to it."""
    folder = tmp_path_factory.mktemp("corpus")
    settings = changed(write_corpus(folder, pairs=60), run={"num_steps": 1}, optim={"ema_decay": 0.0})
    return write_recipe(folder / "tiny.py", settings)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """Returns the folder of a finished run, to be copied."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with compiled_once():
        assert cli.main(["train", f"--config={recipe}", f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """Returns a finished run that may be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_model_is_no_run(recipe, run, command, tmp_path):
    """Training in the folder of an average or an export would be lost, since the model there is read."""
    for verb in ("average --last 1 --output", "export safetensors --to"):
        words, folder = verb.split(), tmp_path / verb.split()[0]
        assert cli.main([*words, str(folder), "--model", str(run)]) == 0
        before = sorted(folder.rglob("*"))
        code, err = command("train", f"--config={recipe}", f"--workdir={folder}")
        assert code == 4 and one_line(err).startswith(f"{folder}: holds a model and no run; to begin")
        assert sorted(folder.rglob("*")) == before


@pytest.fixture
def command(capsys) -> Cli:
    """Returns a function that runs the command in this process: (exit code, standard error)."""

    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(str(stop.code))
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    return call


@pytest.fixture
def training(command, recipe) -> Cli:
    """Returns the same for the verb train with the recipe."""
    return lambda workdir, *rest: command("train", f"--config={recipe}", f"--workdir={workdir}", *rest)


def one_line(err: str) -> str:
    """Returns the message of an error that came before anything was compiled."""
    *progress, last, end = err.split("\n")
    assert end == "" and last.startswith("transformer: error: ")
    for word in ("Traceback", "compiling", "transformer: error: "):
        assert word not in "\n".join(progress)
    return last.removeprefix("transformer: error: ")


def test_real_processes(recipe, tmp_path):
    """The three front doors, at the same time: quick, one line, without JAX, nothing made."""
    check = "from transformer.cli import main; code = main(); print('jax' in sys.modules); sys.exit(code)"
    doors = [[sys.executable, "-m", "transformer", "train"], [sys.executable, "train.py"]]
    doors.append([sys.executable, "-c", f"import sys; {check}", "train"])
    rest = [f"--config={recipe}", f"--workdir={tmp_path / 'new'}", "--config.model.d_modle=3"]
    start = time.monotonic()
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    processes = [subprocess.Popen([*door, *rest], **pipes) for door in doors]
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert time.monotonic() - start < 10
    message = "transformer: error: config.model.d_modle: unknown key; did you mean 'd_model'?\n"
    assert results == [("", message, 2), ("", message, 2), ("False\n", message, 2)]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.d_model=many", "config.model.d_model: expected a whole number, got 'many'"),
        ("model.num_heads=3", "config.model.num_heads: 3 heads do not divide d_model 16; .* example 2"),
        ("optim.learning_rate=-0.1", r"config\.optim\.learning_rate: must not be negative, got -0\.1"),
        (
            "data.batch_tokens=31",
            r"config\.data\.batch_tokens: 31 is smaller than the longest .*32 positions",
        ),
        ("model.preset=huge", "config.model.preset: 'huge' is not a choice; known: base, big, small, tiny"),
        ("mesh.tensor=64", "config.mesh: .*= 64 do not divide the 1 devices; choose"),
    ],
)
def test_values_that_cannot_be_used(training, tmp_path, override, message):
    code, err = training(tmp_path / "new", f"--config.{override}")
    assert code == 2 and re.fullmatch(message + ".*", one_line(err))
    assert not (tmp_path / "new").exists()


def test_several_faults_at_once(training, tmp_path):
    code, err = training(tmp_path / "new", "--config.model.num_heads=3", "--config.run.num_steps", "0")
    assert code == 2
    faults = err.removeprefix("transformer: error: ").splitlines()
    assert {fault.split(":")[0] for fault in faults} == {"config.model.num_heads", "config.run.num_steps"}


def test_arguments_that_are_missing_or_unknown(command, recipe, tmp_path):
    code, err = command("train", "--config=configs/quikstart.py", "--workdir", tmp_path / "new")
    assert code == 2 and "no such recipe; did you mean 'quickstart.py'?" in one_line(err)
    code, err = command("train", f"--config={recipe}")
    assert code == 2 and one_line(err).startswith("--workdir: is needed")
    code, err = command("train", f"--config={recipe}", "--wrokdir=x")
    assert code == 2 and one_line(err).startswith("--wrokdir=x: unknown argument")
    code, err = command("inspect", "--model", tmp_path)
    assert code == 2 and "unknown argument; give it without this name" in one_line(err)
    for arguments in (["train"], ["trian"], [], ["translate", "--model=x", "--beam_sise=3"]):
        code, err = command(*arguments)
        assert code == 2 and re.match(r"transformer.*: error: .+\n$", err)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(training, tmp_path):
    (tmp_path / "file").write_text("")
    code, err = training(tmp_path / "file")
    assert code == 4 and re.fullmatch(
        ".*file: cannot be written: .*; choose another --workdir", one_line(err)
    )


def write(folder: Path, source: bytes, target: bytes) -> list[str]:
    """Writes other training files; returns the overrides that name them."""
    (folder / "a.src").write_bytes(source)
    (folder / "a.tgt").write_bytes(target)
    return [
        f"--config.data.train_source={folder / 'a.src'}",
        f"--config.data.train_target={folder / 'a.tgt'}",
    ]


LINE = b"ab cd ef\n"
CHARACTERS = [
    "--config.tokenizer.model_type=char",
    "--config.tokenizer.vocab_size=11",
]  # four special, ▁, a to f


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (9 * LINE, 8 * LINE, r".*a\.src has 9 lines but .*a\.tgt has 8; .*"),
        (
            LINE + b"ab \xff\n",
            2 * LINE,
            r".*a\.src: line 2 is not UTF-8: byte 0xff at offset 3 of the line.*",
        ),
        (b"\n\n \n", 3 * LINE, r".*no usable line to train on.*"),
        (b"", b"", r".*no usable line to train on.*"),
        (9 * (b"abcdef" * 9 + b"\n"), 9 * LINE, r".*no usable line to train on \(left out: 9 too_long\)"),
    ],
)
def test_training_text_that_cannot_be_used(training, tmp_path, source, target, message):
    files = write(tmp_path, source, target)
    code, err = training(tmp_path / "new", *files, *CHARACTERS)
    assert code == 3 and re.fullmatch(message, one_line(err))


def test_an_attempt_that_failed_leaves_no_tokenizer(training, tmp_path):
    files = write(tmp_path, 9 * LINE, 9 * LINE)
    code, err = training(tmp_path / "new", *files, *CHARACTERS, "--config.data.max_ratio=0.5")
    assert code == 3 and one_line(err).endswith("no usable line to train on (left out: 9 ratio)")
    assert not (tmp_path / "new" / "tokenizer").exists()
    assert not (tmp_path / "new" / "config.json").exists()


def test_files_that_are_missing(training, tmp_path):
    code, err = training(tmp_path / "new", "--config.data.train_source=trian.source")
    assert code == 3 and re.fullmatch(
        r".*trian\.source: no such file; did you mean 'train\.source'\?", one_line(err)
    )


def test_more_pieces_than_the_text_has(training, tmp_path):
    code, err = training(tmp_path / "new", "--config.tokenizer.vocab_size=9000")
    assert code == 3 and re.search(
        r"config\.tokenizer\.vocab_size: 9000 .* at most \d+ are possible", one_line(err)
    )


def test_damaged_tokenizer(training, command, run):
    model = run / "tokenizer" / "joint.model"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    for code, err in (training(run), command("translate", "--model", run, "--input", __file__)):
        assert code == 4 and re.match(r".*joint\.model: damaged: sha256 is ", one_line(err))


def test_tokenizer_of_another_size(training, recipe, run, tmp_path):
    shutil.copytree(run / "tokenizer", tmp_path / "new" / "tokenizer")
    code, err = training(tmp_path / "new", "--config.tokenizer.vocab_size=50")
    assert code == 3
    assert re.search("has 40 pieces, config.tokenizer.vocab_size is 50; make them equal", one_line(err))


def test_corpus_that_changed(training, recipe, run, tmp_path):
    moved = Path(shutil.copytree(recipe.parent, tmp_path / "moved"))
    code, err = training(run, f"--config.data.root={moved}")
    assert code == 0, err  # the same files in another folder are the same corpus
    text = (moved / "train.source").read_text()
    (moved / "train.source").write_text("b" + text[1:] if text[0] == "a" else "a" + text[1:])
    code, err = training(run, f"--config.data.root={moved}")
    assert code == 3
    assert one_line(err).startswith("corpus changed since the run began: train.source had ")


def test_run_of_another_configuration(training, run):
    before = (run / "config.json").read_text()
    code, err = training(run, "--config.model.d_ff=64", "--config.data.seed=8", "--config.run.num_steps=9")
    assert code == 4
    message = one_line(err)
    assert "model.d_ff (was 32, now 64), data.seed (was 0, now 8)" in message
    assert "num_steps" not in message
    assert (run / "config.json").read_text() == before


def test_keys_that_may_change_are_applied_and_said(training, run):
    code, err = training(run, "--config.decode.beam_size=7", "--config.run.log_every=3")
    assert code == 0
    assert "changed: decode.beam_size: 4 -> 7\n" in err
    assert "changed: run.log_every: 1 -> 3\n" in err
    config = json.loads((run / "config.json").read_text())
    assert config["decode"]["beam_size"] == 7 and config["run"]["log_every"] == 3
    assert "changed" not in training(run, "--config.decode.beam_size=7", "--config.run.log_every=3")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["translate"],
        ["score", "--source=README.md", "--target=README.md"],
        ["evaluate"],
        ["classify"],
        ["average", "--last=1", "--output=never"],
        ["plot"],
    ],
)
def test_model_that_is_not_there(command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("a line\n")
    code, err = command(*arguments, "--model=nowhere")
    assert code == 4 and one_line(err).startswith("nowhere: not a run: it has no config.json")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_checkpoints_that_are_not_there(command, run):
    code, err = command("translate", "--model", run, "--checkpoint=7")
    assert code == 4 and re.search("has no checkpoint '7'; choose best, last or one of 1", one_line(err))
    code, err = command("average", "--model", run, "--last=5", f"--output={run}-averaged")
    assert code == 4 and re.search("has 1 checkpoints to average, not 5; keep more", one_line(err))
    code, err = command("average", "--model", run, "--last=1", f"--output={run}")
    assert code == 4 and re.search("holds a run already; choose another --output", one_line(err))


def test_text_that_cannot_be_read(command, run, tmp_path):
    (tmp_path / "bad").write_bytes(b"ab\na\xff\n")
    (tmp_path / "short").write_bytes(b"ab\n")
    code, err = command("translate", "--model", run, "--input", tmp_path / "nothing")
    assert code == 3 and "no such file" in one_line(err)
    code, err = command("translate", "--model", run, "--input", tmp_path / "bad")
    assert code == 3 and re.match(r".*bad: line 2 .*UTF-8.*byte", one_line(err))
    code, err = command("score", "--model", run, "--source", __file__, "--target", tmp_path / "short")
    assert code == 3 and re.search(r"has \d+ lines, .*short 1;", one_line(err))
    code, err = command("evaluate", "--hypothesis", __file__, "--reference", tmp_path / "short")
    assert code == 3 and re.search("1", one_line(err))
    code, err = command("evaluate", "--hypothesis", __file__)
    assert code == 2 and one_line(err).startswith("--hypothesis: needs --reference")
    out = tmp_path / "out"
    out.write_text("translated\n")
    here = "--input", tmp_path / "short", "--output"
    code, err = command("translate", "--model", run, "--beam_size=0", *here, out)
    assert code == 2 and re.search("beam_size: must be above 0, got 0", one_line(err))
    code, err = command("translate", "--model", run, *here, tmp_path / "short")
    assert code == 3 and one_line(err).endswith("short: is a file that is read; write to another one")
    assert (tmp_path / "short").read_bytes() == b"ab\n" and out.read_text() == "translated\n"
    code, err = command(
        "score", "--model", run, "--source", tmp_path / "short", "--target", out, "--output", out
    )
    assert code == 3 and "out: is a file that is read" in one_line(err)
    (tmp_path / "two").write_text("a\nb\n")
    pair = "--source", tmp_path / "short", "--reference", tmp_path / "short", "--output", out
    code, err = command("evaluate", "--model", run, *pair[:-1], tmp_path / "short")
    assert code == 3 and "short: is a file that is read" in one_line(err)
    code, err = command("evaluate", "--model", run, *pair[2:4])
    assert code == 2 and one_line(err).startswith("--reference: needs --source")
    files = "--hypothesis", tmp_path / "short", "--reference", tmp_path / "short"
    for option in (("--output", out), ("--show=3",), ("--beam_size=2",), ("--model", run)):
        code, err = command("evaluate", *files, *option)
        name = str(option[0]).partition("=")[0]
        assert code == 2 and one_line(err).startswith(f"{name}: is of a model; with --hypothesis none")
    for options, message in (
        (("--tokenize=13b",), "13b"),
        (("--baseline", tmp_path / "nothing"), "nothing: no such file"),
        (("--baseline", tmp_path / "two"), "short has 1 lines, "),
        (("--json", tmp_path / "nowhere" / "json"), "there is no folder "),
        (("--json", tmp_path), "is a folder; give the name of a file"),
        (("--json", out), "--json: is the file of --output"),
    ):
        code, err = command("evaluate", "--model", run, *pair, *options)
        assert code in (2, 3) and message in one_line(err)  # nothing was translated before
