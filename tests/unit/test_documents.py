"""What README and docs/ tell people to type and to open is there; recipes: test_recipes.py."""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from transformer.benchmark import decode
from transformer.cli import _parser
from transformer.config import Config

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KEYS = {
    f"{section.name}.{field.name}"
    for section in dataclasses.fields(Config)
    for field in dataclasses.fields(getattr(Config(), section.name))
}
FILES = {"bin", "json", "npz", "py", "safetensors", "yml"}  # as in `model.npz`
SECTIONS = {key.partition(".")[0] for key in KEYS}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(text: str) -> Iterator[str]:
    """Yields `transformer ...` of the lines that are commands, without remarks, pipes and files."""
    lines = iter(text.splitlines())
    for line in lines:
        command = line.strip()
        if not re.match(r"transformer [a-z]", command):
            continue
        while command.endswith("\\"):
            command = command[:-1] + next(lines).strip()
        words = re.split(r" [<>|#]|\s\.\.\.", command.removeprefix("transformer "))[0]
        yield re.sub(r"[][]", "", words)  # around what may be left out


def blocks(document: Path) -> str:
    """Returns the fenced blocks."""
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL))


def heading(line: str) -> str:
    """Returns the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in map(heading, re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_and_their_options_exist(document: Path) -> None:
    parser, of_decode = _parser(), argparse.ArgumentParser()
    decode.add_options(of_decode)
    for command in commands(blocks(document)):
        _, rest = parser.parse_known_args(shlex.split(command))  # ends the process at what it cannot read
        if command.startswith("benchmark decode"):
            _, rest = of_decode.parse_known_args(rest)
        for word in rest:
            key = re.match(r"--config\.([a-z_.0-9]+)=?", word)
            assert key, f"{word} in: {command}"
            assert key[1] in KEYS, command


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_keys_of_the_configuration_exist(document: Path) -> None:
    text = document.read_text()
    for word in re.findall(r"`(?:--)?(?:config\.)?([a-z_]+\.[a-z_0-9]+)(?:=[^`\s]*)?`", text):
        section, _, rest = word.partition(".")
        if section in SECTIONS and rest not in FILES:
            assert word in KEYS, word
