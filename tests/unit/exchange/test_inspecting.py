"""`transformer inspect` and `transformer diff` say what is there, on standard output alone."""

import json
import shutil

import jax
import numpy as np
import own_models

from transformer import cli
from transformer.inference.model_directory import load_model
from transformer.io.weights import write_weights


def lines_of(capsys, *arguments: str) -> tuple[int, list[str]]:
    """Returns the exit code and the lines of standard output."""
    capsys.readouterr()
    code = cli.main(list(arguments))
    found = capsys.readouterr()
    assert not found.err
    return code, found.out.splitlines()


def test_inspect_and_diff(tmp_path, capsys):
    first, second = str(own_models.write(tmp_path / "a")), str(tmp_path / "b")
    loaded = load_model(first)
    count = sum(x.size for x in jax.tree.leaves(loaded.params))
    code, lines = lines_of(capsys, "inspect", first, "--tensors")
    assert code == 0 and lines[0] == f"{first}: a model, parameters of step 7"
    assert f"parameters    {count:,} (embeddings 1,200," in "\n".join(lines)
    assert f"digest        {loaded.tokenizer.digest}" in lines and "seal          holds" in lines
    scale = loaded.params["encoder"]["layer_0"]["feed_forward_norm"]["scale"]
    begin = "encoder/layer_0/feed_forward_norm/scale  float32[24]"
    line = next(line for line in lines if line.startswith(begin))
    assert f"mean {np.asarray(scale, np.float64).mean():.3g}," in line

    # The same parameters in another form are the same model; then one number changes, and a setting.
    assert cli.main(["export", "safetensors", "--model", first, "--to", second]) == 0
    assert lines_of(capsys, "diff", first, second) == (0, [])
    params = jax.tree.map(np.array, loaded.params)
    params["shared"]["embedding"][3, 2] += 0.5
    (tmp_path / "b" / "model.safetensors").unlink()
    write_weights(_empty(tmp_path / "c") / "model.safetensors", params, 7)
    for name in ("model.safetensors", "xxh3_128.json"):
        shutil.copyfile(tmp_path / "c" / name, tmp_path / "b" / name)
    path = tmp_path / "b" / "config.json"
    settings = json.loads(path.read_text())
    settings["decode"]["beam_size"] = 9
    path.write_text(json.dumps(settings))
    code, lines = lines_of(capsys, "diff", first, second)
    assert code == 1
    assert lines[0] == "config.decode.beam_size: 4, 9"
    root = f"{0.5 / 1200**0.5:.3g}"
    assert lines[1:] == [
        f"shared/embedding: 1 of 1,200 numbers differ, by at most 0.5, {root} in root mean square"
    ]

    own_models.write(tmp_path / "d", joint=False, norm="pre", tied_embeddings="target")
    code, lines = lines_of(capsys, "diff", first, str(tmp_path / "d"))
    assert code == 1 and "config.model.norm: 'post', 'pre'" in lines
    assert any(line.startswith("tokenizer: target: 50, 50 pieces, ") for line in lines)
    assert "encoder/final_norm/scale: only in the second" in lines


def _empty(folder):
    folder.mkdir()
    return folder
