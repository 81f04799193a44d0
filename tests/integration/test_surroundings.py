"""What surrounds a run fails: disk of the log, screen, compilation cache, clock, encoded data."""

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache
from small_disk import fill, small_disk
from tiny_run import ROOT, compiled_once, environment, make_config, read_arrays, write_corpus, write_recipe

from transformer.errors import DataError
from transformer.io.compilation_cache import tell_cache_failures_once
from transformer.io.runlog import RunLog
from transformer.run.train import train

RUN = {"num_steps": 24, "save_every": 8, "eval_every": 24, "log_every": 1}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    with compiled_once():
        yield write_corpus(folder)


@pytest.fixture(scope="module")
def calm(settings, tmp_path_factory):
    """The folder of a run without faults."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    train(make_config(settings, run=RUN), str(folder))
    return folder


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if line["split"] == "train"]


def assert_same(workdir, calm):
    arrays, expected = read_arrays(workdir, 24), read_arrays(calm, 24)
    assert {k: x.tobytes() for k, x in arrays.items()} == {k: x.tobytes() for k, x in expected.items()}
    assert losses(workdir) == losses(calm)


@pytest.fixture
def after(monkeypatch):
    """Returns a function that has something happen once, after the log of a step."""
    real, happenings = RunLog.train, {}

    def logged(log, step, *values):
        real(log, step, *values)
        happenings.pop(step, lambda: None)()

    monkeypatch.setattr(RunLog, "train", logged)
    return happenings.__setitem__


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path, megabytes=1) as folder:
        yield folder


@pytest.mark.parametrize("freed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_disk_of_the_log_is_full(settings, calm, disk, tmp_path, after, capfd, freed):
    """More events than tensorboardX's queue would hold, which then would wait for its dead thread."""
    workdir = tmp_path / "run"
    (disk / "tensorboard").mkdir()
    workdir.mkdir()
    for name in ("metrics.jsonl", "tensorboard"):  # the checkpoints are on another disk
        (workdir / name).symlink_to(disk / name)
    after(3, lambda: fill(disk))
    if freed:
        after(22, (disk / "ballast").unlink)
    train(make_config(settings, run=RUN), str(workdir))
    said = [line for line in capfd.readouterr().err.splitlines() if str(workdir) in line]
    assert "metrics.jsonl" in said[0] and ": No space left on device; training goes on" in said[0]
    if freed:
        assert_same(workdir, calm)
        assert len(said) == 2 and "written again" in said[1]
    else:
        # A page is filled to its end before the disk is full.
        whole = losses(workdir)
        assert 3 <= len(whole) < 24 and whole == losses(calm)[: len(whole)]
        assert [line.endswith("entries are missing") for line in said[-2:]] == [True, True]
        assert read_arrays(workdir, 24).keys() == read_arrays(calm, 24).keys()


NOISY = """
import sys, traceback, warnings
from transformer.io.standard_error import forgive_standard_error
if "forgive" in sys.argv:
    forgive_standard_error()
for n in range(2000):
    print("x" * 50, file=sys.stderr, flush=True)
warnings.warn("hear me")
try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
print(open("/dev/zero").fileno() > 2)
sys.exit(75)
"""


@pytest.mark.parametrize("where", ["2>/dev/full", "2> >(:)", "2>&-", ">&- 2>&- <&-"])
def test_nobody_hears_standard_error(where):
    def run(mode):
        command = ["bash", "-c", f'"$0" -c "$1" {mode} {where}', sys.executable, NOISY]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert run("forgive").returncode == 75
    assert run("forgive").stdout == ("" if ">&- " in where else "True\n")
    assert (run("fail").returncode, run("fail").stdout) != (75, "True\n")


@pytest.mark.parametrize("where", [">&-", ">&- 2>&- <&-"])
def test_nobody_hears_standard_output(where, tmp_path):
    (tmp_path / "lines").write_text("a b\n")
    command = f'"$0" -m transformer evaluate --hypothesis lines --reference lines {where}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_heard_is_whole():
    command = ["bash", "-c", '"$0" -c "$1" forgive', sys.executable, NOISY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.startswith(("x" * 50 + "\n") * 2000 + "<string>:8: UserWarning: hear me\n")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["2>/dev/full", "2> >(:)", "2>&-"])
def test_a_run_that_nobody_hears(settings, calm, tmp_path, where):
    recipe = write_recipe(tmp_path / "recipe.py", settings | {"run": settings["run"] | RUN})
    script = f'exec "$0" train.py --config="$1" --workdir="$2" {where}'
    command = ["bash", "-c", script, sys.executable, str(recipe), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"")
    assert_same(tmp_path / "run", calm)


def spoil(cache, how):
    """Makes the folder of a compilation cache useless."""
    entries = sorted(cache.glob("*-cache")) if cache.is_dir() else []
    for number, entry in enumerate(entries):
        content = entry.read_bytes()
        spoilt = [content[: len(content) // 2], b"", os.urandom(len(content)), bytes(len(content))]
        entry.write_bytes(spoilt[number % 4])
    if how == "a file":
        shutil.rmtree(cache, ignore_errors=True)
        cache.touch()
    return bool(entries)


def compute():
    """Compiles several programs."""
    jax.clear_caches()
    return [float(jax.jit(f)(jnp.arange(4.0)).sum()) for f in (jnp.sin, jnp.cos, lambda x: x * x)]


@pytest.mark.parametrize("how", ["garbage", "a file", "full"])
def test_a_useless_compilation_cache_is_one_line(request, tmp_path, capfd, how):
    expected = compute()
    folder = request.getfixturevalue("disk") if how == "full" else tmp_path
    cache = folder / "compiled"
    if how == "full":
        cache.mkdir()
        fill(folder)
    with compiled_once(folder), warnings.catch_warnings():
        warnings.simplefilter("default")
        others: list[str] = []
        warnings.showwarning = lambda message, *args: others.append(str(message))
        tell_cache_failures_once()
        if how != "full":
            compute()
            assert spoil(cache, how)
            compilation_cache.reset_cache()
        capfd.readouterr()
        assert compute() == expected
        (line,) = capfd.readouterr().err.splitlines()
        warnings.warn("another", stacklevel=1)
        assert others == ["another"] and not capfd.readouterr().err
    assert line.startswith(f"warning: compilation cache {cache}: ")
    assert {
        "garbage": "an entry cannot be read (error: Error ",
        "a file": "an entry cannot be read (FileExistsError: ",
        "full": "cannot be written (OSError: [Errno 28] No space left on device",
    }[how] in line


@pytest.fixture
def compiled(tmp_path):
    """What the other tests have compiled, for one that spoils it there: the path is part of JAX's keys."""
    folder = pathlib.Path(jax.config.values["jax_compilation_cache_dir"])
    shutil.copytree(folder, tmp_path / "compiled")
    yield folder
    folder.unlink() if folder.is_file() else shutil.rmtree(folder)
    shutil.copytree(tmp_path / "compiled", folder)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["garbage", "a file", "full", "read-only"])
def test_a_run_with_a_useless_compilation_cache(request, settings, calm, tmp_path, how):
    if how in ("full", "read-only"):
        cache = request.getfixturevalue("disk")
        if how == "full":
            fill(cache)
        else:
            subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
    else:
        cache = request.getfixturevalue("compiled")
        assert spoil(cache, how)
    recipe = write_recipe(tmp_path / "recipe.py", settings | {"run": settings["run"] | RUN})
    variables = environment() | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "train.py", f"--config={recipe}", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cache" in line or "Warning" in line]
    assert line.startswith(f"warning: compilation cache {cache}: ")
    assert_same(tmp_path / "run", calm)


def test_the_clock_is_set_back(settings, calm, tmp_path, monkeypatch, after):
    """By a day in the middle of the run, and to 1970 when it is continued."""
    real, back = time.time_ns, itertools.accumulate([0, 86_400 * 10**9])
    shift = [next(back)]
    monkeypatch.setattr(time, "time_ns", lambda: real() - shift[0])
    monkeypatch.setattr(time, "time", lambda: (real() - shift[0]) / 1e9)
    after(5, lambda: shift.__setitem__(0, next(back)))
    after(13, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(make_config(settings, run=RUN), str(tmp_path))
    shift[0] = real() - 10**9
    assert time.time() < 100
    train(make_config(settings, run=RUN), str(tmp_path))
    assert_same(tmp_path, calm)
    files = sorted((tmp_path / "tensorboard").iterdir())
    assert len(files) == 2 and files[0].stat().st_mtime_ns < files[1].stat().st_mtime_ns


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """Changes a bit, and nothing else."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    ["tokens.bin", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bounds.bin", "numbers.bin"))],
)
def test_encoded_data_is_cut_during_the_run(settings, calm, tmp_path, after, capfd, name):
    """It ends at once with one message and loses nothing; the next start makes the file anew."""
    file = tmp_path / "data" / "train-0" / name
    after(4, lambda: cut(file))
    with pytest.raises(DataError) as caught:
        train(make_config(settings, run=RUN), str(tmp_path))
    assert str(caught.value) == (
        f"{file}: is shorter than it was; run the same command again: it makes the file anew"
    )
    assert caught.value.exit_code == 3
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == losses(tmp_path)[-1][0] < 24
    capfd.readouterr()
    train(make_config(settings, run=RUN), str(tmp_path))
    said = capfd.readouterr().err
    assert said.count(f"{file}: damaged; encoding the corpus anew\n") == 1
    assert f"continuing after step {saved}\n" in said
    assert_same(tmp_path, calm)


@pytest.mark.slow
def test_encoded_data_is_removed_during_the_run(settings, calm, tmp_path, after):
    after(4, lambda: shutil.rmtree(tmp_path / "data"))
    train(make_config(settings, run=RUN), str(tmp_path))
    assert_same(tmp_path, calm)


@pytest.mark.parametrize(
    "name",
    [
        "tokens.bin",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("bounds.bin", "numbers.bin", "manifest.json")
        ),
    ],
)
def test_a_changed_bit_of_encoded_data_is_never_trained_on(settings, calm, tmp_path, after, capfd, name):
    after(13, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(make_config(settings, run=RUN), str(tmp_path))
    file = tmp_path / "data" / "train-0" / name
    flip(file)
    if name != "manifest.json":  # which is read at the start
        done = losses(tmp_path)
        with pytest.raises(DataError, match=f"^{file}: is damaged; run the same command again"):
            train(make_config(settings, run=RUN), str(tmp_path))
        assert losses(tmp_path) == done[: len(losses(tmp_path))]
    capfd.readouterr()
    train(make_config(settings, run=RUN), str(tmp_path))
    assert capfd.readouterr().err.count(f"{file}: damaged; encoding the corpus anew\n") == 1
    assert file.read_bytes() == (calm / "data" / "train-0" / name).read_bytes()
    assert_same(tmp_path, calm)
