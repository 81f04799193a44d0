"""TFDS: real small datasets in array_record format, built and read without TensorFlow."""

import dataclasses
import hashlib
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # where the builder lies that other tests use too

from tfds_builder import build

from transformer.config import DataConfig
from transformer.data import tfds_source
from transformer.data.corpus import check_unchanged, open_corpora
from transformer.errors import ConfigError, DataError

PAIRS = {
    "train": [(f"hello {i}\u2028\t", f"größe {i}") for i in range(23)],
    "validation": [("", "leer"), ("two", "zwei"), ("three", "")],
    "test": [(f"test {i}", f"Prüfung {i}") for i in range(4)],
}
NAME = "wmt14_translate/de-en"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    build(folder, NAME, PAIRS, num_shards=3)
    return folder


def data(root, **changes) -> DataConfig:
    return DataConfig(**{**dict(kind="tfds", tfds_name=NAME, tfds_dir=str(root)), **changes})


def read(config, split="train"):
    (corpus,) = open_corpora(config, split, Path("unused"))
    pairs = list(corpus)
    assert [corpus[i] for i in range(len(corpus))] == pairs
    return pairs


def test_every_split_is_read_back(root, monkeypatch):
    monkeypatch.setattr(tfds_source, "_BATCH", 5)
    for split, name in {"train": "train", "dev": "validation", "test": "test"}.items():
        assert read(data(root), split) == PAIRS[name]
    swapped = data(root, source_language="de", target_language="en")
    assert read(swapped) == [(target, source) for source, target in PAIRS["train"]]


def test_parts_of_splits_and_holdout(root):
    config = data(root, tfds_splits=("train[:10]+test", "train[90%:]"))
    assert read(config) == PAIRS["train"][:10] + PAIRS["test"]
    assert read(config, "dev") == PAIRS["train"][-2:]
    assert open_corpora(config, "test", Path("unused")) == []
    held = data(root, tfds_splits=("train",), holdout_lines=5)
    assert sorted(read(held) + read(held, "dev")) == sorted(PAIRS["train"])
    assert len(read(held, "dev")) == 5


def test_newest_or_named_version(tmp_path):
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        build(tmp_path, "plain", {"train": [("a", version)]}, version=version)
    assert read(data(tmp_path, tfds_name="plain")) == [("a", "1.10.0")]
    assert read(data(tmp_path, tfds_name="plain:1.2.0")) == [("a", "1.2.0")]
    with pytest.raises(DataError, match=r"plain:1\.3\.0: not prepared in .*did you mean 'plain:1\.\d+\.0'"):
        read(data(tmp_path, tfds_name="plain:1.3.0"))


def test_tensorflow_is_never_imported(root):
    code = (
        "import sys; from pathlib import Path; from transformer.config import DataConfig\n"
        "from transformer.data.corpus import open_corpora\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        f"data = DataConfig(kind='tfds', tfds_name={NAME!r}, tfds_dir=sys.argv[1])\n"
        "print(len(list(open_corpora(data, 'train', Path('.'))[0])), 'tensorflow_datasets' in sys.modules)\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'tensorflow'])\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["23 True", "[]"], done.stderr


def test_undecodable_records_are_errors_or_gaps(tmp_path):
    build(tmp_path, "bad", {"train": [("a", "b"), ("c", b"d\xff"), ("e", "f")]})
    with pytest.raises(DataError, match=r"bad/1\.0\.0 train: record 1 is not UTF-8: byte 0xff at offset 1 "):
        read(data(tmp_path, tfds_name="bad"))
    skipping = data(tmp_path, tfds_name="bad", invalid_utf8="skip")
    assert read(skipping) == [("a", "b"), None, ("e", "f")]


def test_dataset_that_is_not_prepared(root, tmp_path):
    with pytest.raises(DataError, match="did you mean 'wmt14_translate/de-en'"):
        read(data(root, tfds_name="wmt14_translate"))
    with pytest.raises(DataError, match=rf"wmt17_translate/de-en: not prepared in {tmp_path}; ") as caught:
        read(data(tmp_path, tfds_name="wmt17_translate/de-en"))
    command = shlex.split(str(caught.value).split("to prepare it: ")[1])
    assert command[:2] == ["python", "-c"]
    # The command names the dataset and the folder, and finds the dataset's code without TensorFlow.
    code = command[2].replace(".download_and_prepare()", "")
    script = f"import sys\n{code}\nprint('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
    assert code.endswith(f"('wmt17_translate/de-en', data_dir='{tmp_path}', file_format='array_record')")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(tfds_name=""), ConfigError, "config.data.tfds_name: names no dataset"),
        (dict(tfds_splits=()), ConfigError, "config.data.tfds_splits: no training data"),
        (dict(tfds_splits=("a", "b", "c", "d")), ConfigError, "tfds_splits: expected .* got a,b,c,d"),
        (dict(tfds_splits=("trian",)), DataError, r"de-en/1\.0\.0: no split 'trian'; did you mean 'train'\?"),
        (dict(tfds_splits=("train[5:99]",)), DataError, r"split 'train\[5:99\]' cannot be read \(.*23"),
        (dict(tfds_splits=("train[5",)), DataError, r"split 'train\[5' cannot be read"),
        (dict(source_language="fr"), DataError, r"no language 'fr'; known: de, en"),
    ],
)
def test_mistakes_in_the_configuration(root, changes, error, message):
    with pytest.raises(error, match=message):
        read(data(root, **changes))


@pytest.mark.parametrize("missing", ["tensorflow_datasets", "array_record"])
def test_packages_that_are_not_installed(root, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'transformer\[tfds\]'"):
        read(data(root))


def test_other_formats_are_refused(tmp_path):
    folder = build(tmp_path, "old", {"train": [("a", "b")]})
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(DataError, match="stored as tfrecord, which only TensorFlow reads"):
        read(data(tmp_path, tfds_name="old"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone", "info", "no info"])
def test_damage_is_an_error_not_other_text(tmp_path, damage):
    folder = build(tmp_path, "broken", {"train": [("a", "b")] * 50})
    (shard,) = folder.glob("*train*")
    content = shard.read_bytes()
    if damage == "cut":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        shard.write_bytes(content[:300] + bytes([content[300] ^ 255]) + content[301:])
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "gone":
        shard.unlink()
    elif damage == "info":
        (folder / "dataset_info.json").write_text("{")
    else:
        (folder / "dataset_info.json").unlink()
    with pytest.raises(DataError, match="damaged"):
        read(data(tmp_path, tfds_name="broken"))


def test_facts_are_those_of_the_shards(root, tmp_path):
    (corpus,) = open_corpora(data(root), "train", tmp_path / "cache")
    shards = sorted((root / NAME / "1.0.0").glob("*train*"))
    assert len(shards) == 3
    assert [(fact.path, fact.size, fact.sha256) for fact in corpus.files] == [
        (f"{NAME}/1.0.0/{shard.name}", shard.stat().st_size, hashlib.sha256(shard.read_bytes()).hexdigest())
        for shard in shards
    ]
    recorded = [dataclasses.asdict(fact) for fact in corpus.files]
    build(tmp_path, NAME, {**PAIRS, "train": [*PAIRS["train"][:-1], ("other", "anders")]}, num_shards=3)
    (changed,) = open_corpora(data(tmp_path), "train", tmp_path / "cache")
    with pytest.raises(DataError, match=r"corpus changed .* wmt14_translate/de-en/1\.0\.0/.*train"):
        check_unchanged(recorded, [dataclasses.asdict(fact) for fact in changed.files])


def test_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
    constants = importlib.import_module("tensorflow_datasets").core.constants
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path))
    build(tmp_path, "here", {"train": [("a", "b")]})
    assert read(data("", tfds_name="here")) == [("a", "b")]
