"""`--allow_pickle`: tensors and nothing else, by a recent PyTorch, and only when asked for."""

import json
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import plain_folder
import pytest
from reference import reference_cases as cases

from transformer import cli
from transformer.errors import CheckpointError
from transformer.exchange.hub import local_folder
from transformer.exchange.importing import import_hf
from transformer.inference.model_directory import load_model


def pickled(folder: Path, state: Any) -> Path:
    """Puts a state where the tensors were, as PyTorch saves it."""
    torch = pytest.importorskip("torch", reason="PyTorch, not a dependency of this project, is not installed")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def test_the_hub_may_have_nothing_else(tmp_path, monkeypatch):
    """Pickles are downloaded only when asked for; that they might be there is told."""
    asked = []
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = lambda name, allow_patterns: asked.append(allow_patterns) or str(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(CheckpointError, match=r"no safetensors of it; .* add --allow_pickle"):
        local_folder("owner/name")
    assert local_folder("owner/name", pickles=True) == tmp_path
    assert ["pytorch_model*.bin" in patterns for patterns in asked] == [False, True]


def refused(folder: Path, target: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        import_hf(folder, target, allow_pickle=True, note=str)
    assert "\n" not in str(caught.value) and not target.exists()
    return str(caught.value)


@pytest.mark.parametrize(("module", "message"), [(None, "needs PyTorch"), ("2.5.1", "PyTorch 2.5.1 reads")])
def test_no_pytorch_or_an_old_one(tmp_path, monkeypatch, module, message):
    folder = plain_folder.write(tmp_path / "from")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    old = module and types.SimpleNamespace(__version__=module)
    monkeypatch.setitem(sys.modules, "torch", old)
    said = refused(folder, tmp_path / "to")
    assert message in said and "pip install 'torch>=2.6'" in said


def test_the_same_tensors(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, not a dependency of this project, is not installed")
    arrays = plain_folder.tensors(np.float16)
    import_hf(plain_folder.write(tmp_path / "safe", arrays), tmp_path / "one", note=str)
    state = {name: torch.tensor(x) for name, x in arrays.items()}
    folder = pickled(plain_folder.write(tmp_path / "pickled"), {})
    half = len(state) // 2
    parts = {
        f"pytorch_model-0000{i + 1}-of-00002.bin": names
        for i, names in enumerate((list(state)[:half], list(state)[half:]))
    }
    for file, names in parts.items():
        torch.save({name: state[name] for name in names}, folder / file)
    (folder / "pytorch_model.bin").unlink()
    places = {name: file for file, names in parts.items() for name in names}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    command = ["import", "hf", "--from", str(folder), "--to", str(tmp_path / "two")]
    assert cli.main(command) == 4
    assert cli.main([*command, "--allow_pickle"]) == 0
    one, two = (cases.flatten(load_model(tmp_path / name).params) for name in ("one", "two"))
    assert one.keys() == two.keys() and all(np.array_equal(x, two[path]) for path, x in one.items())


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_is_no_tensor(tmp_path):
    evil = pickled(plain_folder.write(tmp_path / "from"), {"a": Evil(tmp_path / "made")})
    assert "cannot be read as tensors alone" in refused(evil, tmp_path / "to")
    (evil / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "made")))
    assert "cannot be read as tensors alone" in refused(evil, tmp_path / "to")
    assert not (tmp_path / "made").exists()
    nested = pickled(plain_folder.write(tmp_path / "nested"), {"model": {"a": 1}})
    assert "holds something else than tensors by name" in refused(nested, tmp_path / "to")
