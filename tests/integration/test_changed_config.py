"""A free key that changes between two starts is really in effect."""

import shutil

import numpy as np
from tiny_run import compiled_once, make_config, read_arrays, write_corpus

from transformer.run.train import train


def test_a_changed_beta_is_in_effect(tmp_path):
    """From the same moments and batch, mu' = beta1 mu + (1 - beta1) g gives the same g for both betas."""
    settings = write_corpus(tmp_path)

    def config(steps: int, **optim: float):
        run = {"num_steps": steps, "save_every": 1, "keep_latest": 3}
        return make_config(settings, run=run, optim={"ema_decay": 0.0, "accumulation_steps": 1, **optim})

    with compiled_once():
        train(config(6), str(tmp_path / "a"))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        train(config(7, beta1=0.9, beta2=0.98), str(tmp_path / "a"))
        train(config(7, beta1=0.5, beta2=0.9), str(tmp_path / "b"))
    before = read_arrays(tmp_path / "a", 6)
    ends = {betas: read_arrays(tmp_path / name, 7) for name, betas in (("a", (0.9, 0.98)), ("b", (0.5, 0.9)))}
    moments = [path for path in before if "'mu'" in path]
    assert len(moments) > 10
    for path in moments:
        gradients = [(end[path] - b1 * before[path]) / (1 - b1) for (b1, _), end in ends.items()]
        np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-6, err_msg=path)
        second = path.replace("'mu'", "'nu'")
        for (_, b2), end in ends.items():
            expected = b2 * before[second] + (1 - b2) * gradients[1] ** 2
            np.testing.assert_allclose(end[second], expected, rtol=1e-3, atol=1e-9, err_msg=second)
