"""The paper's loss in NumPy float64 (section 5.4), and slopes of any function of parameters."""

import math
from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray
Params = Mapping[str, Array]


def token_loss(logits_V: Array, label: int, smoothing: float) -> float:
    """Returns -sum_v q(v) log p(v), in nats, with q = (1 - smoothing) [v = label] + smoothing / V.

    `smoothing` 0 gives the negative log-likelihood.
    """
    log_p = logits_V - logits_V.max()
    log_p = log_p - math.log(np.exp(log_p).sum())
    q = np.full(len(log_p), smoothing / len(log_p))
    q[label] += 1 - smoothing
    return float(-(q * log_p).sum())


def loss_sum(logits_BTV: Array, labels_BT: Array, weights_BT: Array, smoothing: float) -> float:
    """Returns the weighted sum of `token_loss` over the batch, in nats."""
    return sum(
        float(weights_BT[b, t]) * token_loss(logits_BTV[b, t], int(labels_BT[b, t]), smoothing)
        for b, t in np.argwhere(weights_BT)
    )


def slope(
    function: Callable[[Params], float], params: Params, path: str, direction: Array, step: float = 1e-6
) -> float:
    """Returns the derivative of `function` along `direction` in the parameter at `path`.

    It is the central difference, whose error is of order step^2 plus rounding over step (1e-10 in
    float64). A direction of zeros and a single one gives one entry of the gradient.
    """
    up = function({**params, path: params[path] + step * direction})
    down = function({**params, path: params[path] - step * direction})
    return (up - down) / (2 * step)
