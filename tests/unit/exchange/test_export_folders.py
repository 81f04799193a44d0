"""What an export writes, seen from its files alone: no other library is needed."""

import json

import jax
import numpy as np
import own_models
import plain_folder
import pytest
from safetensors.numpy import load_file

from transformer import cli
from transformer.errors import CheckpointError
from transformer.exchange.exporting import export_hf
from transformer.exchange.importing import import_hf
from transformer.inference.model_directory import load_model
from transformer.io.checkpoint import Checkpoints
from transformer.io.workdir import Origin, Workdir, write_json
from transformer.run.average import average


def quiet(line: str) -> None:
    """Takes what is not tested."""


def test_import_then_export_gives_the_same_files(tmp_path):
    theirs = plain_folder.tensors(np.float16)
    plain_folder.write(tmp_path / "theirs", theirs)
    import_hf(tmp_path / "theirs", tmp_path / "ours", note=quiet)
    assert export_hf(tmp_path / "ours", tmp_path / "back", note=quiet) == ("MarianMTModel", "")
    found = load_file(tmp_path / "back" / "model.safetensors")
    assert found.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert found[name].dtype == np.float16
        np.testing.assert_array_equal(found[name], expected)
    for name in ("source.spm", "target.spm"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    for name in ("config.json", "vocab.json"):
        before, after = (json.loads((tmp_path / side / name).read_text()) for side in ("theirs", "back"))
        assert after == before
    # And once more there and back.
    import_hf(tmp_path / "back", tmp_path / "again", note=quiet)
    first, second = load_model(tmp_path / "ours"), load_model(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert cli.main(["diff", str(tmp_path / "ours"), str(tmp_path / "again")]) == 0


def test_a_fine_tuned_model_knows_where_it_came_from(tmp_path):
    """Dtypes stay where they still hold the numbers, settings where they still say the same."""
    settings = dict(encoder_layerdrop=0.25, torch_dtype="float16", num_beams=4)
    plain_folder.write(tmp_path / "theirs", plain_folder.tensors(np.float16), **settings)
    search = {"_from_model_config": True, "transformers_version": "4.31.0", "num_beams": 2}
    write_json(tmp_path / "theirs" / "generation_config.json", search)
    import_hf(tmp_path / "theirs", tmp_path / "base", note=quiet)
    base, tuned = load_model(tmp_path / "base"), Workdir(tmp_path / "tuned")
    params = jax.tree.map(np.array, base.params)
    params["shared"]["embedding"][3, 2] += 1e-6
    base.tokenizer.save(tuned.tokenizer)
    saved = Checkpoints(tuned.checkpoints, base.config.run)
    saved.save(5, {"params": params}, {})
    saved.close()
    tuned.save_config(base.config)
    write_json(tuned.init_file, Origin(str(tmp_path / "base"), 0, "not read here", {})._asdict())
    notes: list[str] = []
    export_hf(tuned.root, tmp_path / "back", note=notes.append)
    found = load_file(tmp_path / "back" / "model.safetensors")
    dtypes = {name: str(x.dtype) for name, x in found.items()}
    assert dtypes.pop("model.shared.weight") == "float32" and set(dtypes.values()) == {"float16"}
    np.testing.assert_array_equal(found["model.shared.weight"], params["shared"]["embedding"])
    assert notes[0].startswith("1 tensors were imported with fewer bits than they need now")
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    assert said["encoder_layerdrop"] == 0.25
    assert said["torch_dtype"] == "float32"  # or the new number would be cast where it is loaded
    # Nor is config.json's search taken in place of the one beside it.
    search = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert search["num_beams"] == 2 and not search.keys() & {"_from_model_config", "transformers_version"}
    # So does what is made of it.
    average(str(tuned.root), str(tmp_path / "mean"), last=1)
    export_hf(tmp_path / "mean", tmp_path / "mean back", note=quiet)
    one, other = (tmp_path / name / "config.json" for name in ("back", "mean back"))
    assert one.read_text() == other.read_text()


def test_what_fits_no_family_is_refused_with_all_reasons(tmp_path):
    own_models.write(tmp_path / "ours", norm="pre", positions="learned", norm_epsilon=1e-5)
    with pytest.raises(CheckpointError) as caught:
        export_hf(tmp_path / "ours", tmp_path / "none", note=quiet)
    message = str(caught.value)
    assert "no class of transformers has this model; MarianMTModel comes nearest, but: " in message
    assert "config.model.norm is 'pre', not 'post'; config.model.positions is 'learned', not " in message
    assert "configs/hf_compatible.py is a recipe for models that fit" in message and "\n" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours"]


@pytest.mark.parametrize("limit, longest", [(0, 64), (30, 31)])
def test_the_longest_output_is_theirs(tmp_path, limit, longest):
    """Which counts the decoder's start, and is the model's own length where ours has no limit."""
    own_models.write(tmp_path / "ours", dict(length_limit=limit), norm_epsilon=1e-5)
    export_hf(tmp_path / "ours", tmp_path / "theirs", note=quiet)
    search = json.loads((tmp_path / "theirs" / "generation_config.json").read_text())
    assert search["max_length"] == longest
