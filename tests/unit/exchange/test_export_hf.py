"""What was imported is given back to the bit, and models of our own are those that transformers computes."""

import warnings
from pathlib import Path
from typing import Any

import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import own_models
import pytest
from safetensors import safe_open

from transformer.exchange.exporting import export_hf
from transformer.exchange.importing import import_hf
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.inference.translator import Translator

torch = pytest.importorskip("torch", reason="PyTorch, not a dependency of this project, is not installed")
transformers = pytest.importorskip("transformers", reason="transformers, not a dependency, is not installed")

MAKERS = {
    "marian": hf_folders.marian,
    "marian_separate": lambda folder: hf_folders.marian(folder, separate=True, activation_function="relu"),
    "m2m100": hf_folders.m2m100,
    "nllb": hf_folders.nllb,
    "mbart": hf_folders.mbart,
    "t5": hf_folders.t5,
    "t5_untied": lambda folder: hf_folders.t5(folder, untied=True, tie_word_embeddings=False),
    "mt5_gated": lambda folder: hf_folders.t5(folder, "MT5", feed_forward_proj="gated-gelu"),
    "umt5_gated": lambda folder: hf_folders.t5(folder, "UMT5", feed_forward_proj="gated-gelu"),
    "bart": hf_folders.bart,
    "bart_merges": lambda folder: hf_folders.bart(folder, "vocab.json and merges.txt"),
    "byt5": hf_folders.byt5,
    "madlad": hf_folders.madlad,
}
READERS = dict(bart="Bart", byt5="ByT5", madlad="T5", t5="T5", mt5="T5", umt5="T5")  # others: Auto


def quiet(line: str) -> None:
    """Takes what is not tested."""


def content(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Returns dtype, shape and bytes of each tensor."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {
        name: (f"{x.dtype} {list(x.shape)}", x.contiguous().view(torch.uint8).numpy().tobytes())
        for name, x in found.items()
    }


def loaded(folder: Path, kind: str) -> tuple[Any, Any]:
    """Returns the settings of model and search as transformers reads them, without its version."""
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    search = transformers.GenerationConfig.from_pretrained(folder).to_dict()
    ours = {"transformers_version", "_from_model_config", "_name_or_path"}
    return tuple({k: v for k, v in found.items() if k not in ours} for found in (config, search))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", MAKERS)
def test_what_was_imported_is_given_back(
    kind: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_folders, "copies", lambda *sizes, **more: [])  # random parameters, not taught
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MAKERS[kind](tmp_path / "theirs")
        if dtype == "float16":
            hf_folders.save(model.half(), tmp_path / "theirs")
        import_hf(tmp_path / "theirs", tmp_path / "ours", note=quiet)
        title, _ = export_hf(tmp_path / "ours", tmp_path / "back", note=quiet)
        assert title == type(model).__name__
        assert content(tmp_path / "back") == content(tmp_path / "theirs")
        assert loaded(tmp_path / "back", kind) == loaded(tmp_path / "theirs", kind)
        reader = getattr(transformers, READERS.get(kind.partition("_")[0], "Auto") + "Tokenizer")
        before, after = (reader.from_pretrained(tmp_path / name) for name in ("theirs", "back"))
        getattr(transformers, title).from_pretrained(tmp_path / "back")
    lines = [*hf_folders.sentences(100, seed=11), "a   road"]
    assert after(lines).input_ids == before(lines).input_ids
    assert after(text_target=lines).input_ids == before(text_target=lines).input_ids
    assert after.batch_decode(after(lines).input_ids) == before.batch_decode(before(lines).input_ids)


def test_a_language_in_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MADLAD-400's tokenizer does not add it as ours does."""
    monkeypatch.setattr(hf_folders, "copies", lambda *sizes, **more: [])
    hf_folders.madlad(tmp_path / "theirs")
    import_hf(tmp_path / "theirs", tmp_path / "ours", ("", "de"), note=quiet)
    notes: list[str] = []
    export_hf(tmp_path / "ours", tmp_path / "back", note=notes.append)
    assert notes[0] == "the tokenizer of t5 adds no language: begin each line with <2de>"
    assert content(tmp_path / "back") == content(tmp_path / "theirs")


OWN = {
    "the paper's": dict(norm_epsilon=1e-5),
    "scanned": dict(norm_epsilon=1e-5, scan_layers=True, attention_bias=True, activation="swish"),
    "two vocabularies": dict(norm_epsilon=1e-5, joint=False, tied_embeddings="target", logits_bias=True),
}


@pytest.mark.parametrize("kind", OWN)
def test_models_of_our_own(kind: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    decode = dict(rules="huggingface", length_penalty=1.0, beam_size=1, max_extra_length=20)
    own_models.write(tmp_path / "ours", decode, **OWN[kind])
    title, compared = export_hf(tmp_path / "ours", tmp_path / "hf", lines=[], note=quiet)
    assert title == "MarianMTModel" and compared.startswith("100 of 100")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.MarianMTModel.from_pretrained(tmp_path / "hf").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    lines = hf_folders.sentences(20, seed=3)
    ours = load_model(tmp_path / "ours")
    assert tokenizer(lines).input_ids == ours.tokenizer.encode_source(lines)
    assert tokenizer(text_target=lines).input_ids == ours.tokenizer.encode_target(lines)
    batch = tokenizer(lines, return_tensors="pt", padding=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = theirs.generate(**batch, max_new_tokens=12)
        start = torch.full((len(ids), 1), ours.tokenizer.special.start)
        inputs = torch.cat([start, ids[:, 1:-1].clamp(min=3)], dim=1)
        expected = theirs(**batch, decoder_input_ids=inputs).logits.numpy()
    found = logits(ours, batch.input_ids.numpy(), batch.attention_mask.numpy(), inputs.numpy())
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    outputs = Translator.of(ours).translate(lines)
    expected = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert [text[:9] for text in outputs] == [text[:9] for text in expected]


def logits(ours: LoadedModel, src_BS: np.ndarray, seg_BS: np.ndarray, tgt_in_BT: np.ndarray) -> np.ndarray:
    """Returns our logits [B, T, V]."""
    ids = [jnp.asarray(x, jnp.int32) for x in (src_BS, seg_BS, tgt_in_BT)]
    places = [jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape) for x in (ids[0], ids[2])]

    def apply(params: Any) -> jax.Array:
        inputs = ids[0], ids[1], places[0], ids[2], jnp.ones_like(ids[2]), places[1]
        y_BTD = ours.model.apply({"params": params}, *inputs)
        return ours.model.apply({"params": params}, y_BTD, method="logits")

    return np.asarray(jax.jit(apply)(ours.params))
