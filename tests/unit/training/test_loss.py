"""The chunked loss against full logits and one-hot targets in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.training.loss import smoothed_loss, token_log_probs

B, T, D, V = 3, 7, 6, 11
rng = np.random.default_rng(0)
Y = rng.normal(size=(B, T, D)).astype(np.float32)
TABLE = rng.normal(size=(V, D)).astype(np.float32)
LABELS = rng.integers(0, V, (B, T)).astype(np.int32)
WEIGHTS = (np.arange(T) < np.array([[7], [4], [1]])).astype(np.float32)


def naive(y: np.ndarray, table: np.ndarray, eps: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns (loss sum, dy_BTD, dtable_VD) in float64: q = (1 - eps) one-hot + eps / V, -sum q log p."""
    y, table = y.astype(np.float64), table.astype(np.float64)
    logits = y @ table.T
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    q = (1 - eps) * np.eye(V)[LABELS] + eps / V
    loss = -(WEIGHTS * (q * log_p).sum(-1)).sum()
    dlogits = WEIGHTS[..., None] * (np.exp(log_p) - q)
    return loss, dlogits @ table, np.einsum("BTV,BTD->VD", dlogits, y)


def value_and_grads(
    y: np.ndarray, table: np.ndarray, eps: float, chunk: int, scale: float = 1.0, sparse: bool = False
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    @jax.jit
    def run(y: jax.Array, table: jax.Array) -> tuple:
        def loss(y: jax.Array, table: jax.Array) -> tuple[jax.Array, jax.Array]:
            return smoothed_loss(y, table, LABELS, WEIGHTS, eps, chunk, sparse=sparse)

        sums, pull_back = jax.vjp(loss, y, table)
        return sums, pull_back((jnp.float32(scale), jnp.float32(0)))

    return run(y, table)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("chunk", [1, 4, 7, 21, 512], ids=lambda n: f"chunk{n}")
def test_chunks_of_any_size(chunk: int, sparse: bool) -> None:
    """4 does not divide the 21 tokens; 512 is more than there are."""
    (loss, nll), (dy, dtable) = value_and_grads(Y, TABLE, 0.1, chunk, sparse=sparse)
    expected, expected_dy, expected_dtable = naive(Y, TABLE, 0.1)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert float(nll) == pytest.approx(naive(Y, TABLE, 0.0)[0], rel=1e-6)
    np.testing.assert_allclose(dy, expected_dy, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dtable, expected_dtable, rtol=0, atol=1e-5)
    assert np.all(np.asarray(dy)[WEIGHTS == 0] == 0)


def test_where_few_count_the_others_are_not_computed() -> None:
    """12 of 21 count, three whole chunks: what the others hold is never read."""
    y = np.where(WEIGHTS[..., None] == 0, np.nan, Y).astype(np.float32)
    (loss, nll), (dy, dtable) = value_and_grads(y, TABLE, 0.1, chunk=4, sparse=True)
    (wanted, wanted_nll), (wanted_dy, wanted_dtable) = value_and_grads(Y, TABLE, 0.1, chunk=4, sparse=True)
    assert (float(loss), float(nll)) == (float(wanted), float(wanted_nll))
    np.testing.assert_array_equal(dy, wanted_dy)
    np.testing.assert_array_equal(dtable, wanted_dtable)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_smoothing_and_a_cotangent_other_than_one(eps: float) -> None:
    (loss, _), (dy, dtable) = value_and_grads(Y, TABLE, eps, chunk=5, scale=-2.5)
    expected, expected_dy, expected_dtable = naive(Y, TABLE, eps)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(dy, -2.5 * expected_dy, rtol=0, atol=1e-5)
    np.testing.assert_allclose(dtable, -2.5 * expected_dtable, rtol=0, atol=2e-5)


def test_only_the_smoothed_sum_has_a_gradient() -> None:
    gradient = jax.grad(lambda y: smoothed_loss(y, TABLE, LABELS, WEIGHTS, 0.1, 8)[1])(jnp.array(Y))
    assert not np.any(gradient)


def test_huge_logits_stay_finite() -> None:
    (loss, _), (dy, _) = value_and_grads(1000 * Y, 10 * TABLE, 0.1, chunk=8)
    assert np.isfinite(loss)
    assert np.all(np.isfinite(dy))


def test_bfloat16_inputs_sum_in_float32() -> None:
    y = jnp.array(Y, jnp.bfloat16)
    (loss, nll), (dy, dtable) = value_and_grads(y, TABLE, 0.1, chunk=4)
    expected, expected_dy, expected_dtable = naive(Y, TABLE, 0.1)
    assert (loss.dtype, nll.dtype, dy.dtype, dtable.dtype) == (
        jnp.float32,
        jnp.float32,
        jnp.bfloat16,
        jnp.float32,
    )
    # bfloat16 keeps 8 significant bits.
    assert float(loss) == pytest.approx(expected, rel=2**-7)
    np.testing.assert_allclose(dy.astype(jnp.float32), expected_dy, rtol=0, atol=0.05)
    np.testing.assert_allclose(dtable, expected_dtable, rtol=0, atol=0.1)


@pytest.mark.parametrize("chunk", [4, 100])
def test_token_log_probs(chunk: int) -> None:
    log_prob_BT, correct_BT = token_log_probs(Y, TABLE, LABELS, chunk)
    logits = Y.astype(np.float64) @ TABLE.T.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(log_p, LABELS[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_prob_BT, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(correct_BT, logits.argmax(-1) == LABELS)
    assert log_prob_BT.dtype == jnp.float32


def test_a_table_in_copies_is_the_table() -> None:
    """Outside a mesh there is one copy; tests/device/test_mesh.py has those of a mesh."""
    (loss, _), (dy, dtable) = value_and_grads(Y, TABLE, 0.1, chunk=4)
    (same_loss, _), (same_dy, dcopies) = value_and_grads(Y, TABLE[None], 0.1, chunk=4)
    assert loss == same_loss
    np.testing.assert_array_equal(dy, same_dy)
    np.testing.assert_array_equal(dtable[None], dcopies)


def test_of_two_likeliest_pieces_the_first_counts() -> None:
    table = np.concatenate([TABLE, TABLE])
    y, labels = TABLE[None] * 100 / np.linalg.norm(TABLE, axis=1)[:, None], np.arange(V)[None]
    logits = y[0] @ table.T
    expected = logits.argmax(-1) == np.arange(V)
    assert expected.any()
    np.testing.assert_array_equal(token_log_probs(y, table, labels, 4)[1][0], expected)
    assert not token_log_probs(y, table, labels + V, 4)[1].any()
