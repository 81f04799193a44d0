"""Comparisons of two runs find what was planted, and name the first of it."""

import struct

import jax.numpy as jnp
import numpy as np

from transformer.data.batch import Batch
from transformer.data.pipeline import TrainingBatch
from transformer.doctor.compare import Tolerance, first_array, first_batch, first_metric, first_position


def flipped(x: np.ndarray, element: int, bit: int) -> np.ndarray:
    """A copy of float32s in which one bit is another."""
    (word,) = struct.unpack("=I", x[element].tobytes())
    copy = x.copy()
    copy[element] = struct.unpack("=f", struct.pack("=I", word ^ 1 << bit))[0]
    return copy


def test_one_flipped_bit_is_found_and_named():
    x = np.arange(6, dtype=np.float32)
    same = {"params['a']": x, "params['b']": x.reshape(2, 3)}
    assert first_array(8, same, {name: a.copy() for name, a in same.items()}) is None
    found = first_array(8, same, {**same, "params['b']": flipped(x, 4, 0).reshape(2, 3)})
    assert found is not None
    values = "4.0 (0x40800000) without a stop, 4.000000476837158 (0x40800001) with one"
    assert found.text() == f"step 8: params['b'][1, 1] is {values}"


def test_arrays_are_compared_by_their_bits():
    nan, zero = np.array([np.nan], np.float32), np.array(0.0, np.float32)
    assert first_array(1, {"a": nan, "b": zero}, {"a": nan.copy(), "b": zero.copy()}) is None
    assert first_array(1, {"a": nan}, {"a": flipped(nan, 0, 0)}) is not None
    assert first_array(1, {"a": zero}, {"a": -zero}) is not None
    half = np.asarray(jnp.array([1.0, 2.0], jnp.bfloat16))
    assert first_array(1, {"a": half}, {"a": half.copy()}) is None
    found = first_array(1, {"a": half}, {"a": np.asarray(jnp.array([1.0, 2.015625], jnp.bfloat16))})
    assert found is not None and (found.name, found.whole) == ("a[1]", "2.0 (0x4000)")
    assert first_array(1, {"a": half}, {"a": half.astype(np.float32)}).stopped == "float32 of shape (2,)"
    assert first_array(1, {"a": half}, {"b": half})[2:] == ("bfloat16 of shape (2,)", "absent")
    assert first_array(1, {}, {"b": half}).name == "b"


def lines(**losses: float) -> list[dict]:
    return [
        {"split": "train", "step": int(s[1:]), "loss": x, "data_wait": np.random.random()}
        for s, x in losses.items()
    ]


def test_a_changed_loss_is_found_and_named():
    whole = lines(s1=3.5, s2=3.25, s3=3.0)
    assert first_metric(whole, lines(s1=3.5, s2=3.25, s3=3.0)) is None
    assert first_metric(lines(s1=float("nan")), lines(s1=float("nan"))) is None
    found = first_metric(whole, lines(s1=3.5, s2=3.2500000000000004, s3=2.0))
    assert found == (2, "train loss", "3.25", "3.2500000000000004")
    assert first_metric(whole, whole[:2]) == (3, "the line of train", "there", "absent")
    assert first_metric(whole, [*whole, {"split": "dev", "step": 3, "nll": 1.0}])[:2] == (
        3,
        "the line of dev",
    )


def test_losses_on_another_mesh_may_differ_a_little_after_the_switch():
    whole, loose = lines(s1=3.5, s2=3.25), Tolerance(1, 1e-5)
    assert first_metric(whole, lines(s1=3.5, s2=3.25003), loose) is None
    assert first_metric(whole, lines(s1=3.5, s2=3.2504), loose).step == 2
    assert first_metric(whole, lines(s1=3.50001, s2=3.25), loose).step == 1


def test_a_batch_of_other_sentences_is_found_and_named():
    ids = np.arange(6, dtype=np.int32).reshape(2, 3)
    batch = Batch(*(ids,) * 6)
    whole = [TrainingBatch(batch, np.array([[0, n], [0, n + 1]])) for n in (10, 20)]
    assert first_batch(7, whole, [TrainingBatch(batch, b.pairs.copy()) for b in whole]) is None
    other = [whole[0], TrainingBatch(batch, np.array([[0, 20], [0, 33]]))]
    found = first_batch(7, whole, other)
    assert found == (8, "pair 1 (corpus, number) of its batch", "[0, 21]", "[0, 33]")
    shorter = first_batch(7, whole, [TrainingBatch(batch, np.array([[0, 10]])), whole[1]])
    assert shorter[2:] == ("[0, 11]", "absent")
    moved = [TrainingBatch(batch._replace(tgt_BT=ids + 1), whole[0].pairs), whole[1]]
    assert first_batch(7, whole, moved).name == "its batch's tgt_BT[0, 0]"


def test_another_position_is_found_and_named():
    whole = {"step": 4, "data": {"parent": {"next": 3}, "seed": [1, 2]}, "best": 1.0}
    assert first_position(4, whole, {**whole, "best": 2.0}) is None  # a score is no position
    found = first_position(4, whole, {"step": 4, "data": {"parent": {"next": 5}, "seed": [1, 2]}})
    assert found == (4, "position data['parent']['next']", "3", "5")
    assert first_position(4, whole, {**whole, "data": None}).stopped == "absent"
