"""Whatever happens to whichever file of a checkpoint is found, named, and got round."""

import hashlib
import json
import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from transformer.config import RunConfig
from transformer.errors import CheckpointError
from transformer.io.checkpoint import Checkpoints
from transformer.io.checkpoint_folder import best_steps, newest_sound

RUN = RunConfig(keep_latest=3, keep_best=1, best_metric="nll")


def items(step):
    draw = np.random.default_rng(step)
    arrays = {"w": jnp.asarray(draw.normal(size=(30, 4)), jnp.float32), "b": jnp.asarray(draw.normal(size=7))}
    moments = {"mu": jnp.full((30, 4), step, jnp.bfloat16), "count": jnp.int32(step)}
    return {"params": arrays, "optimizer": moments, "ema": {"w": -arrays["w"]}}


def save(folder, steps, run=RUN):
    checkpoints = Checkpoints(folder, run)
    for step in steps:
        checkpoints.save(step, items(step), {"step": step})
        checkpoints.add_metrics(step, {"nll": float(step)})
    checkpoints.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    save(folder, [10, 20, 30])
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


def restore_newest(folder, run=RUN, **options):
    """Returns the step that was restored and what was said; the arrays must be that step's, to the bit."""
    said = []
    checkpoints = Checkpoints(folder, run, said.append)
    try:
        found = checkpoints.restore_newest(items(0), **options)
    finally:
        checkpoints.close()
    if found is None:
        return None, said
    arrays, position = found
    for name, tree in items(position["step"]).items():
        for key, x in tree.items():
            assert arrays[name][key].dtype == x.dtype
            assert np.asarray(arrays[name][key]).tobytes() == np.asarray(x).tobytes()
    return position["step"], said


def files_of(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def flip(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def harm(path, how, draw):
    """Damages a file; returns how to put it right."""
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "flipped":
        path.write_bytes(flip(content, draw.randrange(8 * len(content))))
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    return lambda: path.write_bytes(content)


def test_any_damage_to_any_file_is_found_and_named(folder):
    draw = random.Random(5)
    newest = folder / "30"
    names = [path.relative_to(newest).as_posix() for path in files_of(newest)]
    assert {"_CHECKPOINT_METADATA", "params/_METADATA", "ema/manifest.ocdbt", "xxh3_128.json"} <= {*names}
    assert {"position/metadata", "metrics/metrics"} <= {*names}
    assert newest_sound(folder) == (30, {})
    for name in names:
        for how in ["missing", "cut", "emptied", *["flipped"] * 5]:
            mend = harm(newest / name, how, draw)
            step, damages = newest_sound(folder)
            assert step == 20 and damages[30].startswith(f"{name} "), (name, how, damages)
            mend()
    assert newest_sound(folder) == (30, {})


def test_all_of_the_manifest_counts(folder):
    manifest = folder / "30" / "xxh3_128.json"
    content = manifest.read_bytes()
    for bit in range(0, 8 * len(content), 97):
        manifest.write_bytes(flip(content, bit))
        assert newest_sound(folder) == (20, {30: "xxh3_128.json is damaged"})


@pytest.mark.parametrize(
    "name", ["optimizer/_METADATA", "position/metadata", "xxh3_128.json", "metrics/metrics"]
)
def test_the_newest_sound_one_is_used_and_the_damaged_one_steps_aside(folder, name):
    harm(folder / "30" / name, "cut", random.Random(0))
    with pytest.raises(CheckpointError) as caught:
        restore_newest(folder, strict=True)
    assert str(caught.value).startswith(f"{folder / '30'}: {name} is damaged")
    assert "without --strict_restore 20 is used" in str(caught.value) and caught.value.exit_code == 4
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "30"]

    step, said = restore_newest(folder)
    assert step == 20
    assert len(said) == 1 and "\n" not in said[0]
    assert said[0].startswith(f"warning: {folder / '30'} is damaged, kept as 30.damaged: {name} is damaged")
    assert said[0].endswith("; using 20 instead")
    assert restore_newest(folder) == (20, [])  # once is enough

    save(folder, [30, 40])  # its step is free, and it does not count among those that are kept
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "30", "30.damaged", "40"]
    assert restore_newest(folder) == (40, [])
    harm(folder / "30" / name, "cut", random.Random(0))
    harm(folder / "40" / name, "missing", random.Random(0))
    step, said = restore_newest(folder)
    assert step == 20 and len(said) == 2
    assert {"30.damaged", "30.damaged-2", "40.damaged"} < {path.name for path in folder.iterdir()}


def test_if_all_are_damaged_nothing_begins_from_zero(folder):
    for step in (10, 20, 30):
        harm(folder / str(step) / "params" / "_METADATA", "emptied", random.Random(0))
    for _ in range(2):
        with pytest.raises(CheckpointError) as caught:
            restore_newest(folder)
        message = str(caught.value)
        assert "\n" not in message and message.startswith(
            f"{folder}: every checkpoint is damaged (30: params/_META"
        )
        assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "30"]
    for step in (10, 20, 30):
        (folder / str(step)).rename(folder / f"{step}.damaged")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        restore_newest(folder)
    shutil.rmtree(folder)
    assert restore_newest(folder) == (None, [])


def test_a_reader_changes_nothing(folder):
    harm(folder / "30" / "xxh3_128.json", "missing", random.Random(0))
    (folder / "40.saving.orbax-checkpoint-tmp").mkdir()
    assert restore_newest(folder, run=None)[0] == 20
    assert sorted(path.name for path in folder.iterdir()) == [
        "10",
        "20",
        "30",
        "40.saving.orbax-checkpoint-tmp",
    ]


def test_other_arrays_are_no_damage(folder):
    checkpoints = Checkpoints(folder, RUN)
    with pytest.raises(CheckpointError, match=r"/30: params: v is missing; known: b, w$"):
        checkpoints.restore_newest({"params": {"v": jnp.zeros(3), "b": jnp.zeros(7)}})
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "30"]


def test_only_the_items_that_are_read_have_to_be_sound(folder):
    harm(folder / "30" / "optimizer" / "_METADATA", "cut", random.Random(0))
    reader = Checkpoints(folder)
    assert reader.restore(30, {"ema": items(0)["ema"]})[1] == {"step": 30}
    with pytest.raises(CheckpointError, match=r"/30: cannot be restored \(optimizer/_METADATA is damaged"):
        reader.restore(30, {"optimizer": items(0)["optimizer"]})
    reader.close()


def test_damaged_scores_are_no_scores(folder):
    reader = Checkpoints(folder)
    assert best_steps(folder, "nll", 9) == [10, 20, 30]
    harm(folder / "10" / "metrics" / "metrics", "cut", random.Random(0))
    file = folder / "20" / "metrics" / "metrics"
    file.write_text(file.read_text().replace("20.0", "10.0"))
    assert reader.metrics(10) is None and reader.metrics(20) is None
    assert best_steps(folder, "nll", 9) == [30]
    reader.close()
    save(folder, [40, 50])


def test_what_an_interrupted_process_left_is_removed(folder):
    left = ["40.saving", "40.saving.orbax-checkpoint-tmp", "20.deleting", "40.orbax-checkpoint-tmp"]
    for name in left:
        shutil.copytree(folder / "10", folder / name)
    kept = ["notes.saving", "10.damaged"]
    for name in kept:
        (folder / name).mkdir()
    assert restore_newest(folder) == (30, [])
    assert sorted(path.name for path in folder.iterdir()) == sorted(["10", "20", "30", *kept])


@pytest.mark.parametrize("covers_itself", [True, False])
def test_the_manifests_of_earlier_versions_are_understood(folder, covers_itself):
    today = folder / "30" / "xxh3_128.json"
    names = json.loads(today.read_text())["files"]
    today.unlink()
    files = {name: hashlib.sha256((folder / "30" / name).read_bytes()).hexdigest() for name in names}
    if covers_itself:
        listed = json.dumps(files, sort_keys=True).encode()
        found = {"self": hashlib.sha256(listed).hexdigest(), "files": files}
    else:
        found = {name: digest for name, digest in files.items() if name != "metrics/metrics"}
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    (folder / "30" / "sha256.json").write_text(text)
    assert restore_newest(folder) == (30, [])
    reader = Checkpoints(folder)
    assert reader.metrics(30) == {"nll": 30.0}
    reader.close()
    harm(folder / "30" / "ema" / "_METADATA", "flipped", random.Random(0))
    assert restore_newest(folder)[0] == 20


def test_the_digests_are_those_of_xxhash(folder):
    """XXH3's published value for no bytes, seed 0, and a file by the one-shot function."""
    import xxhash

    assert xxhash.xxh3_128(b"").hexdigest() == "99aa06d3014798d86001c324468d497f"
    files = json.loads((folder / "30" / "xxh3_128.json").read_text())["files"]
    for name, digest in files.items():
        assert digest == xxhash.xxh3_128_hexdigest((folder / "30" / name).read_bytes())
