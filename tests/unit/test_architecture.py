"""The house of docs/design.md: floors, rooms, walls, sizes; read from the source with `ast`."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(), str(path))
    for folder in ("transformer", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
} | {"train": ast.parse((ROOT / "train.py").read_text())}

WORDS = {
    *("config", "config_mapping", "continuation", "coercion", "validation", "kinds", "recipes"),
    *("axes", "errors", "parsing", "paths", "special_ids"),
}
ROOMS = {"model", "data", "decoding", "training", "io", "metrics"}
TRADES = {"steps", "inference"}
SHOPS = {"run", "exchange", "questions"}
FLOORS = {
    **dict.fromkeys(WORDS, 0),
    **dict.fromkeys(ROOMS, 1),
    **dict.fromkeys(TRADES, 2),
    **dict.fromkeys(SHOPS, 3),
    "benchmark": 4,
    "doctor": 4,
    "cli": 5,
}

# From one room into another: what is needed, and nothing else.
DOORS: set[tuple[str, str]] = set()

# Who may import a package: modules, or folders of them.
WALLS = {
    "absl": ["transformer.cli", "transformer.data.pipeline"],
    "array_record": ["transformer.data.tfds_source"],
    "babel": ["transformer.data"],
    "ctranslate2": ["transformer.exchange.export_ctranslate2"],
    "flax": ["transformer.model"],
    "grain": ["transformer.data.pipeline"],
    "huggingface_hub": ["transformer.exchange.hub"],
    "matplotlib": ["transformer.run.pictures"],
    "ml_collections": ["transformer.config", "configs"],
    "optax": ["transformer.training", "transformer.steps"],
    "orbax": ["transformer.io.checkpoint"],
    "rouge_score": ["transformer.metrics.rouge"],
    "sacrebleu": ["transformer.metrics"],
    "safetensors": ["transformer.io.weights"],
    "sentencepiece": ["transformer.data.pieces", "transformer.data.tokenizer"],
    "tensorboardX": ["transformer.io.event_file"],
    "tensorstore": ["transformer.io.arrays"],
    "tensorflow_datasets": ["transformer.data.tfds_source"],
    "torch": ["transformer.exchange.pickles", "transformer.exchange.verifying"],
    "transformers": ["transformer.exchange.verifying"],
    "xxhash": ["transformer.io.digests"],
}
EVERYWHERE = {"jax", "numpy"}

LONGEST_FILE, LONGEST_FUNCTION = 350, 60
LONG_FUNCTIONS = {"transformer.decoding.beam.beam_search"}  # one loop, its state and its stopping rule


def imports(tree: ast.Module) -> Iterator[str]:
    """Yields every module that is imported, inside functions and by name too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative import"
            # `from a.b import c` means the module a.b.c if there is one.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = names & SOURCES.keys() or {node.module}
            yield from modules
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            assert isinstance(node.args[0], ast.Constant), "a module chosen at run time"
            yield node.args[0].value


def ours() -> Iterator[tuple[str, str]]:
    """Yields (importing module, imported module) inside the package."""
    for module, tree in SOURCES.items():
        for name in imports(tree):
            if module.startswith("transformer.") and name.startswith("transformer."):
                yield module, name


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_a_floor():
    special = {"transformer.__init__", "transformer.__main__"}
    homeless = [m for m in SOURCES if m.startswith("transformer.") and room(m) not in FLOORS]
    assert set(homeless) <= special


def test_nothing_looks_upstairs():
    upstairs = [(module, name) for module, name in ours() if FLOORS.get(room(module), 5) < FLOORS[room(name)]]
    assert not upstairs


def test_rooms_of_a_floor_do_not_know_each_other():
    doors = set()
    for module, name in ours():
        both = {room(module), room(name)}
        if len(both) == 2 and any(both <= floor for floor in (ROOMS, TRADES, SHOPS)):
            doors.add((module, name))
    assert doors == DOORS


def test_no_circles():
    reached: dict[str, set[str]] = {}
    for module, name in ours():
        reached.setdefault(module, set()).add(name)
    for middle in SOURCES:
        for targets in reached.values():
            if middle in targets:
                targets |= reached.get(middle, set())
    assert {module for module, names in reached.items() if module in names} == set()


def test_packages_stay_behind_their_walls():
    standard = sys.stdlib_module_names | {"transformer"}
    for module, tree in SOURCES.items():
        for package in {name.split(".")[0] for name in imports(tree)} - standard - EVERYWHERE:
            allowed = WALLS.get(package, [])
            inside = any(module == place or module.startswith(place + ".") for place in allowed)
            assert inside, f"{module} imports {package}; its places are {allowed or 'none'}"


def test_walls_are_those_that_stand():
    """A package or place that nobody uses any more leaves the table, and pyproject.toml names the others."""
    for package, places in WALLS.items():
        for place in places:
            users = [m for m in SOURCES if m == place or m.startswith(place + ".")]
            assert any(package == name.split(".")[0] for m in users for name in imports(SOURCES[m])), (
                f"nothing in {place} imports {package}"
            )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    stated = [
        *project["dependencies"],
        *extras["tfds"],
        *extras["hub"],
        *extras["ctranslate2"],
        *extras["verify"],
        *extras["pickle"],
        *extras["rouge"],
    ]
    names = {re.split(r"[^\w-]", text)[0].replace("-", "_") for text in stated}
    known_as = {"absl_py": "absl", "orbax_checkpoint": "orbax"}
    forgotten_by_tfds = {"importlib_resources"}
    assert {known_as.get(name, name) for name in names} - forgotten_by_tfds == WALLS.keys() | EVERYWHERE


def test_files_are_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for folder in ("transformer", "configs", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}
    ours = sorted(n for name, n in lengths.items() if name.startswith("transformer") and n)
    assert ours[len(ours) // 2] < 150  # the median


def test_functions_fit_on_a_screen():
    long = {
        f"{module}.{node.name}": length
        for module, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert long.keys() == LONG_FUNCTIONS, long


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_every_module_says_what_it_is(module):
    path = Path(*module.split("."))
    if path.name != "__init__" or SOURCES[module].body:
        assert ast.get_docstring(SOURCES[module]), f"{path}: has no docstring"
