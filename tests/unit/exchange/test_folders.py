"""What is read of a foreign folder, and what is refused, with all its reasons in one line."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import hf_folders
import ml_dtypes
import numpy as np
import plain_folder
import pytest
from reference import numpy_transformer as reference
from reference import reference_cases as cases
from safetensors.numpy import load_file, save_file

from transformer import cli
from transformer.errors import CheckpointError
from transformer.exchange.foreign import Foreign
from transformer.exchange.importing import import_hf
from transformer.exchange.vocabularies import t5_tokenizer
from transformer.inference.model_directory import load_model


def quiet(line: str) -> None:
    """Takes what is not tested."""


def refused(folder: Path, target: Path) -> str:
    """Returns why a folder is refused; nothing is written."""
    with pytest.raises(CheckpointError) as caught:
        import_hf(folder, target, note=quiet)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_parameters_are_theirs_to_the_bit(tmp_path, dtype):
    theirs = plain_folder.tensors(dtype)
    import_hf(plain_folder.write(tmp_path / "from", theirs), tmp_path / "to", note=quiet)
    loaded = load_model(tmp_path / "to")
    ours = cases.flatten(loaded.params)
    query = theirs["model.decoder.layers.1.encoder_attn.q_proj.weight"]
    np.testing.assert_array_equal(
        ours["decoder/layer_1/cross_attention/query/kernel"][:, 2], query[8:12].T.astype(np.float32)
    )
    out = theirs["model.encoder.layers.0.self_attn.out_proj.weight"]
    np.testing.assert_array_equal(ours["encoder/layer_0/self_attention/out/kernel"][1], out[:, 4:8].T)
    np.testing.assert_array_equal(ours["logits_bias"], theirs["final_logits_bias"][0])
    assert sum(x.size for x in theirs.values()) == sum(x.size for x in ours.values())
    model = loaded.config.model
    assert (model.positions, model.norm, model.activation) == ("sinusoidal_split", "post", "relu")
    # All together they are the model that NumPy computes.
    (*source, _, seg, pos), _ = cases.batch(loaded.model)
    inputs = *source, np.minimum(cases.TGT_SEG * 3, 9), seg, pos
    y_BTD = loaded.model.apply({"params": loaded.params}, *inputs)
    found = loaded.model.apply({"params": loaded.params}, y_BTD, method="logits")
    expected = reference.logits(ours, model, *inputs)
    np.testing.assert_allclose(np.asarray(found)[seg > 0], expected[seg > 0], rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "to" / "imported.json").read_text())["config"]["model_type"] == "marian"


def test_all_reasons_are_told_together(tmp_path):
    arrays = plain_folder.tensors()
    changes: dict[str, Any] = dict(decoder_ffn_dim=11, activation_function="tanh", d_model=None)
    message = refused(plain_folder.write(tmp_path / "from", arrays, **changes), tmp_path / "to")
    for reason in (
        "encoder_ffn_dim 10, decoder_ffn_dim 11: must be equal",
        "activation_function: 'tanh' is not known; known: gelu",
        "d_model: expected a number up to 16777216, got nothing",
    ):
        assert reason in message


def test_copies_must_be_copies(tmp_path):
    arrays = plain_folder.tensors()
    names = "lm_head.weight", "model.encoder.embed_tokens.weight"
    copies = dict.fromkeys(names, arrays["model.shared.weight"])
    import_hf(plain_folder.write(tmp_path / "copies", arrays | copies), tmp_path / "to", note=quiet)
    for name in names:
        other = arrays | copies | {name: arrays["model.shared.weight"] + 1}
        message = refused(plain_folder.write(tmp_path / name, other), tmp_path / "other")
        assert f"{name}: the settings tie it to model.shared.weight, whose numbers are others" in message


@pytest.mark.parametrize(
    "changes, limit", [({}, 0), ({"max_length": 20}, 19), ({"max_length": 9, "max_new_tokens": 30}, 30)]
)
def test_the_longest_output(tmp_path, changes, limit):
    import_hf(plain_folder.write(tmp_path / "from", **changes), tmp_path / "to", note=quiet)
    assert load_model(tmp_path / "to").config.decode.length_limit == limit


def test_tensors_that_do_not_fit(tmp_path):
    arrays = plain_folder.tensors()
    arrays["model.encoder.gate"] = np.zeros(3, np.float32)
    arrays["model.encoder.layers.0.fc1.weight"] = np.zeros((9, 12), np.float32)
    del arrays["model.decoder.layers.0.fc1.bias"]
    message = refused(plain_folder.write(tmp_path / "from", arrays), tmp_path / "to")
    assert "model.encoder.layers.0.fc1.weight: has shape [9, 12], the settings say [12, 10]" in message
    assert "tensors that are missing: model.decoder.layers.0.fc1.bias" in message
    assert "tensors that our model has no place for: model.encoder.gate" in message


def test_copies_that_follow_from_others_may_lie_beside(tmp_path):
    arrays = plain_folder.tensors()
    for name in ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"):
        arrays[name] = arrays["model.shared.weight"]
    arrays["model.encoder.embed_positions.weight"] = np.zeros((64, 12), np.float32)
    import_hf(plain_folder.write(tmp_path / "from", arrays), tmp_path / "to", note=quiet)


def test_a_model_in_parts(tmp_path):
    """Under the names of the bare model, as old checkpoints of BART have them, and with what is not read."""
    arrays = plain_folder.tensors()
    del arrays["final_logits_bias"]
    arrays["model.encoder.version"] = np.ones(1, np.float32)
    import_hf(plain_folder.write(tmp_path / "whole", arrays), tmp_path / "one", note=quiet)
    folder = plain_folder.write(tmp_path / "parts", arrays)
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(arrays)}
    for file in set(places.values()):
        part = {name.removeprefix("model."): x for name, x in arrays.items() if places[name] == file}
        save_file(part, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    import_hf(folder, tmp_path / "two", note=quiet)
    one, two = (cases.flatten(load_model(tmp_path / name).params) for name in ("one", "two"))
    assert one.keys() == two.keys() and not one["logits_bias"].any()
    for path, x in one.items():
        np.testing.assert_array_equal(x, two[path])


def with_settings(folder: Path, **settings: Any) -> Path:
    """Adds to a folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def test_rules_of_the_search_that_are_not_ours_are_told(tmp_path, capsys):
    folder = plain_folder.write_bart(tmp_path / "from", ["t h", "th e"])
    with_settings(folder, repetition_penalty=1.2, diversity_penalty=0.0, suppress_tokens=[7])
    assert cli.main(["import", "hf", "--from", str(folder), "--to", str(tmp_path / "to")]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 2
    assert (
        "repetition_penalty=1.2, suppress_tokens=list: our search has no such rules" in err
        and "diversity_penalty" not in err
    )


def test_rules_of_the_search_come_along_and_go_back(tmp_path):
    folder = plain_folder.write_bart(tmp_path / "from", ["t h", "th e"])
    with_settings(folder, min_length=56, no_repeat_ngram_size=3, num_beams=5)
    said: list[str] = []
    import_hf(folder, tmp_path / "ours", note=said.append)
    decode = load_model(tmp_path / "ours").config.decode
    assert (decode.min_length, decode.no_repeat_ngram_size, decode.beam_size) == (56, 3, 5)
    assert len(said) == 1
    assert cli.main(["export", "hf", "--model", str(tmp_path / "ours"), "--to", str(tmp_path / "back")]) == 0
    back = json.loads((tmp_path / "back/generation_config.json").read_text())
    assert (back["min_length"], back["no_repeat_ngram_size"], back["num_beams"]) == (56, 3, 5)


def test_new_tokens_are_counted_without_the_start(tmp_path):
    """As in transformers, where it overrides the other setting."""
    folder = plain_folder.write_bart(tmp_path / "from", ["t h", "th e"])
    with_settings(folder, min_length=56, min_new_tokens=7)
    import_hf(folder, tmp_path / "ours", note=quiet)
    assert load_model(tmp_path / "ours").config.decode.min_length == 8
    with_settings(folder, min_new_tokens=[7])
    assert "min_new_tokens: expected one" in refused(folder, tmp_path / "other")


@pytest.mark.parametrize("whole", [True, False], ids=["tokenizer.json", "vocab.json and merges.txt"])
def test_byte_pairs(tmp_path, whole):
    folder = plain_folder.write_bart(tmp_path / "from", ["t h", "th e", "Ġ the"], whole)
    import_hf(folder, tmp_path / "to", note=quiet)
    tokenizer = load_model(tmp_path / "to").tokenizer
    ids = dict(zip(tokenizer.source_pieces(range(tokenizer.source_vocab)), range(999), strict=False))
    (found,) = tokenizer.encode_source(["the the ☃"])
    assert found == [0, *(ids[piece] for piece in ("the", "Ġthe", "Ġ", "â", "ĺ", "ĥ")), 2]
    assert tokenizer.encode_target(["the the ☃"]) == [found]
    assert tokenizer.decode_target([found]) == ["the the ☃"]
    pieces, scores = tokenizer.source_vocabulary()  # what subword dropout reads
    assert pieces[ids["<s>"]] == "" and scores[ids["the"]] == -2 and scores[ids["t"]] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "only byte pairs cut as GPT-2's"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space: true cannot"),
        ({"model": {"type": "Unigram", "vocab": [["<unk>", 0]]}}, "only byte pairs cut as GPT-2's"),
        ({"merges": [["t", "h"], ["th", "x"]]}, "merge 'th x': it or a part of it has no id"),
        ({"merges": ["t h", "a b c"]}, "merge 'a b c' is not a pair of pieces"),
        ({"added_tokens": 3}, "tokenizer.json: has no vocabulary"),
    ],
)
def test_byte_pairs_of_other_kinds(tmp_path, change, message):
    folder = plain_folder.write_bart(tmp_path / "from", ["t h"], whole=True)
    content = json.loads((folder / "tokenizer.json").read_text())
    if "merges" in change:
        content["model"] |= change
    else:
        content |= change
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert message in refused(folder, tmp_path / "to")


def spoil(folder: Path, how: str) -> None:
    """Changes a sound folder."""
    weights, vocabulary = folder / "model.safetensors", folder / "vocab.json"
    index = folder / "model.safetensors.index.json"
    ids = json.loads(vocabulary.read_text())
    if how == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "nothing":
        weights.unlink()
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "huge header":
        weights.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    elif how == "integers":
        arrays = {**plain_folder.tensors(), "final_logits_bias": np.zeros((1, plain_folder.VOCAB), np.int32)}
        save_file(arrays, weights)
    elif how == "not finite":
        arrays = plain_folder.tensors()
        arrays["final_logits_bias"][0, 3] = np.nan
        save_file(arrays, weights)
    elif how == "link":
        (folder / "config.json").rename(folder.with_suffix(".json"))
        (folder / "config.json").symlink_to(folder.with_suffix(".json"))
    elif how == "way out":
        weights.unlink()
        index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    elif how == "deep":
        (folder / "config.json").write_text('{"a":' * 100_000)
    elif how == "list":
        vocabulary.write_text("[1, 2]")
    elif how == "twice":
        vocabulary.write_text(json.dumps({**ids, "zwei": 3}))
    elif how == "beyond":
        vocabulary.write_text(json.dumps({**ids, "weit": 10**9}))
    elif how == "no unk":
        vocabulary.write_text(json.dumps({k: v for k, v in ids.items() if k != "<unk>"}))
    elif how == "absurd":
        settings = {**plain_folder.SETTINGS, "encoder_layers": 10**9, "vocab_size": 10**12}
        (folder / "config.json").write_text(json.dumps(settings))
    elif how == "no model":
        (folder / "target.spm").unlink()
    elif how == "no spm":
        (folder / "target.spm").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", "pytorch_model.bin: is not read, since pickles can run code; .* add --allow_pickle"),
        ("nothing", "has no model.safetensors; give a folder that save_pretrained wrote"),
        ("cut", "model.safetensors: damaged: .*; get it anew"),
        ("huge header", "model.safetensors: damaged: .*; get it anew"),
        ("integers", "final_logits_bias: dtype I32 is not one of F32, F16, BF16"),
        ("not finite", "final_logits_bias: has numbers that are not finite"),
        ("link", r"config.json: is a link out of the folder; put the file itself there"),
        ("way out", r"names '\.\./other.safetensors', expected .safetensors files of the same folder"),
        ("deep", "config.json: cannot be read as JSON"),
        ("list", "vocab.json: expected a JSON object, got list"),
        ("twice", "vocab.json: pieces .* and 'zwei' both have id 3"),
        ("beyond", "vocab.json: piece 'weit' has id 1000000000, expected 0 to 49"),
        ("no unk", "vocab.json: has no piece '<unk>'"),
        (
            "absurd",
            "encoder_layers: expected a number up to 1000, got 1000000000; .*vocab_size: expected",
        ),
        ("no model", "target.spm: is missing; the tokenizer needs it"),
        ("no spm", "target.spm: not a SentencePiece model: .*; get it anew"),
    ],
)
def test_damaged_folders(tmp_path, capsys, how, message):
    folder = plain_folder.write(tmp_path / "from")
    spoil(folder, how)
    before = sorted(tmp_path.rglob("*"))
    code = cli.main(["import", "hf", "--from", str(folder), "--to", str(tmp_path / "to")])
    said = capsys.readouterr().err
    assert code == 4, said
    assert said.count("\n") == 1 and said.startswith("transformer: error: ")
    assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before


def test_other_families_and_places(tmp_path, capsys):
    other = refused(plain_folder.write(tmp_path / "from", model_type="marien"), tmp_path / "to")
    assert "model_type 'marien' is not one that can be imported; did you mean 'marian'?" in other
    assert cli.main(["import", "hf", "--from", str(tmp_path / "none"), "--to", str(tmp_path / "to")]) == 4
    assert "no such folder; give one that save_pretrained wrote, or OWNER/NAME" in capsys.readouterr().err


def test_nothing_is_written_over(tmp_path):
    folder = plain_folder.write(tmp_path / "from")
    import_hf(folder, tmp_path / "to", note=quiet)
    with pytest.raises(CheckpointError, match="holds a run already; choose another --to"):
        import_hf(folder, tmp_path / "to", note=quiet)


@pytest.mark.parametrize("whole", [True, False], ids=["tokenizer.json", "vocab.json and merges.txt"])
def test_byte_pairs_are_given_back(tmp_path, whole):
    """Import, export, import: the same files of the tokenizer, and the same tensors to the bit."""
    folder = plain_folder.write_bart(tmp_path / "from", ["t h", "th e"], whole)
    import_hf(folder, tmp_path / "ours", note=quiet)
    command = ["export", "hf", "--model", str(tmp_path / "ours"), "--to", str(tmp_path / "back")]
    assert cli.main(command) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("from", "back"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(x, after[name]) for name, x in before.items())
    for name in ("tokenizer.json",) if whole else ("vocab.json", "merges.txt"):
        given = (folder / name).read_text(), (tmp_path / "back" / name).read_text()
        assert given[0] == given[1] if name != "vocab.json" else json.loads(given[0]) == json.loads(given[1])
    import_hf(tmp_path / "back", tmp_path / "again", note=quiet)
    first, second = (load_model(tmp_path / name).tokenizer for name in ("ours", "again"))
    assert first.digest == second.digest


def test_the_language_of_madlad(tmp_path):
    """Told once when the model is imported, or before each line: the same ids."""
    special = dict(pad_id=-1, eos_id=2, unk_id=0, bos_id=1, user_defined_symbols=["<2de>", "<2en>"])
    (tmp_path / "spiece.model").write_bytes(hf_folders.sentencepiece_model(53, 0, **special))
    (tmp_path / "config.json").write_text(
        '{"eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 0}'
    )
    told, other = (t5_tokenizer(Foreign(tmp_path), (53, 53), ("", code)) for code in ("de", ""))
    (ids,) = told.encode_source(["the dog"])
    assert ids[0] == 3 and ids[-1] == 2 and other.encode_source(["<2de> the dog"]) == [ids]
    assert other.encode_source(["the dog"]) == [ids[1:]]
    with pytest.raises(CheckpointError, match="'dee' is not known; did you mean 'de'"):
        t5_tokenizer(Foreign(tmp_path), (53, 53), ("", "dee"))


def test_a_vocabulary_of_another_form(tmp_path):
    """One of a unigram model where byte pairs are read."""
    folder = plain_folder.write_bart(tmp_path / "from", ["a b"], whole=True)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = [[piece, 0.0] for piece in content["model"]["vocab"]]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "only byte pairs cut as GPT-2's" in refused(folder, tmp_path / "to")
