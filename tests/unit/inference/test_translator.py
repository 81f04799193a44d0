"""Text in, text out: order, neighbours, lines of all kinds; outputs against the model teacher forced."""

import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unit.small_model import WORDS

from transformer.config import TokenizerConfig
from transformer.data.tokenizer import train_tokenizer
from transformer.errors import ConfigError
from transformer.inference import searching
from transformer.inference.translator import Translation, Translator, _join
from transformer.model.masks import shift_right
from transformer.special_ids import BOS_ID, EOS_ID, PAD_ID

EXTRA = 6  # decode.max_extra_length of the fixture


def draw_lines(count: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 14))) for _ in range(count)]


LINES = draw_lines(11)
PARTS = [f"{' '.join((3 * WORDS)[i : i + 14])} fox." for i in range(1, 5)]  # as long as a line may be


@pytest.fixture(scope="module")
def translator(loaded):
    return Translator.of(loaded)


@pytest.fixture(scope="module")
def expected(translator):
    return translator.translate_n_best(LINES, n_best=2)


def assert_same(found: list[list[Translation]], expected: list[list[Translation]]) -> None:
    """The same texts, and scores that differ by rounding only."""
    assert [[(t.text, t.length) for t in best] for best in found] == [
        [(t.text, t.length) for t in best] for best in expected
    ]
    for key in ("score", "log_prob"):
        values = [[getattr(t, key) for best in lists for t in best] for lists in (found, expected)]
        np.testing.assert_allclose(*values, atol=1e-4)


def test_the_toy_model_is_worth_testing_with(expected):
    best = [outputs[0] for outputs in expected]
    assert len({t.text for t in best}) > 6
    limits = [len(line.split()) + 1 + EXTRA for line in LINES]
    assert 2 < sum(t.length < limit for t, limit in zip(best, limits, strict=True)) < len(LINES)
    assert all(t.length <= limit for t, limit in zip(best, limits, strict=True))


def test_the_n_best_are_sorted_and_their_scores_are_over_the_penalty(translator, expected):
    assert [best[0].text for best in expected] == translator.translate(LINES)
    for best in expected:
        assert len(best) == 2
        assert best[0].score >= best[1].score
        assert best[0].text != best[1].text
        for t in best:
            assert t.score == pytest.approx(t.log_prob / ((5 + t.length) / 6) ** 0.6, abs=1e-4)
            assert t.length == len(t.text.replace("⁇", "x").split()) + 1


def test_outputs_that_cannot_be_are_not_among_the_best(translator):
    """Of one token there is one output: the end mark. A part that has fewer goes with all of another's."""
    found = translator.translate_n_best(LINES[:2], n_best=2, length_limit=1)
    assert [[(t.text, t.length) for t in best] for best in found] == [[("", 1)]] * 2
    two, one = [Translation("a", -1.0, -1.0, (5, 2)), Translation("b", -2.0, -2.0, (6, 2))], [found[0][0]]
    joined = _join([two, one], translator.settings(2, {}))
    assert [t.text.split() for t in joined] == [["a"], ["b"]]
    assert [t.log_prob for t in joined] == [t.log_prob + one[0].log_prob for t in two]


def test_shortest_outputs_and_pairs_that_come_once(translator):
    lines = [line for line in LINES if len(line.split()) > 7][:3]
    rules = dict(min_length=9, no_repeat_ngram_size=2)
    for (best,) in translator.translate_n_best(lines, n_best=1, **rules):
        pairs = list(itertools.pairwise(best.text.split()))
        assert len(pairs) == len(set(pairs)) and best.length >= 9


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_batch_size_changes_nothing(translator, expected, batch_size):
    chosen = [i for i, line in enumerate(LINES) if len(line.split()) > 7]  # few shapes make a quick test
    found = translator.translate_n_best([LINES[i] for i in chosen], n_best=2, batch_size=batch_size)
    assert_same(found, [expected[i] for i in chosen])


def test_order_and_neighbours_change_nothing(translator, expected):
    """Four rows of one shape, in which each line of the shape stands next to others than before."""
    order = list(range(len(LINES)))
    random.Random(1).shuffle(order)
    found = translator.translate_n_best([LINES[i] for i in order], n_best=2)
    assert_same(found, [expected[i] for i in order])


def test_empty_lines_stay_empty_and_in_their_places(translator, expected):
    found = translator.translate_n_best(["", *LINES[:3], " \t\u3000", *LINES[3:], ""], n_best=2)
    nothing = [Translation("", 0.0, 0.0, ())]
    assert_same(found, [nothing, *expected[:3], nothing, *expected[3:], nothing])
    assert translator.translate([]) == []


def test_a_line_of_which_normalisation_leaves_nothing_is_empty(loaded):
    config = TokenizerConfig(
        model_type="char", vocab_size=8, normalization="nmt_nfkc", remove_extra_whitespaces=True
    )
    tokenizer = train_tokenizer(["a b c"], ["a b c"], config)
    assert "\u200b".strip() and tokenizer.encode_source(["\u200b"]) == [[EOS_ID]]
    translator = Translator(loaded.model, loaded.params, tokenizer, loaded.config.decode)
    assert translator.translate(["\u200b"]) == [""]


def test_beam_size_1_takes_the_likeliest_token_at_each_step(loaded, translator):
    lines = [line for line in LINES if len(line.split()) > 7][:4]
    found = translator.translate_n_best(lines, n_best=1, beam_size=1)
    src = loaded.tokenizer.encode_source(lines)
    width = max(map(len, src))
    sides = [np.zeros((4, width), np.int32), np.zeros((4, width + EXTRA), np.int32)]
    targets = loaded.tokenizer.encode_target([best[0].text for best in found])
    for side, sentences in zip(sides, (src, targets), strict=True):
        for row, ids in enumerate(sentences):
            side[row, : len(ids)] = ids

    @jax.jit
    def log_probs(src_BS, tgt_BT):
        segments = [(ids != PAD_ID).astype(jnp.int32) for ids in (src_BS, tgt_BT)]
        positions = [jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape) for ids in (src_BS, tgt_BT)]
        tgt_in_BT = shift_right(tgt_BT, positions[1], BOS_ID)
        y_BTD = loaded.model.apply(
            {"params": loaded.params}, src_BS, segments[0], positions[0], tgt_in_BT, segments[1], positions[1]
        )
        return jax.nn.log_softmax(loaded.model.apply({"params": loaded.params}, y_BTD, method="logits"))

    log_p_BTV = np.array(log_probs(*sides))
    for row, ids in enumerate(targets):
        own = log_p_BTV[row, np.arange(len(ids)), ids]
        assert found[row][0].log_prob == pytest.approx(own.sum(), abs=1e-4)
        allowed_TV = np.delete(log_p_BTV[row], [PAD_ID, BOS_ID], axis=1)[: len(ids)]
        forced = len(ids) == len(src[row]) + EXTRA
        free = slice(0, len(ids) - forced)
        np.testing.assert_allclose(own[free], allowed_TV.max(axis=1)[free], atol=1e-5)
        assert ids[-1] == EOS_ID


def test_a_sample_depends_on_seed_and_line_number_alone(translator):
    lines = 8 * [PARTS[0]]
    found = translator.translate_n_best(lines, n_best=1, temperature=1.5, seed=3)
    assert len({best[0].text for best in found}) > 4  # equal lines, different numbers
    assert_same(translator.translate_n_best(lines, n_best=1, temperature=1.5, seed=3), found)
    later = translator.translate_n_best(lines[:4], n_best=1, temperature=1.5, seed=3, first_line=4)
    assert_same(later, found[4:])
    assert translator.translate(lines, temperature=1.5, seed=4) != [best[0].text for best in found]


def test_another_seed_or_batch_size_compiles_nothing(translator):
    lines = 4 * [PARTS[0]]
    translator.translate(lines, temperature=1.5, seed=1, batch_size=8)
    before = searching.decode_batch._cache_size()
    translator.translate(lines, temperature=1.5, seed=2, batch_size=9)
    assert searching.decode_batch._cache_size() == before


def test_long_lines_are_split_counted_and_joined(loaded):
    translator = Translator.of(loaded)
    assert {len(ids) for ids in loaded.tokenizer.encode_source(PARTS)} == {loaded.config.model.max_length}
    short = ["ant", "bee", "cat", "dog"]
    parts = translator.translate_n_best([*PARTS, *short], n_best=2)
    assert translator.num_split == 0
    found = translator.translate_n_best([*short[:2], " ".join(PARTS), *short[2:]], n_best=2)
    assert translator.num_split == 1
    assert_same([*found[:2], *found[3:]], parts[4:])
    joined = []
    for ranks in zip(*parts[:4], strict=True):
        log_prob, ids = sum(t.log_prob for t in ranks), sum((t.ids for t in ranks), ())
        score = log_prob / ((5 + len(ids)) / 6) ** 0.6
        joined.append(Translation(" ".join(t.text for t in ranks), score, log_prob, ids))
    assert_same([found[2]], [sorted(joined, key=lambda t: t.score, reverse=True)])


def test_every_part_of_a_line_keeps_the_language_that_it_begins_with(loaded, monkeypatch):
    monkeypatch.setattr(type(loaded.tokenizer), "language", lambda _, line: "ant" * line.startswith("ant "))
    translator, longest = Translator.of(loaded), loaded.config.model.max_length
    parts = [f"{' '.join((3 * WORDS)[i : i + 13])} fox." for i in range(1, 4)]
    marked = [f"ant {part}" for part in parts]
    assert {len(ids) for ids in loaded.tokenizer.encode_source(marked)} == {longest}
    found = translator.translate([f"ant {' '.join(parts)}"], beam_size=1)
    assert translator.num_split == 1
    assert found == [" ".join(translator.translate(marked, beam_size=1))]


def test_samples_depend_on_the_number_of_a_line(translator):
    drawn = translator.translate(LINES, temperature=1.5)
    assert translator.translate(LINES[5:], 5, temperature=1.5) == drawn[5:]
    assert translator.translate(LINES[5:], temperature=1.5) != drawn[5:]


def test_equal_parts_of_a_line_are_different_samples(translator):
    """Otherwise the line's output were one text four times over."""
    words = translator.translate([" ".join(4 * [PARTS[0]])], temperature=1.5)[0].split()
    quarter = len(words) // 4
    assert translator.num_split
    assert words != 4 * words[:quarter]


def test_learned_positions_bound_input_and_output(learned):
    translator = Translator.of(learned)
    lines = [" ".join(15 * ["ant"]), " ".join(12 * ["hen"]), " ".join(30 * ["fox"])]
    found = translator.translate_n_best(lines, n_best=1, beam_size=1)
    assert translator.num_split == 1
    assert [best[0].length <= limit for best, limit in zip(found, (16, 16, 32), strict=True)] == 3 * [True]
    assert np.isfinite([best[0].log_prob for best in found]).all()


def test_a_model_that_scans_its_layers_translates_alike(scanned, expected):
    assert_same(Translator.of(scanned).translate_n_best(LINES, n_best=2), expected)


@pytest.mark.parametrize(
    ("n_best", "options", "message"),
    [
        (0, {}, "n_best: got 0, expected 1 to beam_size"),
        (3, {"beam_size": 2}, "n_best: got 3, .*beam_size is 2"),
        (2, {"temperature": 0.5}, "n_best: got 2, .*temperature 0.5"),
        (1, {"beam_sise": 2}, "beam_sise: unknown key; did you mean 'beam_size'"),
        (1, {"top_p": 0.0}, "config.decode.top_p: must be above 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(translator, n_best, options, message):
    with pytest.raises(ConfigError, match=message):
        translator.translate_n_best(LINES, n_best=n_best, **options)
