"""Layers that recur, in NumPy: a position at a time, from Graves (2016) and Dehghani et al. (2019)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from reference.numpy_positions import positions

Array = np.ndarray


def run_layers(
    params: Mapping[str, Array],
    config: Any,
    stack: str,
    x_TD: Array,
    pos_T: Array,
    layer: Callable[[int, str, Array], Array],
) -> tuple[Array, Array, Array]:
    """Returns ([T, D] after all layers, the steps and the remainder of each position).

    `layer` is given the depth, the path of the parameters and the input.
    """
    depths = config.num_encoder_layers if stack == "encoder" else config.num_decoder_layers
    T, D = x_TD.shape
    steps, remainder = np.full(T, float(depths)), np.zeros(T)
    if config.recurrence == "none":
        for depth in range(depths):
            x_TD = layer(depth, f"{stack}/layer_{depth}", x_TD)
        return x_TD, steps, remainder
    state, probabilities, states = x_TD, [[] for _ in range(T)], [[] for _ in range(T)]
    halted = np.zeros(T, bool)
    for depth in range(depths):
        angle = (depth + 1) / 10000 ** (np.arange(0, D, 2) / D)
        time_D = np.stack([np.sin(angle), np.cos(angle)], axis=-1).ravel()
        new = layer(depth, f"{stack}/layer_0", state + positions(params, config, stack, pos_T) + time_D)
        if config.recurrence == "fixed":
            state = new
            continue
        for t in np.flatnonzero(~halted):
            z = new[t] @ params[f"{stack}/halting/kernel"] + params[f"{stack}/halting/bias"]
            p = 1 / (1 + np.exp(-z))
            before = sum(probabilities[t])
            halted[t] = before + p >= 0.99 or depth == depths - 1
            if halted[t]:
                steps[t], remainder[t] = depth + 1, 1 - before
            probabilities[t].append(1 - before if halted[t] else p)
            states[t].append(new[t])
        state = np.stack([s[-1] for s in states])
    if config.recurrence == "fixed":
        return state, steps, remainder
    return np.stack([np.dot(p, s) for p, s in zip(probabilities, states, strict=True)]), steps, remainder
