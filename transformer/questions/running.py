"""Questions 17 and 18: what runs at once, and what training does that use does not."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer.data.batch import Batch
from transformer.model.masks import shift_right
from transformer.model.transformer import Transformer, empty_cache
from transformer.questions.measured import Measured, Place, milliseconds
from transformer.questions.subject import Subject
from transformer.training.schedule import learning_rate

_DRAWS = 8  # of dropout


def parallel(subject: Subject) -> list[Measured]:
    """17. The longest target through the decoder at once, and a token after the other."""
    real_BT = subject.real["decoder"]
    longest = int(real_BT.sum(axis=1).argmax())
    batch = Batch(*(jnp.asarray(x[[longest]]) for x in subject.batch))
    encoded_BSD = _encoded(subject.params, batch, subject.model)
    inputs = subject.params, encoded_BSD, batch, subject.model
    logits = [np.asarray(function(*inputs)) for function in (_at_once, _one_by_one)]
    encoder, at_once, one_by_one = milliseconds(
        partial(_encoded, subject.params, batch, subject.model),
        *(partial(function, *inputs) for function in (_at_once, _one_by_one)),
    )
    place: Place = {"length": batch.tgt_BT.shape[1]}
    return [
        Measured("encoder", encoder, "ms", place),
        Measured("at_once", at_once, "ms", place),
        Measured("one_by_one", one_by_one, "ms", place),
        Measured("times", one_by_one / at_once),
        Measured("same", float(np.abs(logits[0] - logits[1])[real_BT[[longest]]].max())),
    ]


@partial(jax.jit, static_argnames="model")
def _encoded(params: Any, batch: Batch, model: Transformer) -> Any:
    return model.apply({"params": params}, *batch[:3], method="encode")


@partial(jax.jit, static_argnames="model")
def _at_once(params: Any, encoded_BSD: jax.Array, batch: Batch, model: Transformer) -> Any:
    """Returns logits_BTV of all target positions, those before each being given."""
    inputs = _decoder_input(batch, model), batch.tgt_seg_BT, batch.tgt_pos_BT, encoded_BSD, batch.src_seg_BS
    y_BTD = model.apply({"params": params}, *inputs, method="decode")
    return model.apply({"params": params}, y_BTD, method="logits")


@partial(jax.jit, static_argnames="model")
def _one_by_one(params: Any, encoded_BSD: jax.Array, batch: Batch, model: Transformer) -> jax.Array:
    """Returns the same logits_BTV, of each position by a step of its own, as search needs it."""
    tgt_in_BT = _decoder_input(batch, model)
    B, T = tgt_in_BT.shape
    source = model.apply({"params": params}, encoded_BSD, method="source_keys")
    ancestor_B1T = jnp.zeros((B, 1, T), jnp.int32)

    def step(cache: Any, place: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        t, token_B = place
        inputs = token_B[:, None], t, cache, ancestor_B1T, source, batch.src_seg_BS
        logits_B1V, cache = model.apply({"params": params}, *inputs, method="decode_step")
        return cache, logits_B1V[:, 0]

    places = jnp.arange(T), tgt_in_BT.T
    return jax.lax.scan(step, empty_cache(model.config, B, 1, T), places)[1].swapaxes(0, 1)


def _decoder_input(batch: Batch, model: Transformer) -> jax.Array:
    return shift_right(batch.tgt_BT, batch.tgt_pos_BT, model.start_id)


def rate_and_dropout(subject: Subject) -> list[Measured]:
    """18. The learning rate of the run, and the score with dropout on and off."""
    config, step = subject.config, subject.step
    if step:
        rate = learning_rate(config.model, config.optim, config.run.num_steps)
        peak = float(rate(jnp.arange(config.run.num_steps)).max())
        rows = [
            Measured("warm_up", config.optim.warmup_steps),
            Measured("peak", peak, "", {"schedule": config.optim.schedule}),
            Measured("rate", float(rate(step - 1)), "", {"step": step}),
        ]
    else:
        rows = [Measured("imported")]
    model = config.model
    rates = model.dropout_rate, model.attention_dropout_rate, model.activation_dropout_rate
    rows.append(Measured("dropout", 100 * model.dropout_rate, "%"))
    rows += [Measured("whole", subject.whole, "nat"), Measured("twice", abs(subject.score() - subject.whole))]
    if not any(rates):
        return [*rows, Measured("no_dropout")]
    draws = [subject.score(key=jax.random.key(draw)) for draw in range(_DRAWS)]
    return [
        *rows,
        Measured("dropped", float(np.mean(draws)), "nat", {"draws": _DRAWS}),
        Measured("spread", float(np.std(draws)), "nat", {"draws": _DRAWS}),
    ]
