"""Files of lines: every nasty character, damage and mistake, against plain bytes."""

import gzip
import hashlib
import os
import random
import subprocess
import sys
import tempfile

import pytest

from transformer.data import columns, files, lines
from transformer.data.files import FileFact
from transformer.data.lines import LineFile, UndecodableError
from transformer.errors import DataError

# Everything that str.splitlines splits at, except the line feed itself.
SEPARATORS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029\r"


def write(folder, content: bytes, name="a.txt"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"\n\n", ["", ""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\nb\r", ["a", "b"]),
        (b"a\r\r\n", ["a\r"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf\n", [""]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"nul\0 \xf0\x9f\x98\x80\n", ["nul\0 \U0001f600"]),
    ],
)
def test_what_a_line_is(tmp_path, content, expected):
    file = LineFile(write(tmp_path, content), tmp_path)
    assert len(file) == len(expected)
    assert [file[i] for i in range(len(file))] == expected
    assert list(file.scan()) == expected


@pytest.mark.parametrize("separator", SEPARATORS)
def test_only_the_line_feed_ends_a_line(tmp_path, separator):
    file = LineFile(write(tmp_path, f"one{separator}two\nthree\n".encode()), tmp_path)
    assert list(file.scan()) == [file[0], file[1]] == [f"one{separator}two", "three"]


def test_random_texts_across_chunks_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK", 7)
    monkeypatch.setattr(columns, "_BLOCK", 16)
    monkeypatch.setattr(lines, "_BLOCK", 5)
    monkeypatch.setattr(lines, "_LINES", 3)
    draw = random.Random(0)
    for trial in range(150):
        text = "".join(draw.choices("ab\n\n\t é漢" + SEPARATORS, k=draw.randrange(60)))
        content = draw.choice([b"", b"\xef\xbb\xbf"]) + text.encode()
        pieces = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        expected = [p.removesuffix(b"\r").decode() for p in (pieces if pieces[-1] else pieces[:-1])]
        file = LineFile(write(tmp_path, content, f"{trial}.txt"), tmp_path)
        assert [file[i] for i in range(len(file))] == expected
        assert list(file.scan()) == expected


@pytest.mark.parametrize("index", [-1, 2])
def test_no_such_line(tmp_path, index):
    with pytest.raises(IndexError, match=r"line -?\d of 2"):
        LineFile(write(tmp_path, b"a\nb\n"), tmp_path)[index]


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"])
def test_undecodable_line_is_named_or_skipped(tmp_path, bad):
    content = b"\xef\xbb\xbffine\n" + "zwölf ".encode() + bad + b"\nalso fine\r\n"
    path = write(tmp_path, content)
    file = LineFile(path, tmp_path)
    message = (
        f"{path}: line 2 is not UTF-8: byte 0x{bad[0]:02x} at offset 7 of the line, {content.rindex(bad)} "
    )
    for read in (lambda: file[1], lambda: list(file.scan())):
        with pytest.raises(UndecodableError) as caught:
            read()
        assert str(caught.value).startswith(message)
        assert "invalid_utf8=skip" in str(caught.value)
    assert file[0] == "fine"
    assert list(file.scan(skip_undecodable=True)) == ["fine", None, "also fine"]


def test_digest_and_size_are_those_of_the_file_as_given(tmp_path):
    packed = gzip.compress(b"a\nb\n")
    for content in (b"", b"a\n", packed):
        (fact,) = LineFile(write(tmp_path, content), tmp_path / "cache").facts("given.txt")
        assert fact == FileFact("given.txt", len(content), hashlib.sha256(content).hexdigest())


def test_gzip_by_content_not_by_name(tmp_path):
    members = gzip.compress(b"a\r\n\xe2\x80") + gzip.compress(b"\xa8b\n")  # two members, cut inside U+2028
    file = LineFile(write(tmp_path, members, "train.en"), tmp_path / "cache")
    assert list(file.scan()) == ["a", "\u2028b"]
    plain = LineFile(write(tmp_path, b"a\n", "plain.gz"), tmp_path / "cache")
    assert list(plain.scan()) == ["a"]


def test_gzip_is_unpacked_once_for_each_content(tmp_path):
    cache = tmp_path / "cache"
    path = write(tmp_path, gzip.compress(b"old\n"))
    assert LineFile(path, cache)[0] == "old"
    (unpacked,) = cache.glob("unpacked-*")
    stamp = unpacked.stat().st_mtime_ns
    assert LineFile(write(tmp_path, path.read_bytes(), "copy"), cache)[0] == "old"
    assert [p.stat().st_mtime_ns for p in cache.glob("unpacked-*")] == [stamp]
    assert LineFile(write(tmp_path, gzip.compress(b"new\n")), cache)[0] == "new"
    assert len(list(cache.glob("unpacked-*"))) == 2


PACKED = gzip.compress(random.Random(1).randbytes(2000))


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(PACKED[:-9], id="cut"),
        pytest.param(PACKED[:5], id="cut header"),
        pytest.param(PACKED[:10] + b"\xff" + PACKED[11:], id="flipped"),
        pytest.param(PACKED[:-8] + bytes(4) + PACKED[-4:], id="checksum"),
        pytest.param(PACKED + b"garbage", id="garbage behind"),
    ],
)
def test_damaged_gzip_leaves_nothing_behind(tmp_path, damaged):
    path = write(tmp_path, damaged, "a.gz")
    with pytest.raises(DataError, match=r"a\.gz: damaged gzip file"):
        LineFile(path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    file = LineFile(write(tmp_path, b"a\nb\n"), write(tmp_path, b"", "cache"))
    assert [file[0], *file.scan()] == ["a", "a", "b"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(
        DataError, match=r"a\.txt: neither .* nor a temporary folder can be written \(No such"
    ):
        LineFile(tmp_path / "a.txt", tmp_path / "cache")
    path = write(tmp_path, gzip.compress(b"a\n"))
    with pytest.raises(DataError, match=r"neither .* nor a temporary folder can be written"):
        LineFile(path, write(tmp_path, b"", "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert [*LineFile(path, tmp_path / "cache").scan()] == ["a"]


TEXT = b"".join(b"line %d\n" % i for i in range(40))


def test_where_lines_are_is_found_once_for_each_content(tmp_path, monkeypatch):
    find, calls = lines._find_lines, []
    monkeypatch.setattr(lines, "_find_lines", lambda *args: calls.append(args) or find(*args))
    path = write(tmp_path, TEXT)
    for _ in range(2):
        assert list(LineFile(path, tmp_path / "cache").scan()) == [f"line {i}" for i in range(40)]
    LineFile(write(tmp_path, TEXT, "copy"), tmp_path / "cache")
    assert len(calls) == 1
    assert LineFile(write(tmp_path, TEXT.replace(b"3", b"\n")), tmp_path / "cache")[3] == "line "
    assert len(calls) == 2


def test_a_damaged_index_gives_no_wrong_lines(tmp_path, monkeypatch):
    """It is made again at once where its end is damaged, else an error says so and the next start does."""
    monkeypatch.setattr(columns, "_BLOCK", 64)
    path, cache = write(tmp_path, TEXT), tmp_path / "cache"
    LineFile(path, cache)
    (index,) = cache.iterdir()
    content = index.read_bytes()
    errors = 0
    for place in range(0, len(content), 3):
        flipped = content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
        for damaged in (content[:place], flipped):
            index.write_bytes(damaged)
            try:
                assert list(LineFile(path, cache).scan()) == [f"line {i}" for i in range(40)]
            except DataError as error:
                assert str(error).startswith(f"{index}: is damaged; run the same command again")
                assert LineFile(path, cache)[39] == "line 39"
                errors += 1
            assert index.read_bytes() == content
    assert errors > 10


def test_a_text_that_is_cut_while_it_is_open(tmp_path):
    file = LineFile(write(tmp_path, TEXT), tmp_path / "cache")
    os.truncate(file.path, 50)
    assert file[3] == "line 3"
    for read in (lambda: file[30], lambda: list(file.scan())):
        with pytest.raises(DataError, match=r"a\.txt: is shorter than it was; restore it"):
            read()


def test_missing_file_says_what_may_be_meant(tmp_path):
    write(tmp_path, b"", "train.en")
    with pytest.raises(DataError, match=r"trian\.en: no such file; did you mean 'train\.en'\?"):
        LineFile(tmp_path / "trian.en", tmp_path)
    with pytest.raises(DataError, match=r"nor is there a folder .*nowhere"):
        LineFile(tmp_path / "nowhere" / "train.en", tmp_path)
    for number in range(30):
        write(tmp_path, b"", f"{number:030}")
    with pytest.raises(DataError, match=r"xyz: no such file; the folder holds 31 others"):
        LineFile(tmp_path / "xyz", tmp_path)


def test_folders_and_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        LineFile(tmp_path, tmp_path)
    path = write(tmp_path, b"", "file") / "below"
    with pytest.raises(DataError, match="cannot be read"):
        LineFile(path, tmp_path)
    if os.geteuid():  # root reads everything
        path = write(tmp_path, b"a\n")
        path.chmod(0)
        with pytest.raises(DataError, match="cannot be read"):
            LineFile(path, tmp_path)


def test_a_file_larger_than_the_memory_allowed(tmp_path):
    """A text of 512 MB within 256 MB of memory."""
    path = tmp_path / "big.txt"
    with path.open("wb") as file:  # sparse: it takes next to no room on the disk
        for line in range(1, 513):
            file.seek((line << 20) - 1)
            file.write(b"\n")
    code = (
        "import sys, resource, pathlib\n"
        "from transformer.data.lines import LineFile\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))\n"
        "file = LineFile(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1]).parent)\n"
        "print(len(file), len(file[511]), sum(map(len, file.scan())))\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # threads' stacks count as memory
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["512", "1048575", str(512 * 1048575)], done.stderr
