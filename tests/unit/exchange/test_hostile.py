"""Folders of strangers: refused in one line, soon, in little memory, whatever their files hold."""

import functools
import json
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fairseq_folder
import marian_folder
import plain_folder
import pytest

from transformer.errors import CheckpointError, UserError
from transformer.exchange import vocabularies
from transformer.exchange.fairseq import read_fairseq
from transformer.exchange.importing import import_hf
from transformer.exchange.marian import read_marian
from transformer.exchange.reading import read_model
from transformer.exchange.safetensors_file import stored_tensors
from transformer.exchange.trial import try_sentencepiece
from transformer.inference.model_directory import load_model
from transformer.io.digests import write_digests

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file(header: Any, data: bytes = bytes(8), length: int | None = None) -> bytes:
    """Returns a safetensors file with any header: bytes, or what JSON is made of."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


CRAFTED = {
    "sound": (file({"a": ONE}), None),
    "sound with metadata": (file({"__metadata__": {"format": "pt"}, "a": ONE}), None),
    "nothing": (b"", "header of 0 bytes"),
    "short": (b"\1\0\0", "header of 1 bytes"),
    "header beyond the file": (file({"a": ONE}, length=1 << 62), "header of 4,611,686,018,427,387,904 bytes"),
    "huge header": (file(b"{" + b" " * (1 << 24) + b"}"), "at most 8,388,608 are read"),
    "many tensors": (file(b"{" + b'"":{},' * (1 << 20) + b"}"), "has more than 65,536 tensors"),
    "many values": (file(b'{"a":[' + b"[]," * (1 << 21) + b"[]]}"), "has more than 65,536 tensors"),
    "deep": (file(b'{"a":' * 60_000), "damaged"),
    "no JSON": (file(b"\xff\xfe{}"), "damaged"),
    "a list": (file([1, 2]), "header is no JSON object"),
    "twice": (file(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}'), "a name comes twice"),
    "no entry": (file({"a": 3}), "has no dtype, shape and data_offsets"),
    "dtype": (file({"a": ONE | {"dtype": "F31"}}), "dtype 'F31', known are"),
    "dtype no text": (file({"a": ONE | {"dtype": ["F32"]}}), "has dtype"),
    "overlap": (file({"a": ONE, "b": ONE}), "tensor 'b' begins at byte"),
    "hole": (file({"a": ONE | {"data_offsets": [4, 12]}}, bytes(12)), "tensor 'a' begins at byte"),
    "overflow": (file({"a": ONE | {"data_offsets": [2**64 - 8, 2**64]}}), "has shape"),
    "negative": (file({"a": ONE | {"data_offsets": [-8, 0]}}), "has shape"),
    "backwards": (file({"a": ONE | {"data_offsets": [8, 0]}}), "has -8 bytes, its shape needs 8"),
    "beyond the end": (file({"a": ONE | {"shape": [4], "data_offsets": [0, 16]}}), "tensors end at byte"),
    "more behind": (file({"a": ONE}, bytes(9)), "tensors end at byte"),
    "shape": (file({"a": ONE | {"shape": [3]}}), "has 8 bytes, its shape needs 12"),
    "shape overflows": (file({"a": ONE | {"shape": [2**33, 2**33, 0, 2**62]}}), "has shape"),
    "shape of texts": (file({"a": ONE | {"shape": ["2"]}}), "has shape"),
    "infinite": (file(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}'), "has shape"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_safetensors(tmp_path, name):
    content, message = CRAFTED[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    began = time.perf_counter()
    if message is None:
        assert stored_tensors(path)["a"].read().tolist() == [0, 0]
        return
    with pytest.raises(CheckpointError, match=message) as caught:
        stored_tensors(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(path))
    assert time.perf_counter() - began < 1


def absurd(folder: Path, how: str) -> None:
    """Puts one absurd file into a sound folder."""
    weights, vocabulary = folder / "model.safetensors", folder / "vocab.json"
    if how == "many tensors":
        weights.write_bytes(CRAFTED["many tensors"][0])
    elif how == "large vocabulary":
        vocabulary.write_text("{" + ",".join(f'"{i:06}":{i}' for i in range(1_500_000)) + "}")
    elif how == "deep":
        vocabulary.write_text('{"a":' + "[" * 1_000_000)
    elif how == "lists":
        vocabulary.write_text('{"a":[' + "[]," * 900_000 + "1]}")
    elif how == "device":
        (folder / "source.spm").unlink()
        (folder / "source.spm").symlink_to("/dev/zero")
    elif how == "endless number":
        (folder / "config.json").write_text('{"model_type": "marian", "d_model": ' + "9" * 10_000 + "}")
    elif how == "random model":
        (folder / "target.spm").write_bytes(random.Random(0).randbytes(1 << 20))


@pytest.mark.parametrize(
    "how", ["many tensors", "large vocabulary", "deep", "lists", "device", "endless number", "random model"]
)
def test_absurd_files_in_a_process(tmp_path, how):
    """Exit code 4, one line, under a second of processor time, under 300 MB, nothing written."""
    folder = plain_folder.write(tmp_path / "from")
    absurd(folder, how)
    before = sorted(tmp_path.rglob("*"))
    program = (  # the kernel's own figure for a process counts what it was forked from, too
        "import pathlib, re, resource, sys\n"
        "from transformer.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "import", "hf", "--from", str(folder)]
    done = subprocess.run([*command, "--to", str(tmp_path / "to")], capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert (
        done.stderr.count("\n") == 1
        and len(done.stderr) < 2000
        and done.stderr.startswith("transformer: error: ")
    ), done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 1 and kilobytes < 300_000
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("how", ["config", "tokenizer", "device", "arrays", "list", "digests"])
def test_model_directories_from_elsewhere(tmp_path, how):
    """What is not as we write it, with digests that agree, is refused as a user's error."""
    import_hf(plain_folder.write(tmp_path / "from"), tmp_path / "ours", note=str)
    checkpoint, manifest = tmp_path / "ours/checkpoints/0", tmp_path / "ours/tokenizer/tokenizer.json"
    if how == "config":
        (tmp_path / "ours/config.json").write_text('{"model":' * 100_000)
    elif how == "tokenizer":
        manifest.write_text("[" * 100_000)
    elif how == "device":
        manifest.write_text(json.dumps({"files": {"/dev/zero": {"sha256": ""}}}))
    elif how == "digests":
        (checkpoint / "xxh3_128.json").write_text("[" * 100_000)
    else:
        deep = '{"tree_metadata":' * 100_000
        (checkpoint / "params/_METADATA").write_text(deep if how == "arrays" else '{"tree_metadata": [1]}')
        (checkpoint / "xxh3_128.json").unlink()
        write_digests(checkpoint)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "ours")
    assert "\n" not in str(caught.value)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Returns the content of a file with one to three faults."""
    for _ in range(rng.randint(1, 3)):
        place, count = rng.randrange(len(content) + 1), rng.choice((1, 2, 8, 100))
        kind = rng.randrange(7)
        rest = content[place + count :]
        if kind == 0:
            content = content[:place] + rng.randbytes(count) + rest
        elif kind == 1:
            content = content[:place] + rest
        elif kind == 2:
            content = content[:place] + rng.randbytes(count) + content[place:]
        elif kind == 3:
            content = content[:place]
        elif kind == 4:
            content = content[:place] + content[place : place + count] * 20 + rest
        else:  # another number or word
            odd = (
                b"-1",
                b"0",
                b"1e999",
                b"9" * 30,
                b"null",
                b"true",
                b'"\\ud800"',
                b"[]",
                b"{}",
                b"NaN",
                b"0.5",
            )
            digits = [i for i, byte in enumerate(content[: 1 << 16]) if byte in b"0123456789"]
            place = rng.choice(digits) if digits and kind == 5 else place
            content = content[:place] + rng.choice(odd) + content[place + 1 :]
    return content


def swallow(
    folder: Path, sound: Path, read: Callable[[Path], Any], count: int, seed: int
) -> tuple[int, float]:
    """Reads a folder with one file after the other mutated.

    Returns:
      (how many were refused, the seconds of the slowest).
    """
    rng, names = random.Random(seed), sorted(path.name for path in sound.iterdir())
    refused, slowest = 0, 0.0
    for i in range(count):
        shutil.copytree(sound, folder)
        name = names[i % len(names)]
        (folder / name).write_bytes(mutated((sound / name).read_bytes(), rng))
        began = time.perf_counter()
        try:
            read(folder)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 4000, error
        except BaseException as error:
            error.add_note(f"{name} of mutation {i}")
            raise
        slowest = max(slowest, time.perf_counter() - began)
        shutil.rmtree(folder)
    return refused, slowest


SOUND: dict[str, Callable[[Path], Any]] = {
    "marian": plain_folder.write,
    "bart": lambda folder: plain_folder.write_bart(folder, ["t h", "th e"]),
    "bart_whole": lambda folder: plain_folder.write_bart(folder, ["t h", "th e"], whole=True),
    "marian_nmt": marian_folder.write,
    "fairseq": fairseq_folder.write,
}
READERS: dict[str, Callable[[Path], Any]] = {"marian_nmt": read_marian, "fairseq": read_fairseq}


@pytest.mark.parametrize(
    "count",
    [60, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
    ids=["few", "many"],
)
@pytest.mark.parametrize("kind", SOUND)
def test_mutated_folders(tmp_path, monkeypatch, kind, count):
    """No crash, no hang, no traceback; damaged SentencePiece models meet a process of their own."""
    once = functools.cache(lambda content: try_sentencepiece(tmp_path / "spm", content))
    monkeypatch.setattr(vocabularies, "try_sentencepiece", lambda path, content: once(content))
    sound, read = tmp_path / "sound", READERS.get(kind, read_model)
    SOUND[kind](sound)
    read(sound)
    refused, slowest = swallow(tmp_path / "mutated", sound, read, count, seed=count)
    assert refused > count / 3  # what is left is sound, or differs where nobody reads
    assert slowest < 5
