"""Frames in files of NumPy: read as NumPy reads them, refused in a line, and whole in every batch."""

import dataclasses
import pickle

import numpy as np
import pytest

from transformer.config import DataConfig
from transformer.config_mapping import from_config_dict
from transformer.data.corpus import open_corpora
from transformer.data.frames import FrameFile, checked
from transformer.data.pipeline import evaluation_batches, training_batches
from transformer.errors import DataError
from transformer.io.workdir import Workdir
from transformer.run.prepare import prepare_data

C = 3
LENGTHS = [4, 1, 0, 7, 2, 5, 9, 3]  # one sample is empty, one too long
WORDS = ["one", "two", "one two", "two two one", "one one", "two", "one", "two one"]


def numbers(lengths, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(sum(lengths), C)).astype(np.float32)


def save(folder, name: str, lengths=LENGTHS, words=WORDS, seed=0):
    """Writes frames, lengths and words."""
    np.save(folder / f"{name}.npy", numbers(lengths, seed))
    np.save(folder / f"{name}.lengths.npy", np.array(lengths))
    (folder / f"{name}.words").write_text("".join(f"{line}\n" for line in words))
    return folder / f"{name}.npy"


def test_samples_are_those_that_numpy_reads(tmp_path):
    path = save(tmp_path, "a")
    whole, file = np.load(path), FrameFile(path, tmp_path / "cache")
    expected = np.split(whole, np.cumsum(LENGTHS)[:-1])
    for opened in (file, pickle.loads(pickle.dumps(file))):
        assert [len(sample) for sample in opened] == LENGTHS
        for sample, frames in zip(opened.scan(), expected, strict=True):
            found = np.asarray(sample)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, frames)
    assert str(file[3]) == f"{path}: sample 4 (7 frames)"
    with pytest.raises(IndexError):
        file[8]
    facts = file.facts("x/a.npy")
    assert [(fact.path, fact.size) for fact in facts] == [
        ("x/a.npy", path.stat().st_size),
        ("x/a.lengths.npy", path.with_suffix(".lengths.npy").stat().st_size),
    ]


def test_samples_of_one_length_need_no_other_file(tmp_path):
    frames = numbers([12]).reshape(3, 4, C)
    np.save(tmp_path / "a.npy", frames)
    file = FrameFile(tmp_path / "a.npy", tmp_path)
    np.testing.assert_array_equal(np.stack([np.asarray(sample) for sample in file]), frames)
    assert len(file.facts("a.npy")) == 1


def spoil(folder, how: str) -> None:
    """Writes something that cannot be read in place of the frames, or of their lengths."""
    frames, whole = folder / "a.npy", numbers(LENGTHS)
    lengths = {
        "lengths float": np.array(LENGTHS, float),
        "lengths negative": np.array([-1, *LENGTHS[1:]]),
        "lengths short": np.array(LENGTHS[:-1]),
        "lengths around": np.array([*[1 << 62] * 4, 31]),  # their sum is 31 again in 64 bits
    }
    arrays = {
        "double": whole.astype(float),
        "fortran": np.asfortranarray(whole),
        "objects": np.array([object], dtype=object),
        "flat": whole.ravel(),
        "whole samples": whole[None],
    }
    if how in arrays:
        np.save(frames, arrays[how], allow_pickle=True)
    elif how in lengths:
        np.save(folder / "a.lengths.npy", lengths[how])
    elif how == "cut":
        frames.write_bytes(frames.read_bytes()[:-4])
    elif how == "text":
        frames.write_text("one\n" * 50)
    elif how == "code":
        frames.write_bytes(frames.read_bytes().replace(b"'<f4'", b"1 or 2"[:5]))
    elif how == "empty file":
        frames.write_bytes(b"")
    elif how == "no lengths":
        (folder / "a.lengths.npy").unlink()
    elif how == "missing":
        frames.rename(folder / "b.npy")
    elif how == "folder":
        frames.unlink()
        frames.mkdir()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("double", r"a\.npy: is an array \[31, 3\] of dtype <f8; expected float32 \[frames, features\]"),
        ("fortran", r"\[31, 3\] of dtype <f4, in Fortran's order; expected .* in C order"),
        ("objects", r"\[1\] of dtype \|O; expected float32"),
        ("flat", r"is an array \[93\] of dtype <f4; expected float32 \[frames, features\]"),
        (
            "whole samples",
            r"a\.lengths\.npy: tells lengths, and .*a\.npy holds \[samples, frames, features\]",
        ),
        ("lengths float", r"a\.lengths\.npy: is an array \[8\] of dtype <f8; expected integers \[samples\]"),
        ("lengths negative", "sample 1 has -1 frames; lengths are 0 or more"),
        ("lengths around", "its samples have 18,446,744,073,709,551,647 frames, .*has 31; save the two"),
        ("lengths short", r"its samples have 28 frames, .*a\.npy has 31; save the two together"),
        ("cut", "has 496 bytes, its shape needs 500; get or save it anew"),
        ("text", r"a\.npy: is no array of NumPy's format 1\.0; save float32 .* with numpy\.save"),
        ("code", r"a\.npy: has a header that is not understood"),
        ("empty file", "is no array of NumPy's format"),
        ("no lengths", r"holds \[frames, features\], and a\.lengths\.npy beside it is missing; save there"),
        ("missing", r"a\.npy: no such file; did you mean 'b\.npy'"),
        ("folder", r"a\.npy: is a folder, expected a NumPy file, float32"),
    ],
)
def test_what_is_no_file_of_frames(tmp_path, how, message):
    path = save(tmp_path, "a")
    spoil(tmp_path, how)
    with pytest.raises(DataError, match=message) as caught:
        FrameFile(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("three", "here: is text, and the model reads frames of 3 numbers"),
        (
            np.zeros((2, 4)),
            r"is an array \[2, 4\], expected \[frames, 3\]: config.model.source_features is 3",
        ),
        (np.zeros(3), r"is an array \[3\], expected"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), "frame 2 has a number that is not finite"),
        (np.array([[0, np.inf, 0]]), "frame 1 has a number that is not finite"),
        (np.array([[0, 1e300, 0]]), "frame 1 has a number that is not finite"),
        ([[1.0, 2.0, 3.0], [3.0]], "here: is no array of numbers: "),
        ({"a": 1}, "here: is no array of numbers: "),
    ],
)
def test_what_is_no_source(source, message):
    with pytest.raises(DataError, match=message):
        checked(source, C, "here")


def data(folder, **changes) -> DataConfig:
    (
        save(folder, "train"),
        save(folder, "more", [2, 6], WORDS[:2], 1),
        save(folder, "dev", [3, 8], WORDS[:2], 2),
    )
    files = {f"{s}_{side}": (f"{s}.{end}",) for s in ("train", "dev") for side, end in SIDES.items()}
    files |= {f"train_{side}": (f"train.{end}", f"more.{end}") for side, end in SIDES.items()}
    return DataConfig(**{"kind": "frames", "root": str(folder), **files, **changes})


SIDES = {"source": "npy", "target": "words"}


def config(given: DataConfig, **model):
    sections = dict(
        model=dict(source_features=C, max_length=8, **model),
        data=dataclasses.asdict(given),
        run=dict(eval_lines=2),
    )
    return from_config_dict({**sections, "tokenizer": dict(model_type="word", vocab_size=6)})


@pytest.mark.parametrize("packing", [True, False])
def test_every_sample_comes_whole_with_its_words(tmp_path, packing):
    given = data(tmp_path, batch_tokens=24, packing=packing, packing_bins=4)
    told = []
    found = prepare_data(config(given), Workdir(tmp_path / "run"), told.append)
    counts = found.counts["train train.npy|train.words"]
    assert (counts["lines"], counts["kept"], counts["empty"], counts["too_long"]) == (8, 6, 1, 1)
    assert (counts["source_tokens"], counts["unknown_tokens"]) == (sum(LENGTHS) - 9, 0)
    assert found.tokenizer.decode_target(found.tokenizer.encode_target(WORDS)) == WORDS
    expected = {}
    for name, lengths in (("train", LENGTHS), ("more", [2, 6])):
        samples = np.split(np.load(tmp_path / f"{name}.npy"), np.cumsum(lengths)[:-1])
        ids = found.tokenizer.encode_target(WORDS)
        expected |= {s.tobytes(): ids[i] for i, s in enumerate(samples) if 0 < len(s) <= 8}
    batches, seen = iter(training_batches(found.train, None, given, 8)), {}
    for _ in range(8):
        batch, pairs = next(batches)
        assert batch.src_BS.shape == (*batch.src_seg_BS.shape, C) and batch.src_BS.dtype == np.float32
        assert not batch.src_BS[batch.src_seg_BS == 0].any() and len(pairs)
        for row in range(len(batch.src_BS)):
            for number in set(batch.src_seg_BS[row]) - {0}:
                frames = batch.src_BS[row, batch.src_seg_BS[row] == number]
                seen[frames.tobytes()] = batch.tgt_BT[row, batch.tgt_seg_BT[row] == number].tolist()
    assert seen == expected
    (whole,) = evaluation_batches(found.dev[0], given, 8)
    np.testing.assert_array_equal(whole.src_BS[whole.src_seg_BS > 0], np.load(tmp_path / "dev.npy"))
    assert [np.asarray(frames).shape for frames, _ in found.dev_pairs] == [(3, C), (8, C)]
    again = pickle.loads(pickle.dumps(found.train[0]))
    np.testing.assert_array_equal(again[0][0], found.train[0][0][0])


def test_samples_may_be_held_out(tmp_path):
    given = data(tmp_path, dev_source=(), dev_target=(), holdout_lines=2)
    found = prepare_data(config(given), Workdir(tmp_path / "run"), lambda line: None)
    assert sum(count["lines"] for name, count in found.counts.items() if name.startswith("dev")) == 2
    whole = np.load(tmp_path / "train.npy")
    held = [corpus[i][0] for corpus in found.dev for i in range(len(corpus))]
    assert held and all(any((whole[i : i + len(x)] == x).all() for i in range(len(whole))) for x in held[:1])


def test_data_that_cannot_be_trained_on(tmp_path):
    given = data(tmp_path)
    (tmp_path / "more.words").write_text("one\n")
    with pytest.raises(DataError, match=r"more\.npy has 2 samples but .*more\.words has 1; sample n of one"):
        open_corpora(given, "train", tmp_path)
    given = data(tmp_path)
    spoilt = numbers([2, 6], 1)
    spoilt[4, 1] = np.nan
    np.save(tmp_path / "more.npy", spoilt)
    with pytest.raises(DataError, match=r"more\.npy: sample 2: frame 3 has a number that is not finite"):
        prepare_data(config(given), Workdir(tmp_path / "run"), lambda line: None)
    wider = dataclasses.replace(config(given).model, source_features=4)
    with pytest.raises(DataError, match=r"sample 1: is an array \[4, 3\], expected \[frames, 4\]"):
        prepare_data(
            dataclasses.replace(config(data(tmp_path)), model=wider),
            Workdir(tmp_path / "b"),
            lambda line: None,
        )


def test_a_run_notices_other_lengths(tmp_path):
    given, workdir = config(data(tmp_path)), Workdir(tmp_path / "run")
    prepare_data(given, workdir, lambda line: None)
    workdir.save_config(given)
    np.save(tmp_path / "more.lengths.npy", np.array([3, 5]))
    with pytest.raises(DataError, match=r"corpus changed since the run began: more\.lengths\.npy"):
        prepare_data(given, workdir, lambda line: None)
