"""Marian's own files: the logits of its Transformer, its ids, and what is refused."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import hf_folders
import jax.numpy as jnp
import marian_folder
import numpy as np
import pytest

from transformer import cli
from transformer.errors import CheckpointError
from transformer.exchange.exporting import export_hf
from transformer.exchange.importing import import_marian
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.model.masks import shift_right

SEPARATE = dict(tied_embeddings_all="false", tied_embeddings="true")
CASES: dict[str, dict[str, Any]] = {
    "as OPUS-MT": {},
    "pre-norm, relu": {k.replace("-", "_"): v for k, v in marian_folder.PRE.items()}
    | dict(transformer_ffn_activation="relu"),
    "norm on embeddings, output apart": dict(
        transformer_postprocess_emb="nd", tied_embeddings_all=None, tied_embeddings_src="true"
    ),
    "two vocabularies, the source's larger": dict(SEPARATE, more=(9, 0)),
    "two vocabularies, the target's larger": dict(SEPARATE, more=(0, 3)),
    "nothing tied": dict(tied_embeddings_all="false"),
}


def imported(folder: Path, **changes: Any) -> tuple[dict[str, np.ndarray], dict[str, Any], LoadedModel]:
    """Returns (tensors, options, our model) of a folder that was imported."""
    arrays, options = marian_folder.write(folder / "from", **changes)
    import_marian(folder / "from", folder / "to", note=str)
    return arrays, options, load_model(folder / "to")


def our_logits(loaded: LoadedModel, source: list[int], target: list[int]) -> np.ndarray:
    """Returns logits of each target id, and of what comes behind the last one."""
    src_BS, tgt_BT = jnp.array([source]), jnp.array([[*target, 0]])
    place_BS, place_BT = (jnp.arange(x.shape[1])[None] for x in (src_BS, tgt_BT))
    tgt_in_BT = shift_right(tgt_BT, place_BT, loaded.model.start_id)
    inputs = src_BS, jnp.ones_like(src_BS), place_BS, tgt_in_BT, jnp.ones_like(tgt_BT), place_BT
    y_BTD = loaded.model.apply({"params": loaded.params}, *inputs)
    return np.asarray(loaded.model.apply({"params": loaded.params}, y_BTD, method="logits"))[0]


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_marian(tmp_path, name):
    arrays, options, loaded = imported(tmp_path, **CASES[name])
    draw, rows = np.random.default_rng(1), arrays["decoder_ff_logit_out_b"].shape[1]
    source, target = draw.integers(2, 45, 9).tolist(), draw.integers(2, 45, 7).tolist()
    expected = marian_folder.logits(arrays, options, source, target)
    found = our_logits(loaded, source, target)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found[:, :rows], expected, rtol=0, atol=1e-4)
    # What Marian has no ids for has no part in its probabilities.
    assert (np.exp(found[:, rows:] - found.max(axis=1, keepdims=True)) < 1e-30).all()


@pytest.mark.parametrize("old", [False, True])
def test_half_precision_and_old_names(tmp_path, old):
    """Tensors are widened exactly; the output table of old models lies the other way."""
    arrays, options = marian_folder.write(tmp_path / "from", dtype=np.float16, tied_embeddings_all="false")
    if old:
        table = arrays.pop("decoder_ff_logit_out_Wt")
        marian_folder.save(
            tmp_path / "from/opus.model.npz", arrays | {"decoder_ff_logit_out_W": table.T.copy()}, options
        )
        arrays["decoder_ff_logit_out_Wt"] = table
    import_marian(tmp_path / "from", tmp_path / "to", note=str)
    params = load_model(tmp_path / "to").params
    table_VD = np.asarray(params["output"]["embedding"])
    np.testing.assert_array_equal(table_VD[:-1], arrays["decoder_ff_logit_out_Wt"].astype(np.float32))
    assert not table_VD[-1].any()
    kernel_DF = params["encoder"]["layer_0"]["feed_forward"]["wi"]["kernel"]
    np.testing.assert_array_equal(kernel_DF, arrays["encoder_l1_ffn_W1"].astype(np.float32))


def test_ids_and_search(tmp_path):
    """YAML has the ids, source.spm and target.spm cut; decoder.yml says how to search."""
    marian_folder.write(tmp_path / "from")
    (tmp_path / "from/decoder.yml").write_text(
        "models:\n  - /home/me/opus.model.npz\nvocabs: [opus.vocab.yml, opus.vocab.yml]\n"
        "beam-size: 6\nnormalize: 0.8\nword-penalty: 0.2\nmax-length: 300\nrelative-paths: true\n"
    )
    said: list[str] = []
    import_marian(tmp_path / "from", tmp_path / "to", note=said.append)
    assert said[0].startswith("word-penalty=0.2: our search has no such rules")
    loaded = load_model(tmp_path / "to")
    decode, tokenizer = loaded.config.decode, loaded.tokenizer
    assert (decode.beam_size, decode.length_penalty, decode.rules) == (6, 0.8, "huggingface")
    assert loaded.config.model.max_length == 300
    assert json.loads((tmp_path / "to/imported.json").read_text())["family"] == "marian-nmt"
    models = [hf_folders.sentencepiece_model(*size) for size in ((47, 0), (53, 1))]
    side = list(dict.fromkeys(piece for model in models for piece in marian_folder.vocabulary(model)))
    special = tokenizer.special
    assert (special.end, special.unk, special.pad, special.start) == (0, 1, len(side), len(side))
    assert special.forbidden == (1, len(side))
    (ids,) = tokenizer.encode_source(["the dog Ω"])
    assert ids[-1] == 0 and 1 in ids
    cut = hf_folders.spm.SentencePieceProcessor(model_proto=models[0]).encode("the dog Ω", out_type=str)
    assert ids[:-1] == [side.index(piece) if piece in side else 1 for piece in cut]
    (target,) = tokenizer.encode_target(["the road"])
    assert tokenizer.decode_target([[*target, 5]]) == ["the road"]


def test_sentencepiece_models_with_ids_of_their_own(tmp_path):
    """As Marian trains them itself: </s> is 0, <unk> is 1."""
    folder = tmp_path / "from"
    marian_folder.write(folder)
    for file in ("opus.vocab.yml", "source.spm", "target.spm"):
        (folder / file).unlink()
    kinds = dict(bos_id=-1, eos_id=0, unk_id=1, pad_id=-1)
    (folder / "vocab.ende.spm").write_bytes(hf_folders.sentencepiece_model(50, 0, **kinds))
    arrays = marian_folder.tensors(marian_folder.OPTIONS, (50, 50))
    marian_folder.save(folder / "opus.model.npz", arrays, marian_folder.OPTIONS | {"dim-vocabs": "[50, 50]"})
    import_marian(folder, tmp_path / "to", note=str)
    tokenizer = load_model(tmp_path / "to").tokenizer
    processor = hf_folders.spm.SentencePieceProcessor(model_file=str(folder / "vocab.ende.spm"))
    assert tokenizer.encode_source(["the dog"]) == [[*processor.encode("the dog"), 0]]
    assert tokenizer.source_vocab == 51


def test_all_reasons_are_told_together(tmp_path):
    marian_folder.write(
        tmp_path / "from",
        transformer_ffn_activation="gelu",
        transformer_decoder_autoreg="average-attention",
        transformer_train_position_embeddings="true",
        transformer_postprocess="dhn",
        transformer_tied_layers="\n  - 1\n  - 1",
        dim_emb=None,
        type="s2s",
    )
    with pytest.raises(CheckpointError) as caught:
        import_marian(tmp_path / "from", tmp_path / "to")
    assert "\n" not in str(caught.value) and not (tmp_path / "to").exists()
    for reason in (
        "transformer-ffn-activation: 'gelu' is not known",
        "transformer-decoder-autoreg: only self-attention can be represented, not 'average-attention'",
        "transformer-train-position-embeddings: cannot be represented, is True",
        "transformer-tied-layers: cannot be represented, is ['1', '1']",
        "transformer-postprocess 'dhn'",
        "dim-emb: expected a number up to 16777216, got nothing",
        "type: only transformer can be represented, not 's2s'",
    ):
        assert reason in str(caught.value)


def test_tensors_that_do_not_fit(tmp_path):
    arrays, options = marian_folder.write(tmp_path / "from")
    arrays["encoder_l1_ffn_W3"] = np.zeros((2, 2), np.float32)
    arrays["encoder_l1_ffn_b1"] = np.zeros((1, 9), np.float32)
    del arrays["decoder_l2_context_bk"]
    marian_folder.save(tmp_path / "from/opus.model.npz", arrays, options)
    with pytest.raises(CheckpointError) as caught:
        import_marian(tmp_path / "from", tmp_path / "to")
    for reason in (
        "encoder_l1_ffn_b1: has shape [1, 9], the settings say [10]",
        "tensors that are missing: decoder_l2_context_bk",
        "tensors that our model has no place for: encoder_l1_ffn_W3",
    ):
        assert reason in str(caught.value)


def spoil(folder: Path, how: str) -> None:
    """Changes a sound folder."""
    model, vocabulary = folder / "opus.model.npz", folder / "opus.vocab.yml"
    content = model.read_bytes()
    arrays = dict(np.load(model))
    if how == "compressed":
        np.savez_compressed(model, **arrays)
    elif how == "bomb":
        np.savez_compressed(model, **arrays, bomb=np.zeros(1 << 26, np.int8))
    elif how == "pickle":
        np.savez(model, **arrays, evil=np.array([{}], object))
    elif how == "fortran":
        np.savez(model, **arrays, other=np.asfortranarray(np.ones((3, 2), np.float32)))
    elif how == "integers":
        np.savez(model, **arrays, other=np.ones(3, np.int64))
    elif how == "cut":
        model.write_bytes(content[:-100])
    elif how == "bit":
        place = content.index(b"encoder_l1_ffn_W1.npy") + 300
        model.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif how == "shape":
        model.write_bytes(content.replace(b"'shape': (10, 12)", b"'shape': (99, 12)"))
    elif how == "code":
        model.write_bytes(content.replace(b"'shape': (10, 12)", b"'shape': exit(12)"))
    elif how == "overlap":
        place = content.rindex(b"PK\1\2")  # the last entry of the directory is the first one's member
        model.write_bytes(content[: place + 42] + bytes(4) + content[place + 46 :])
    elif how == "large directory":
        model.write_bytes(content[:-10] + struct.pack("<I", 1 << 30) + content[-6:])
    elif how == "no options":
        del arrays["special:model.yml"]
        np.savez(model, **arrays)
    elif how == "two models":
        (folder / "other.npz").write_bytes(content)
    elif how == "link":
        model.rename(folder.parent / "elsewhere.npz")
        model.symlink_to(folder.parent / "elsewhere.npz")
    elif how == "not finite":
        arrays["Wemb"][3, 4] = np.inf
        np.savez(model, **arrays)
    elif how == "no vocabulary":
        vocabulary.unlink()
    elif how == "twice":
        vocabulary.write_text(vocabulary.read_text() + "neu: 7\n")
    elif how == "nested":
        vocabulary.write_text("a:\n  b: 1\n")
    elif how == "anchors":
        vocabulary.write_text("a: &a [x, x]\nb: [*a, *a]\n")
    elif how == "many lines":
        vocabulary.write_text("".join(f"p{i}: {i}\n" for i in range(400_000)))
    elif how == "beyond":
        vocabulary.write_text(vocabulary.read_text() + "weit: 99999\n")
    elif how == "no spm":
        (folder / "source.spm").unlink()
    elif how == "bias":
        arrays["decoder_ff_logit_out_b"] = arrays["decoder_ff_logit_out_b"][:, :-1]
        np.savez(model, **arrays)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("compressed", "is compressed, which Marian does not write"),
        ("bomb", "its members are larger than the file"),
        ("pickle", "has a header that is not understood|has dtype"),
        ("fortran", "'other.npy' has dtype <f4, known are .* in C order"),
        ("integers", "'other.npy' has dtype <i8, known are"),
        ("cut", "opus.model.npz: damaged: does not end as a zip file"),
        ("bit", "'encoder_l1_ffn_W1.npy' has another checksum"),
        ("shape", "has 608 bytes, its shape needs 4,752"),
        ("code", "has a header that is not understood"),
        ("overlap", "opus.model.npz: damaged: .*; get it anew"),
        ("large directory", "has a directory of 1,073,741,824 bytes"),
        ("no options", "has no special:model.yml with the model's options"),
        ("two models", "expected one model.npz of Marian, found opus.model.npz, other.npz; leave one there"),
        ("link", "is a link out of the folder; put the file itself there"),
        ("not finite", "Wemb: has numbers that are not finite"),
        ("no vocabulary", "expected the vocabularies of both sides as .yml or .spm, found none; name them"),
        ("twice", "opus.vocab.yml: pieces .* and 'neu' both have id 7"),
        ("nested", "opus.vocab.yml: cannot be read as Marian's YAML: line 2: expected 'key: value'"),
        ("anchors", "opus.vocab.yml: cannot be read as Marian's YAML: line 1: expected a plain or quoted"),
        ("many lines", "opus.vocab.yml: cannot be read as Marian's YAML: has more than 300,000 lines"),
        ("beyond", "opus.vocab.yml: piece 'weit' has id 99999, expected 0 to"),
        ("no spm", "source.spm: is missing; the tokenizer needs it"),
        ("bias", "decoder_ff_logit_out_b: has shape .*, its vocabulary .* rows"),
    ],
)
def test_damaged_folders(tmp_path, capsys, how, message):
    marian_folder.write(tmp_path / "from")
    spoil(tmp_path / "from", how)
    before = sorted(tmp_path.rglob("*"))
    command = ["import", "marian", "--from", str(tmp_path / "from"), "--to", str(tmp_path / "to")]
    code = cli.main(command)
    said = capsys.readouterr().err
    assert code == 4, said
    assert said.count("\n") == 1 and said.startswith("transformer: error: ")
    assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_classes_of_transformers_compute_something_else(tmp_path, norm):
    changes = {k.replace("-", "_"): v for k, v in marian_folder.PRE.items()} if norm == "pre" else {}
    imported(tmp_path, **changes)
    with pytest.raises(CheckpointError, match="no class of transformers has this model") as caught:
        export_hf(tmp_path / "to", tmp_path / "back", note=str)
    assert "config.model.norm_epsilon is 1e-06, not 1e-05" in str(caught.value)
    if norm == "post":
        assert "MarianMTModel comes nearest" in str(caught.value)
        assert "config.model.positions is 'sinusoidal_halves', not 'sinusoidal_split'" in str(caught.value)
    assert not (tmp_path / "back").exists()


def test_options_of_the_other_form(tmp_path, capsys):
    command = ["import", "marian", "--from", str(tmp_path), "--to", str(tmp_path / "to"), "--allow_pickle"]
    assert cli.main(command) == 2
    assert "are for hf, not for marian" in capsys.readouterr().err
