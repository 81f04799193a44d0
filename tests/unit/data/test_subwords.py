"""Pieces that fall apart: the text stays, the length stays in bounds, the seed decides."""

import itertools

import numpy as np
import pytest

from transformer.config import Config, DataConfig, ModelConfig, TokenizerConfig
from transformer.data.augmentation import augmentation
from transformer.data.pipeline import training_batches
from transformer.data.subwords import SubwordDropout, split_pieces, split_table
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.special_ids import EOS_ID

STEMS = ("haus", "häuser", "hausboot", "boot", "bootshaus", "lauf", "gelaufen", "123")
WORDS = [*STEMS, "boote", "laufen", "laufend", "12", "1234"]
LINES = [" ".join(words) for words in itertools.permutations(WORDS, 2)]


def tokenizer(kind: str, joint=True, **options) -> Tokenizer:
    sizes = {"bpe": 60, "unigram": 37}
    config = TokenizerConfig(kind, vocab_size=sizes[kind], joint=joint, **options)
    return train_tokenizer(LINES, [line.upper() for line in LINES] if not joint else LINES, config)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_the_text_stays_the_same(kind, rate):
    made = tokenizer(kind)
    table = split_table(*made.source_vocabulary())
    for seed, line in enumerate(LINES[:30]):
        ids = np.array(made.encode_source([line])[0], np.int32)
        split = split_pieces(ids, table, rate, np.random.default_rng(seed), 1000)
        assert split.dtype == np.int32
        assert split[-1] == EOS_ID
        assert made.decode_target([split.tolist()]) == [line]
        assert len(split) >= len(ids)


def test_a_piece_falls_into_the_merge_that_made_it():
    """Against byte-pair encoding itself, run on the piece's spelling with the merges before its own."""
    pieces, scores = tokenizer("bpe").source_vocabulary()
    table = split_table(pieces, scores)
    rank = {piece: -score for piece, score in zip(pieces, scores, strict=True) if len(piece) > 1}
    assert len(rank) > 25
    for piece, own in rank.items():
        symbols = list(piece)
        while len(symbols) > 1:
            joined = [a + b for a, b in itertools.pairwise(symbols)]
            best = min(joined, key=lambda j: rank.get(j, np.inf))
            if rank.get(best, np.inf) >= own:
                break
            at = joined.index(best)
            symbols[at : at + 2] = [best]
        assert [pieces[i] for i in table[pieces.index(piece)]] == symbols


def test_special_pieces_and_characters_stay_whole():
    made = tokenizer("bpe", byte_fallback=False)
    pieces, scores = made.source_vocabulary()
    table = split_table(pieces, scores)
    assert pieces[:4] == [""] * 4
    for i, piece in enumerate(pieces):
        assert (table[i, 0] >= 0) == (table[i, 1] >= 0)
        if len(piece) < 2:
            assert table[i, 0] < 0
        elif table[i, 0] >= 0:
            assert pieces[table[i, 0]] + pieces[table[i, 1]] == piece


def test_rate_is_the_share_of_pieces_that_fall():
    table = np.full((10, 2), -1, np.int32)
    table[9] = 4, 5
    ids = np.full(20_000, 9, np.int32)
    split = split_pieces(ids, table, 0.25, np.random.default_rng(0), 10**6)
    assert len(split) - len(ids) == pytest.approx(5000, abs=200)
    pairs = split[split != 9].reshape(-1, 2)
    assert (pairs == [4, 5]).all()


def test_parts_fall_again():
    table = np.full((10, 2), -1, np.int32)
    table[9], table[8], table[7] = (8, 7), (6, 5), (4, 4)
    split = split_pieces(np.array([9, 3], np.int32), table, 1.0, np.random.default_rng(0), 10)
    assert split.tolist() == [6, 5, 4, 4, 3]


def test_nothing_outgrows_the_row():
    made = tokenizer("bpe")
    table = split_table(*made.source_vocabulary())
    ids = np.array(made.encode_source([LINES[0]])[0], np.int32)
    for longest in range(len(ids), len(ids) + 6):
        for seed in range(20):
            split = split_pieces(ids, table, 0.7, np.random.default_rng(seed), longest)
            assert len(split) <= longest
            assert made.decode_target([split.tolist()]) == [LINES[0]]


def test_nothing_outgrows_what_the_model_has_places_for():
    """However much longer the rows are that sentences share."""
    made = tokenizer("bpe")
    ids = np.array(made.encode_source([LINES[0]])[0], np.int32)
    config = Config(ModelConfig(max_length=len(ids) + 2), data=DataConfig(row_length=64, subword_dropout=0.7))
    augment = augmentation(config, made)
    lengths = {
        len(augment(({"src": ids, "tgt": ids}, 0), np.random.default_rng(i))["src"]) for i in range(20)
    }
    assert len(ids) < max(lengths) <= len(ids) + 2


class Encoded:
    def __init__(self, made: Tokenizer):
        self.pairs = [
            (np.array(s, np.int32), np.array(t, np.int32))
            for s, t in zip(made.encode_source(LINES), made.encode_target(LINES), strict=True)
        ]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]

    def number(self, index):
        return index + 1


@pytest.mark.parametrize("packing", [True, False])
def test_batches_differ_each_epoch_and_resume_exactly(packing):
    made = tokenizer("bpe")
    corpus, length = Encoded(made), 40
    data = DataConfig(batch_tokens=4 * length, packing=packing, packing_bins=4)

    def start():
        augment = SubwordDropout(made, 0.3, length)
        return iter(training_batches([corpus], None, data, length, augment))

    whole, part = start(), start()
    first = [found.batch for found in itertools.islice(whole, 30)]
    for a, b in zip(first, itertools.islice(part, 12), strict=False):
        assert all(np.array_equal(x, y) for x, y in zip(a, b.batch, strict=True))
    state = part.get_state()
    resumed = start()
    resumed.set_state(state)
    for a, b in zip(first[12:], resumed, strict=False):
        assert all(np.array_equal(x, y) for x, y in zip(a, b.batch, strict=True))
    seen = {}
    for batch in (found.batch for found in itertools.islice(start(), 120)):
        for ids, segments in zip(batch.src_BS, batch.src_seg_BS, strict=True):
            for i in range(1, segments.max() + 1):
                split = ids[segments == i].tolist()
                seen.setdefault(made.decode_target([split])[0], set()).add(tuple(split))
    assert set(seen) == set(LINES)
    assert sum(len(ways) > 1 for ways in seen.values()) > len(seen) / 2


@pytest.mark.parametrize("workers", [0, 1])
def test_pieces_stay_whole_after_the_last_epoch_of_dropout(workers):
    made = tokenizer("bpe")
    corpus = Encoded(made)
    data = DataConfig(batch_tokens=40, packing_bins=1, workers=workers)
    augment = SubwordDropout(made, 0.5, 40, epochs=3)
    pairs = {made.decode_target([s.tolist()])[0]: s.tolist() for s, _ in corpus.pairs}
    whole = []  # in the order of reading, but for what first-fit packing moves by a row or two
    for found in itertools.islice(training_batches([corpus], None, data, 40, augment), 8 * len(LINES)):
        for ids, segments in zip(found.batch.src_BS, found.batch.src_seg_BS, strict=True):
            sentences = [ids[segments == i].tolist() for i in range(1, segments.max() + 1)]
            whole += [pairs[made.decode_target([s])[0]] == s for s in sentences]
    dropped, last = whole[: 3 * len(LINES)], max(i for i, same in enumerate(whole) if not same)
    assert sum(dropped) < len(dropped) / 2
    assert 3 * len(LINES) - 3 <= last <= 3 * len(LINES) + 3 and len(whole) > 6 * len(LINES)


def test_each_side_has_its_own_pieces():
    made = tokenizer("bpe", joint=False)
    augment = SubwordDropout(made, 1.0, 100)
    pair = {
        "src": np.array(made.encode_source(["haus boot"])[0], np.int32),
        "tgt": np.array(made.encode_target(["HAUS BOOT"])[0], np.int32),
    }
    split = augment((pair, 0), np.random.default_rng(0))
    assert "".join(made.source_pieces(split["src"][:-1])) == "▁haus▁boot"
    assert made.decode_target([split["tgt"].tolist()]) == ["HAUS BOOT"]
    assert len(split["src"]) == len("▁haus▁boot") + 1
