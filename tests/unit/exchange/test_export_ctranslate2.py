"""CTranslate2 gives the translations of the models that were exported for it."""

import re
from pathlib import Path
from typing import Any

import hf_folders
import marian_folder
import own_models
import plain_folder
import pytest

from transformer.errors import CheckpointError
from transformer.exchange.card import Said
from transformer.exchange.export_ctranslate2 import export_ctranslate2
from transformer.exchange.importing import import_hf, import_marian
from transformer.inference.model_directory import load_model
from transformer.inference.translator import Translator

ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2, an extra, is not installed")

T5: dict[str, Any] = dict(
    norm="pre",
    norm_type="rms",
    positions="relative",
    head_size=7,
    gated_feed_forward=True,
    feed_forward_bias=False,
    activation="gelu_tanh",
    scale_embeddings=False,
    scale_queries=False,
    scale_logits=True,
)
KINDS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "like BART": dict(
        norm="pre",
        positions="learned",
        position_offset=2,
        embedding_norm=True,
        activation="gelu",
        attention_bias=True,
        logits_bias=True,
        joint=False,
        tied_embeddings="none",
    ),
    "like T5": T5,
    "like M2M100": dict(norm="pre", positions="sinusoidal_halves", position_offset=2, activation="swish"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_translations_are_the_same(kind: str, tmp_path: Path) -> None:
    decode = dict(beam_size=1, max_extra_length=15)
    own_models.write(tmp_path / "ours", decode, **KINDS[kind])
    lines = hf_folders.sentences(100, seed=3)
    arguments = tmp_path / "ours", tmp_path / "ct2", "best", "float32", Said()
    told = export_ctranslate2(*arguments, lines)
    assert told.startswith("100 of 100 greedy translations are CTranslate2's, log-probabilities differ by")


@pytest.mark.parametrize("kind", ["as OPUS-MT", "two vocabularies"])
def test_what_was_imported_of_marian(kind: str, tmp_path: Path) -> None:
    """Its positions, epsilon and first input of zeros; ids that it has not are never chosen."""
    separate = dict(tied_embeddings_all="false", tied_embeddings="true", more=(9, 0))
    marian_folder.write(tmp_path / "theirs", **(separate if "two" in kind else {}))
    import_marian(tmp_path / "theirs", tmp_path / "ours", note=str)
    lines = hf_folders.sentences(100, seed=3)
    told = export_ctranslate2(tmp_path / "ours", tmp_path / "ct2", "best", "float32", Said(), lines)
    assert told.startswith("100 of 100 greedy translations are CTranslate2's, log-probabilities differ by")


def test_as_its_users_do(tmp_path: Path) -> None:
    """Text, the SentencePiece models beside it, text."""
    own_models.write(tmp_path / "ours", dict(beam_size=1, max_extra_length=15))
    export_ctranslate2(tmp_path / "ours", tmp_path / "ct2", "best", "float32", Said())
    lines = hf_folders.sentences(9, seed=3)
    translator = ctranslate2.Translator(str(tmp_path / "ct2"))
    source, target = (
        own_models.sentencepiece(tmp_path / "ct2" / f"{side}.spm") for side in ("source", "target")
    )
    found = translator.translate_batch(source.encode(lines, out_type=str), beam_size=1, max_decoding_length=9)
    ours = Translator.load(tmp_path / "ours").translate(lines)
    for result, text in zip(found, ours, strict=True):
        assert text.startswith(target.decode(result.hypotheses[0][:9]).strip()[:5])


def test_the_card_shows_all_that_stands_around_a_sentence(tmp_path: Path) -> None:
    """The lines that it gives are run as they are, and write what we do."""
    import_hf(plain_folder.write_bart(tmp_path / "theirs", ["a b"]), tmp_path / "ours", note=str)
    export_ctranslate2(tmp_path / "ours", tmp_path / "ct2", "best", "float32", Said())
    card = (tmp_path / "ct2" / "README.md").read_text()
    assert "translate_batch([['<s>'] + pieces + ['</s>']], target_prefix=[['<s>']])" in card
    (lines,) = re.findall(r"```\n(import.*?)```", card, re.DOTALL)
    loaded, folder = load_model(tmp_path / "ours"), tmp_path / "ct2"
    pieces = loaded.tokenizer.source_pieces(range(loaded.tokenizer.source_vocab))
    (ids,) = loaded.tokenizer.encode_source(["abba"])
    here: dict[str, Any] = {"pieces": loaded.tokenizer.source_pieces(ids[1:-1])}
    options = "beam_size=1, max_decoding_length=9, target_prefix"
    exec(lines.replace('"ct2"', repr(str(folder))).replace("target_prefix", options), here)
    (ours,) = Translator.of(loaded).translate(["abba"], beam_size=1)
    theirs = loaded.tokenizer.decode_target([[pieces.index(piece) for piece in here["best"]]])[0]
    assert len(theirs) > 3 and ours.startswith(theirs[:4])


def test_quantized_and_refused(tmp_path: Path) -> None:
    own_models.write(tmp_path / "ours", positions="learned")  # sinusoids would be most of so small a file
    for quantization in ("float32", "int8"):
        export_ctranslate2(tmp_path / "ours", tmp_path / quantization, "best", quantization, Said())
    large, small = (tmp_path / name / "model.bin" for name in ("float32", "int8"))
    assert small.stat().st_size < 0.6 * large.stat().st_size
    own_models.write(tmp_path / "umt5", relative_shared=False, **T5)
    with pytest.raises(CheckpointError, match="CTranslate2 has no such model: config"):
        export_ctranslate2(tmp_path / "umt5", tmp_path / "none", "best", "float32", Said())
    assert not (tmp_path / "none").exists()
