"""Which ids the tokenizers of others' folders have: languages, added tokens, tokens without rows."""

import json
from pathlib import Path
from typing import Any

import hf_folders
import pytest

from transformer.errors import CheckpointError
from transformer.exchange.byte_vocabularies import bart_tokenizer
from transformer.exchange.foreign import Foreign
from transformer.exchange.vocabularies import many_languages, t5_tokenizer
from transformer.exchange.written_vocabularies import written_tokenizer

MODEL = hf_folders.sentencepiece_model(47, 0)
TEXT = ["<s>", "<pad>", "</s>", "<unk>", *hf_folders.pieces_of(MODEL)]  # as fairseq numbers them


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(MODEL)
    return tmp_path


def foreign(folder: Path, tokenizer: dict[str, Any], **config: Any) -> Foreign:
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps(config))
    return Foreign(folder)


def decoder(tokens: dict[str, int]) -> dict[str, Any]:
    return {str(i): {"content": token, "special": True} for token, i in tokens.items()}


def test_a_language_is_no_piece_of_text(folder):
    """M2M100's vocabulary has pieces such as "de" and "en", which are text."""
    ids = {piece: i for i, piece in enumerate([*TEXT, "en", "de"])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    f = foreign(folder, {"tokenizer_class": "M2M100Tokenizer"}, model_type="m2m_100")
    rows = len(ids) + 100
    found = many_languages(f, (rows, rows), ("en", "de"))
    assert found.source_pieces(found.special.source_prefix) == ["__en__"]
    assert found.source_pieces(found.special.target_prefix) == ["__de__"]
    with pytest.raises(CheckpointError, match="--target_language: 'dog' is not known"):
        many_languages(f, (rows, rows), ("en", "dog"))


@pytest.mark.parametrize("odd", [[], {}, True, -1, "4", None, 1e999])
def test_ids_that_are_none(folder, odd):
    ids = {piece: i for i, piece in enumerate(TEXT)} | {"<s>": odd, "__de__": odd}
    (folder / "vocab.json").write_text(json.dumps(ids))
    f = foreign(folder, {"tokenizer_class": "M2M100Tokenizer"}, model_type="m2m_100")
    with pytest.raises(CheckpointError, match="piece '<s>' has id "):
        many_languages(f, (len(ids) + 100,) * 2, ("en", "de"))


@pytest.mark.parametrize("files", ["decoder", "added_tokens.json"])
def test_a_language_that_was_added_later_has_the_id_that_it_was_given(folder, files):
    n = len(TEXT)
    known, later = {"eng_Latn": n, "deu_Latn": n + 1, "<mask>": n + 2}, {"tyv_Cyrl": n + 5}
    told: dict[str, Any] = dict(tokenizer_class="NllbTokenizer", src_lang="eng_Latn", tgt_lang="tyv_Cyrl")
    told["additional_special_tokens"] = [{"content": "eng_Latn"}, "deu_Latn", "tyv_Cyrl"]
    if files == "decoder":
        told["added_tokens_decoder"] = decoder({**known, **later})
    else:
        (folder / files).write_text(json.dumps(later))
    f = foreign(folder, told, model_type="m2m_100")
    found = many_languages(f, (n + 9, n + 9), ("", ""))
    assert found.special.source_prefix == (n,) and found.special.target_prefix == (n + 5,)
    assert found.source_pieces(range(n, n + 3)) == list(known)
    assert set(found.special.hidden) == {0, 1, 2, *range(n, n + 3), n + 5} and not f.told


def test_the_search_says_which_language_is_written(folder):
    n = len(TEXT)
    settings = dict(tokenizer_class="NllbTokenizer", src_lang="eng_Latn", tgt_lang="eng_Latn")
    settings["additional_special_tokens"] = ["eng_Latn", "deu_Latn", "fra_Latn"]
    f = foreign(folder, settings, model_type="m2m_100", forced_bos_token_id=n + 1)
    assert many_languages(f, (n + 4, n + 4), ("", "")).special.target_prefix == (n + 1,)
    assert many_languages(f, (n + 4, n + 4), ("", "fra_Latn")).special.target_prefix == (n + 2,)
    del settings["tgt_lang"]
    f = foreign(folder, settings, model_type="m2m_100", forced_bos_token_id=n + 1)
    assert many_languages(f, (n + 4, n + 4), ("", "")).special.target_prefix == (n + 1,)


@pytest.mark.parametrize(
    ("name", "start", "first"),
    [
        ("", None, True),
        ("", 2, False),
        ("MBartTokenizerFast", 2, True),
        ("MBart50TokenizerFast", None, False),
        ("TokenizersBackend", None, True),
        ("PreTrainedTokenizerFast", 2, False),
    ],
)
def test_where_the_languages_stand(folder, name, start, first):
    config = dict(model_type="mbart", decoder_start_token_id=start)
    f = foreign(folder, dict(tokenizer_class=name, src_lang="en_XX", tgt_lang="de_DE"), **config)
    special = many_languages(f, (len(TEXT) + 60,) * 2, ("", "")).special
    assert (special.source_prefix == (), special.target_prefix == ()) == (first, first)
    assert (special.start == 2) != first


def test_a_class_that_lays_sentences_out_otherwise(folder):
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(TEXT)}))
    f = foreign(folder, {"tokenizer_class": "SMALL100Tokenizer"}, model_type="m2m_100")
    with pytest.raises(CheckpointError, match="tokenizer_class: 'SMALL100Tokenizer' is not known; of these"):
        many_languages(f, (len(TEXT) + 100,) * 2, ("en", "de"))


def test_tokens_that_users_added_are_told(tmp_path):
    model = hf_folders.sentencepiece_model(47, 0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (tmp_path / "spiece.model").write_bytes(model)
    added = {"<extra_id_1>": 47, "<extra_id_0>": 48, "<hl>": 49, "<far>": 60}
    f = foreign(tmp_path, dict(extra_ids=2, added_tokens_decoder=decoder(added)), decoder_start_token_id=0)
    found = t5_tokenizer(f, (60, 60), ("", ""))
    assert found.source_pieces(range(47, 51)) == ["<extra_id_1>", "<extra_id_0>", "<hl>", ""]
    assert [line.partition(":")[0] for line in f.told] == ["added tokens <hl>", "added tokens <far>"]
    for entry in ({"content": 1}, {"content": "a", "special": 1}, "a"):
        f = foreign(tmp_path, dict(added_tokens_decoder={"50": entry}), decoder_start_token_id=0)
        with pytest.raises(CheckpointError, match=r"tokenizer_config.json: added_tokens_decoder: token "):
            t5_tokenizer(f, (60, 60), ("", ""))


def test_a_tokenizer_without_its_model(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"is missing; .* copy it from the model that this one was trained"
    ):
        t5_tokenizer(foreign(tmp_path, {}), (60, 60), ("", ""))


@pytest.mark.parametrize(
    ("config", "forced"),
    [
        ({}, False),  # bart-large-xsum
        ({"forced_bos_token_id": None}, False),
        ({"forced_bos_token_id": 0}, True),
        ({"force_bos_token_to_be_generated": True}, True),
    ],
)
def test_bart_with_and_without_a_forced_beginning(tmp_path, config, forced):
    """And a mask, the last piece, that the table has no row for."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "ab", "<mask>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    found = bart_tokenizer(foreign(tmp_path, {}, **config), (7, 7), ("", ""))
    assert found.encode_target(["ab"]) == [[0, 6, 2]]
    assert found.special.given == ((0,) if forced else ())
    assert found.decode_target([[0, 6, 2]]) == ["ab"]


@pytest.mark.parametrize("name", ["", "NllbTokenizer", "TokenizersBackend"])
def test_what_is_written_of_languages(folder, name):
    """Names that transformers 4 and 5 read, a class, and nothing of ids that are others now."""
    n = len(TEXT)
    settings: dict[str, Any] = dict(src_lang="eng_Latn", tgt_lang="deu_Latn", tokenizer_class=name)
    settings["extra_special_tokens"] = ["eng_Latn", "deu_Latn"]
    title = name or "NllbTokenizer"
    f = foreign(folder, {**settings, "tokenizer_class": title}, model_type="m2m_100")
    found = many_languages(f, (n + 3, n + 3), ("", ""))
    stale = {**settings, "added_tokens_decoder": decoder({"deu_Latn": 5})}
    written = written_tokenizer("m2m_100", found, stale, False).settings
    assert written["additional_special_tokens"] == ["eng_Latn", "deu_Latn"]
    assert not written.keys() & {"extra_special_tokens", "added_tokens_decoder"}
    assert (written["tokenizer_class"], written["src_lang"]) == ("NllbTokenizer", "eng_Latn")
