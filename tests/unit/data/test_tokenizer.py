"""The tokenizer: nothing of the text is lost, training is deterministic, damage is noticed."""

import hashlib
import io
import unicodedata

import pytest
import sentencepiece as spm

from transformer.config import TokenizerConfig
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import CheckpointError, DataError
from transformer.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID, SpecialIds

NASTY = [
    "25 m² ﬁne",
    "10\u00a0km\u202fweit",
    " begins and ends ",
    "two  spaces and   three",
    "emoji 👩\u200d🚀 and flags 🇩🇪",
    "cafe\u0301 and caf\u00e9",
    "tab\tand zero\u200bwidth",
    "\u2028 line separator",
    "ＦＵＬＬ width Ⅻ ½ ㎞",
    "▁ is SentencePiece's own mark",
]
WORDS = ["der Hund läuft über 100 Wege", "the dog runs across 2048 roads", "zehn 10 Wege", "ten roads 7"] * 20


def config(**changes) -> TokenizerConfig:
    return TokenizerConfig(**{"model_type": "char", "vocab_size": 110, **changes})


def round_trip(lines, **changes):
    tokenizer = train_tokenizer(lines, lines, config(**changes))
    return tokenizer.decode_target(tokenizer.encode_target(lines))


def pieces_possible(lines, **changes) -> int:
    """The size that the error message offers."""
    with pytest.raises(DataError) as caught:
        train_tokenizer(lines, lines, config(vocab_size=9999, **changes))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("config.tokenizer.vocab_size: 9999 ")
    return int(message.split("vocab_size=")[1])


@pytest.mark.parametrize("model_type", ["char", "bpe", "unigram"])
def test_a_vocabulary_too_big_names_the_size_that_works(model_type):
    size = pieces_possible(WORDS, model_type=model_type)
    tokenizer = train_tokenizer(WORDS, WORDS, config(model_type=model_type, vocab_size=size))
    assert tokenizer.source_vocab == tokenizer.target_vocab == size


def test_a_vocabulary_too_small_names_what_is_needed():
    with pytest.raises(
        DataError, match=r"10 bpe pieces .* its characters alone are (\d+); set .* above"
    ) as caught:
        train_tokenizer(WORDS, WORDS, config(model_type="bpe", vocab_size=10))
    assert "\n" not in str(caught.value)
    characters = set("".join(WORDS)) - {" "} | {"▁", "<pad>", "<unk>", "<s>", "</s>"}
    assert f"alone are {len(characters)};" in str(caught.value)


def test_nasty_text_comes_back_unchanged():
    size = pieces_possible(NASTY)
    expected = [
        line.replace("▁", " ") for line in NASTY
    ]  # the one character that SentencePiece keeps for itself
    assert round_trip(NASTY, vocab_size=size) == expected


def test_nfkc_changes_it_as_unicode_says():
    lines = [line for line in NASTY if "\u200b" not in line and "▁" not in line and "\u2028" not in line]
    size = pieces_possible(lines, normalization="nfkc")
    found = round_trip(lines, vocab_size=size, normalization="nfkc")
    assert found == [unicodedata.normalize("NFKC", line) for line in lines]
    assert found[0] == "25 m2 fine" and found != lines


def test_surplus_spaces_go_on_request():
    lines = [" begins and ends ", "two  spaces"] * 3
    size = pieces_possible(lines, remove_extra_whitespaces=True)
    found = round_trip(lines, vocab_size=size, remove_extra_whitespaces=True)
    assert found[:2] == ["begins and ends", "two spaces"]


def test_tokenised_text_comes_back_token_for_token():
    lines = [
        "ein mann , der in der u-bahn sitzt .",
        'he said : " it \'s a dog & cat " ( really ? ) @-@ &quot;',
    ] * 5
    size = pieces_possible(lines, model_type="bpe")
    assert [line.split() for line in round_trip(lines, model_type="bpe", vocab_size=size - 2)] == [
        line.split() for line in lines
    ]


def test_unknown_characters_with_and_without_bytes():
    lines = ["abc abd acd"] * 5
    plain = train_tokenizer(lines, lines, config(vocab_size=pieces_possible(lines)))
    assert UNK_ID in plain.encode_source(["aξ"])[0]
    small = config(model_type="bpe", vocab_size=4 + 256 + 8, byte_fallback=True)
    byte = train_tokenizer(lines, lines, small)
    ids = byte.encode_source(["aξ🚀"])
    assert UNK_ID not in ids[0]
    assert byte.decode_target(ids) == ["aξ🚀"]


def test_digits_are_split_on_request():
    lines = ["2048 2048 2048 roads"] * 30
    whole = train_tokenizer(lines, lines, config(model_type="bpe", vocab_size=24))
    apart = train_tokenizer(lines, lines, config(model_type="bpe", vocab_size=17, split_digits=True))
    longest = {
        name: max(sum(c.isdigit() for c in p) for p in t.source_pieces(t.encode_source(["2048"])[0]))
        for name, t in (("whole", whole), ("apart", apart))
    }
    assert longest == {"whole": 4, "apart": 1}


def test_long_lines_count():
    """SentencePiece by itself would skip a line above 4,192 bytes without a word."""
    long = "ζ " * 3000
    tokenizer = train_tokenizer(["abc"] * 9, [long], config(vocab_size=9, joint=True))
    assert UNK_ID not in tokenizer.encode_source(["ζ ζ"])[0]
    assert len(tokenizer.encode_source([long])[0]) > 6000


def test_special_ids_frame_but_never_come_from_text():
    tokenizer = train_tokenizer(WORDS, WORDS, config(vocab_size=pieces_possible(WORDS)))
    ids = tokenizer.encode_source(["<s> </s> <pad> <unk>", ""])
    assert ids[1][-1] == ids[0][-1] == EOS_ID
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids[0][:-1])
    inside = tokenizer.encode_target(["ten"])[0]
    assert tokenizer.decode_target([[*inside, *inside], inside[:-1]]) == ["ten", "ten"]


@pytest.mark.parametrize("joint", [True, False])
def test_joint_or_separate_survives_the_disk(tmp_path, joint):
    sources, targets = ["aaa bbb ccc"] * 9, ["xxx yyy zzz"] * 9
    sizes = config(vocab_size=11 if joint else 8, joint=joint)
    tokenizer = train_tokenizer(sources, targets, sizes)
    assert not Tokenizer.exists(tmp_path)
    tokenizer.save(tmp_path)
    assert Tokenizer.exists(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.digest == tokenizer.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["tokenizer.json", *(["joint.model"] if joint else ["source.model", "target.model"])]
    )
    for t in (tokenizer, again):
        assert (UNK_ID in t.encode_source(["xyz"])[0]) is not joint
        assert (UNK_ID in t.encode_target(["ab"])[0]) is not joint
        assert t.decode_target(t.encode_target(["xxx zzz yyy"])) == ["xxx zzz yyy"]
        assert t.source_pieces(t.encode_source(["ab"])[0])[-1] == "</s>"
    assert [again.source_vocab, again.target_vocab] == ([11, 11] if joint else [8, 8])


def test_training_is_deterministic_and_the_digest_is_of_the_models(tmp_path):
    for model_type in ("unigram", "bpe"):
        sizes = config(model_type=model_type, vocab_size=36)
        first, second = (train_tokenizer(WORDS, WORDS, sizes) for _ in range(2))
        for name, tokenizer in (("a", first), ("b", second)):
            tokenizer.save(tmp_path / model_type / name)
        files = [tmp_path / model_type / name / "joint.model" for name in "ab"]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert first.digest == second.digest == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert train_tokenizer(WORDS[:1] * 9, WORDS, sizes).digest != first.digest


def test_damage_on_the_disk_is_one_line(tmp_path):
    train_tokenizer(WORDS, WORDS, config(model_type="bpe", vocab_size=40)).save(tmp_path)
    model, manifest = tmp_path / "joint.model", tmp_path / "tokenizer.json"
    content, facts = bytearray(model.read_bytes()), manifest.read_text()

    def refused(pattern):
        with pytest.raises(CheckpointError, match=pattern) as caught:
            Tokenizer.load(tmp_path)
        assert "\n" not in str(caught.value) and "restore" in str(caught.value)

    model.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    refused(r"joint\.model: damaged: sha256 is ")
    model.unlink()
    refused("no usable tokenizer")
    model.write_bytes(content)
    for damaged in (facts[: len(facts) // 2], "[]", '{"files": {}}', '{"files": {"x.model": 3}}'):
        manifest.write_text(damaged)
        refused("no usable tokenizer")


def test_models_of_other_programs_are_refused():
    with pytest.raises(DataError, match="tokenizer joint: not a SentencePiece model"):
        Tokenizer(b"no model")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS), model_writer=model, vocab_size=30, minloglevel=2, model_type="bpe"
    )
    with pytest.raises(
        DataError, match=r"pad, unk, bos, eos are \(-1, 0, 1, 2\), expected \(0, 1, 2, 3\)"
    ) as caught:
        Tokenizer(model.getvalue())
    assert "\n" not in str(caught.value)


def imported(**changes) -> Tokenizer:
    """A joint model whose ids are a map of their own, as Marian's: end mark 0, padding last, languages."""
    own = train_tokenizer(WORDS, WORDS, config(vocab_size=pieces_possible(WORDS)))
    pieces = [p for p in own.source_vocabulary()[0] if p and p != "ü"]
    spellings = ["</s>", "<unk>", ">>deu<<", *reversed(pieces), "", "<pad>"]
    last = len(spellings) - 1
    special = SpecialIds(
        pad=last, unk=1, start=last, end=0, forbidden=(last,), source_suffix=(0,), hidden=(0, last), **changes
    )
    (model,) = own._models.values()
    return Tokenizer(model, spellings=(spellings, spellings), special=special)


def test_ids_of_others_are_kept():
    tokenizer = imported()
    ids = tokenizer.encode_source(["ten roads", ">>deu<<ten", ">>fra<< ten", "über", ""])
    assert tokenizer.source_pieces(ids[0]) == [*"▁ten▁roads", "</s>"]
    assert tokenizer.source_pieces(ids[1]) == [">>deu<<", *"▁ten", "</s>"]
    assert tokenizer.source_pieces(ids[2])[-5:] == [*"▁ten", "</s>"] and 2 not in ids[2]
    assert tokenizer.source_pieces(ids[3])[1] == "<unk>"
    assert ids[4] == [0]
    assert tokenizer.decode_target([ids[0], ids[1][1:], [*ids[0][:-1], 0, 0]]) == [
        "ten roads",
        "ten",
        "ten roads",
    ]
    pieces, scores = tokenizer.source_vocabulary()
    assert len(pieces) == len(scores) == tokenizer.source_vocab
    assert [pieces[i] for i in (0, 1, 2, -1)] == [""] * 4 and pieces[ids[0][1]] == "t"


def test_what_stands_around_sentences():
    tokenizer = imported(source_prefix=(5,), target_prefix=(2, 4))
    plain = imported()
    assert tokenizer.encode_source(["ten"])[0] == [5, *plain.encode_source(["ten"])[0]]
    assert tokenizer.encode_target(["ten"])[0] == [2, 4, *plain.encode_target(["ten"])[0]]


def test_imported_ids_survive_the_disk(tmp_path):
    tokenizer = imported(target_prefix=(2,))
    tokenizer.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "joint.model",
        "joint.pieces.json",
        "tokenizer.json",
    ]
    again = Tokenizer.load(tmp_path)
    assert again.digest == tokenizer.digest != imported().digest
    assert again.special == tokenizer.special
    assert again.encode_source(WORDS) == tokenizer.encode_source(WORDS)
    file = tmp_path / "joint.pieces.json"
    file.write_text(file.read_text().replace("deu", "fra"))
    with pytest.raises(CheckpointError, match=r"joint.pieces.json: damaged: sha256 is .* restore the file"):
        Tokenizer.load(tmp_path)
