"""A state of fairseq's `transformer`: its logits, its ids, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import fairseq_folder
import hf_folders
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from transformer import cli
from transformer.errors import CheckpointError
from transformer.exchange.importing import import_fairseq
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.model.masks import shift_right

PRE = dict(encoder_normalize_before=True, decoder_normalize_before=True)
CASES: dict[str, dict[str, Any]] = {
    "one vocabulary": {},
    "pre-norm, nothing tied": dict(PRE, share_all_embeddings=False),
    "learned positions, target tied": dict(
        share_all_embeddings=False,
        share_decoder_input_output_embed=True,
        encoder_learned_pos=True,
        decoder_learned_pos=True,
        layernorm_embedding=True,
        no_scale_embedding=True,
    ),
}


def our_logits(loaded: LoadedModel, source: list[int], target: list[int]) -> np.ndarray:
    """Returns logits of each target id, and of what comes behind the last one."""
    src_BS, tgt_BT = jnp.array([source]), jnp.array([[*target, 2]])
    place_BS, place_BT = (jnp.arange(x.shape[1])[None] for x in (src_BS, tgt_BT))
    tgt_in_BT = shift_right(tgt_BT, place_BT, loaded.model.start_id)
    inputs = src_BS, jnp.ones_like(src_BS), place_BS, tgt_in_BT, jnp.ones_like(tgt_BT), place_BT
    y_BTD = loaded.model.apply({"params": loaded.params}, *inputs)
    return np.asarray(loaded.model.apply({"params": loaded.params}, y_BTD, method="logits"))[0]


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_fairseq(tmp_path, name):
    arrays, settings = fairseq_folder.write(tmp_path / "from", **CASES[name])
    import_fairseq(tmp_path / "from", tmp_path / "to", note=str)
    draw = np.random.default_rng(1)
    source, target = draw.integers(4, 45, 9).tolist(), draw.integers(4, 45, 7).tolist()
    expected = fairseq_folder.logits(arrays, settings, source, target)
    assert np.abs(expected).max() > 1
    found = our_logits(load_model(tmp_path / "to"), source, target)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["flat", "Hydra's", "YAML"])
def test_ids_and_settings(tmp_path, form):
    folder = tmp_path / "from"
    _, settings = fairseq_folder.write(folder)
    if form == "Hydra's":
        task = {"_name": "translation", **{key: settings.pop(key) for key in ("source_lang", "target_lang")}}
        del settings["task"]
        content = {
            "model": {"_name": settings.pop("arch"), **settings},
            "task": task,
            "optimizer": {"_name": "adam"},
        }
        (folder / "config.json").write_text(json.dumps(content))
    elif form == "YAML":
        (folder / "config.json").unlink()
        (folder / "config.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in settings.items()))
    import_fairseq(folder, tmp_path / "to", note=str)
    loaded = load_model(tmp_path / "to")
    special, decode = loaded.tokenizer.special, loaded.config.decode
    assert (special.pad, special.end, special.start, special.unk) == (1, 2, 2, 3)
    assert (decode.beam_size, decode.rules) == (5, "huggingface_early")
    assert loaded.config.model.max_length == 64 and loaded.config.model.num_decoder_layers == 2
    pieces = [line.split(" ")[0] for line in (folder / "dict.de.txt").read_text().splitlines()]
    cut = hf_folders.spm.SentencePieceProcessor(model_file=str(folder / "source.spm")).encode(
        "the dog Ω", out_type=str
    )
    assert loaded.tokenizer.encode_source(["the dog Ω"]) == [
        [*(pieces.index(piece) + 4 if piece in pieces else 3 for piece in cut), 2]
    ]
    (target,) = loaded.tokenizer.encode_target(["the road"])
    assert loaded.tokenizer.decode_target([target]) == ["the road"]


def test_all_reasons_are_told_together(tmp_path):
    fairseq_folder.write(
        tmp_path / "from",
        arch="transformer_lm_gpt",
        adaptive_input=True,
        encoder_normalize_before=True,
        decoder_output_dim=7,
        activation_fn="tanh",
    )
    with pytest.raises(CheckpointError) as caught:
        import_fairseq(tmp_path / "from", tmp_path / "to")
    assert "\n" not in str(caught.value) and not (tmp_path / "to").exists()
    for reason in (
        "arch: only transformer can be represented, not 'transformer_lm_gpt'",
        "adaptive_input: cannot be represented, is True",
        "encoder_normalize_before, decoder_normalize_before: must be equal",
        "decoder_embed_dim 12, decoder_output_dim 7: must be equal",
        "activation_fn: 'tanh' is not known",
    ):
        assert reason in str(caught.value)


def spoil(folder: Path, how: str) -> None:
    """Changes a sound folder."""
    weights, dictionary = folder / "model.safetensors", folder / "dict.de.txt"
    arrays, _ = fairseq_folder.write(folder.parent / "again")
    if how == "pickle":
        weights.rename(folder / "model.pt")
    elif how == "no copy":
        arrays["decoder.output_projection.weight"][3, 3] += 1
        save_file(arrays, weights)
    elif how == "old":
        save_file(
            arrays | {"encoder.layers.0.self_attn.in_proj_weight": np.ones((2, 2), np.float32)}, weights
        )
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif how == "link":
        dictionary.rename(folder.parent / "elsewhere.txt")
        dictionary.symlink_to(folder.parent / "elsewhere.txt")
    elif how == "language":
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"source_lang": "../../etc/passwd"}))
    elif how == "nested":
        (folder / "config.json").write_text('{"model":' * 100_000)
    elif how == "anchors":
        (folder / "config.json").unlink()
        (folder / "config.yaml").write_text("a: &a [x]\n")
    elif how == "no settings":
        (folder / "config.json").unlink()
    else:
        text = dictionary.read_text()
        changed = {
            "no count": text.replace(" 99\n", "\n"),
            "twice": text + text,
            "more": text + "neu 1\nnoch 1\n",
            "subwords": text.replace("madeupword0000", "mad@@"),
            "many lines": "a 1\n" * 1_100_000,
            "no text": "\udcff",
        }
        dictionary.write_bytes(changed[how].encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", "model.safetensors: is missing; fairseq's own file is a pickle, which is not read"),
        ("no copy", "decoder.output_projection.weight: is no copy of encoder.embed_tokens.weight, as the"),
        ("old", "tensors that our model has no place for: encoder.layers.0.self_attn.in_proj_weight"),
        ("cut", "model.safetensors: damaged: "),
        ("link", "dict.de.txt: is a link out of the folder"),
        ("language", r"source_lang: expected a language as in dict.<language>.txt, got '\.\./"),
        ("nested", "config.json: cannot be read as JSON"),
        ("anchors", "config.yaml: cannot be read: line 1: expected a plain or quoted"),
        ("no settings", "has no config.json or config.yaml with fairseq's settings"),
        ("no count", "dict.de.txt: line 1: expected 'piece count', got"),
        ("twice", "dict.de.txt: line .*: .* comes twice"),
        ("more", "dict.de.txt: piece 'neu' has id .*, expected 0 to"),
        ("subwords", "dict.de.txt: pieces of subword-nmt .'@@'. cannot be represented"),
        ("many lines", "dict.de.txt: has more than 1,048,576 lines"),
        ("no text", "dict.de.txt: cannot be read: is not UTF-8"),
    ],
)
def test_damaged_folders(tmp_path, capsys, how, message):
    fairseq_folder.write(tmp_path / "from")
    spoil(tmp_path / "from", how)
    before = sorted(tmp_path.rglob("*"))
    command = ["import", "fairseq", "--from", str(tmp_path / "from"), "--to", str(tmp_path / "to")]
    code = cli.main(command)
    said = capsys.readouterr().err
    assert code == 4, said
    assert said.count("\n") == 1 and said.startswith("transformer: error: ")
    assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before
