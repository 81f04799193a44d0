"""Languages added to a model that is told of them by ids."""

import numpy as np
import pytest

from transformer.config import ModelConfig, TokenizerConfig
from transformer.data.languages import with_languages
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import ConfigError
from transformer.run.transplant import transplanted
from transformer.special_ids import SpecialIds

LINES = ["a dog runs", "the cat sees a dog"]


def multilingual(form: str = "__{}__", behind: bool = False) -> Tokenizer:
    """Returns a tokenizer with ids for en, de and fr, from en to de; mBART's way of telling if `behind`."""
    own = train_tokenizer(LINES, LINES, TokenizerConfig(model_type="char", vocab_size=16))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *own.source_pieces(range(4, 16))]
    en, de, _ = codes = [len(pieces) + i for i in range(3)]
    pieces += [form.format(code) for code in ("en", "de", "fr")]
    special = SpecialIds(
        pad=1,
        unk=3,
        start=de if behind else 2,
        end=2,
        forbidden=(),
        source_prefix=() if behind else (en,),
        source_suffix=(2, en) if behind else (2,),
        target_prefix=() if behind else (de,),
        hidden=(0, 1, 2, *codes),
    )
    return Tokenizer(own.models[0], None, (pieces, pieces), special)


@pytest.mark.parametrize("behind", [False, True])
def test_another_pair_of_known_languages(behind):
    old = multilingual(behind=behind)
    new = with_languages(old, "fr", "")
    (plain,), (other,) = old.encode_source(["a dog"]), new.encode_source(["a dog"])
    assert [18 if i == 16 else i for i in plain] == other and 16 in plain
    assert new.encode_target(["a dog"]) == old.encode_target(["a dog"])
    assert new.special.start == old.special.start
    assert new.decode_target([[17, *plain[1:-2], 2]])[0] in "a dog"
    assert with_languages(old, "en", "de").digest == old.digest


def test_text_is_no_language():
    old = multilingual()
    assert "a" in old.source_pieces(range(4, 16))
    new = with_languages(old, "", "a")  # of M2M100 it would be spelled otherwise
    assert new.target_pieces(new.special.target_prefix) == ["__a__"]
    with pytest.raises(ConfigError, match=r"'a' is a piece of text, and no language, .* like 'de_Abc'"):
        with_languages(multilingual("{}_Abc"), "", "a")


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(("form", "code"), [("__{}__", "xx"), ("{}_Abc", "xx_Abc")])
def test_a_new_language(behind, form, code):
    old = multilingual(form, behind)
    new = with_languages(old, "", code)
    assert new.target_vocab == 20 and new.target_pieces([19]) == [form.format("xx")]
    assert (new.special.start if behind else new.encode_target(["a"])[0][0]) == 19
    assert new.decode_target([[19, *new.encode_target(["a dog"])[0]]]) == ["a dog"]
    draw = np.random.default_rng(0)
    params = {"shared/embedding": draw.normal(size=(19, 4)), "logits_bias": draw.normal(size=19)}
    fr = form.format("fr")
    for like, ids in (("", [16, 17, 18]), (fr, [18])):
        found, _ = transplanted(params, ModelConfig(), old, new, like)
        for path, x in params.items():
            np.testing.assert_array_equal(found[path][:19], x)
            np.testing.assert_allclose(found[path][19], x[ids].mean(axis=0), rtol=1e-12)
    with pytest.raises(ConfigError, match=r"language_like: 'fx(_Abc)?' is no language of init.model; "):
        transplanted(params, ModelConfig(), old, new, fr.strip("_").replace("fr", "fx"))


def test_tokenizers_without_languages():
    own = train_tokenizer(LINES, LINES, TokenizerConfig(model_type="char", vocab_size=16))
    with pytest.raises(ConfigError, match=r"the tokenizer of init.model has no ids of languages; leave them"):
        with_languages(own, "en", "")
