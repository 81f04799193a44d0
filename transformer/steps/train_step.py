"""One optimizer step and one evaluation step: pure functions, jitted in one place."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from transformer.axes import shard, spec
from transformer.config import Config, RunConfig
from transformer.data.batch import Batch
from transformer.model.masks import shift_right
from transformer.model.transformer import Transformer
from transformer.steps.state import TrainState, model_params, state_shardings, trained_part, with_part
from transformer.training.loss import smoothed_loss, token_log_probs
from transformer.training.schedule import learning_rate

Metrics = dict[str, jax.Array]


def dropout_key(run: RunConfig) -> jax.Array:
    """Returns the key that every step's dropout is derived from, with the step's number."""
    return jax.random.key(run.dropout_seed, impl=run.dropout_prng)


def _forward(
    model: Transformer, params: Any, batch: Batch, offset_B1: jax.Array | int = 0, **mode: Any
) -> Any:
    """Returns what `Transformer.with_output` does, and the steps that layers took if they recur.

    The positions of a row, source and target, are counted from `offset_B1`.
    """
    tgt_in_BT = shift_right(batch.tgt_BT, batch.tgt_pos_BT, model.start_id)
    source = *batch[:2], batch.src_pos_BS + offset_B1
    inputs = *source, tgt_in_BT, batch.tgt_seg_BT, batch.tgt_pos_BT + offset_B1
    output, sown = model.apply(
        {"params": params}, *inputs, method=Transformer.with_output, mutable="ponder", **mode
    )
    return *output, sown.get("ponder", {})


def _ponder(sown: Any, batch: Batch) -> Metrics:
    """Returns sums over real positions of what adaptive recurrence took; nothing for other models.

    Returns:
      `encoder_steps` and `decoder_steps` of the stacks that there are, and `cost`: steps and remainders of
      all (Graves 2016, equation 14), of which only the latter has a gradient.
    """
    if not sown:
        return {}
    real = {"encoder": batch.src_seg_BS > 0, "decoder": batch.tgt_seg_BT > 0}
    if "encoder" not in sown:
        real = {"decoder": jnp.concatenate(list(real.values()), axis=1)}
    sums = {
        f"{stack}_{what}": jnp.sum(sown[stack][what][0] * real[stack])
        for stack in sown
        for what in ("steps", "remainder")
    }
    steps = {f"{stack}_steps": sums[f"{stack}_steps"] for stack in sown}
    return {**steps, "cost": sum(sums.values(), jnp.zeros(()))}


def _loss(
    trained: Any,
    batch: Batch,
    key: jax.Array,
    count: jax.Array,
    model: Transformer,
    config: Config,
    whole: Callable[[Any], Any],
) -> tuple[jax.Array, jax.Array]:
    """Returns this part's share of the batch's mean (smoothed loss, nll): sums over the global `count`.

    Adaptive recurrence adds its cost to the loss.
    """
    mode: dict[str, Any] = dict(deterministic=False, rngs={"dropout": key})
    if most := config.optim.random_offset:
        own_key = jax.random.fold_in(key, most)  # dropout has the other
        mode["offset_B1"] = jax.random.randint(own_key, (len(batch.tgt_BT), 1), 0, most + 1)
    y_BTD, table_RVD, bias_V, sown = _forward(model, whole(trained), batch, **mode)
    loss, nll = smoothed_loss(
        y_BTD,
        table_RVD,
        batch.tgt_BT,
        batch.tgt_seg_BT > 0,
        config.optim.label_smoothing,
        config.optim.loss_chunk,
        bias_V,
        sparse=model.config.kind == "encoder_only",
    )
    if ponder := _ponder(sown, batch):
        loss += config.optim.ponder_weight * ponder["cost"]
    return loss / count, nll / count


def gradients(
    trained: Any,
    batch: Batch,
    key: jax.Array,
    model: Transformer,
    config: Config,
    whole: Callable[[Any], Any] = lambda trained: trained,
) -> tuple[Metrics, Any]:
    """Returns (mean losses over the real target tokens of the global batch, their gradients).

    With `accumulation_steps` the rows are taken in that many parts, one after the other; the mean
    is over all of them alike, so the result does not depend on the number of parts. Gradients are
    those of `trained`; `whole` makes the model's parameters of it.
    """
    count = jnp.maximum(jnp.sum(batch.tgt_seg_BT > 0), 1)
    value_and_grad = jax.value_and_grad(partial(_loss, model=model, config=config, whole=whole), has_aux=True)
    parts = config.optim.accumulation_steps
    if parts == 1:
        (loss, nll), grads = value_and_grad(trained, batch, key, count)
        return {"loss": loss, "nll": nll}, grads

    def body(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        rows, index = part
        result = value_and_grad(
            trained, Batch(*(shard(x, "BT_"[: x.ndim]) for x in rows)), jax.random.fold_in(key, index), count
        )
        return jax.tree.map(jnp.add, total, result), None

    # Part p takes rows p, p + parts, ...: every device keeps its own rows.
    split = Batch(*(x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1) for x in batch))
    # Sums are float32, whatever the parameters are.
    empty = jax.tree.map(lambda x: jnp.zeros_like(x, jnp.promote_types(x.dtype, jnp.float32)), trained)
    zero = ((jnp.zeros(()), jnp.zeros(())), empty)
    ((loss, nll), grads), _ = jax.lax.scan(body, zero, (split, jnp.arange(parts)))
    return {"loss": loss, "nll": nll}, jax.tree.map(lambda g, x: g.astype(x.dtype), grads, trained)


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    votes_N: jax.Array | None,
    model: Transformer,
    tx: optax.GradientTransformation,
    config: Config,
) -> tuple[TrainState, Metrics]:
    """Returns (the next state, metrics) of one optimizer step.

    A loss or gradient that is no finite number changes no parameter, moment or average: the step is
    skipped. Counts go on, so that the learning rate stays a function of the step.

    Args:
      state: the current state.
      batch: the global batch.
      key: dropout key of the run; the step's own key is derived from it and `state.step`.
      votes_N: one int32 a device, or None; only their sum leaves, the same on every process.
      model: the model; `tx` and `config` are its optimizer and run.

    Returns:
      Metrics: `loss` and `nll` in nats per target token, `learning_rate`, `gradient_norm` before clipping,
      `skipped` (1 or 0), `source_tokens` and `target_tokens` (real ones); `votes` if there were any.
    """
    freeze, own_key = config.optim.freeze, jax.random.fold_in(key, state.step)

    def whole(trained: Any) -> Any:
        return model_params(with_part(state.params, trained), state.fixed, config.lora)

    trained = trained_part(state.params, freeze)
    metrics, grads = gradients(trained, batch, own_key, model, config, whole)
    rate = learning_rate(config.model, config.optim, config.run.num_steps)
    metrics["learning_rate"] = rate(state.step)
    metrics["gradient_norm"] = optax.tree.norm(grads)
    sound = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    metrics["skipped"] = 1 - sound.astype(jnp.int32)
    metrics["source_tokens"] = jnp.sum(batch.src_seg_BS > 0)
    metrics["target_tokens"] = jnp.sum(batch.tgt_seg_BT > 0)
    if votes_N is not None:
        metrics["votes"] = jnp.sum(votes_N)
    updates, opt_state = tx.update(grads, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    params, ema = with_part(state.params, trained), state.ema
    if ema is not None:
        decay = config.optim.ema_decay
        ema = with_part(
            ema,
            jax.tree.map(
                lambda old, new: decay * old + (1 - decay) * new, trained_part(ema, freeze), trained
            ),
        )

    def unless_skipped(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(sound, new, old) if jnp.issubdtype(new.dtype, jnp.floating) else new

    new = TrainState(state.step + 1, params, opt_state, ema)
    chosen = jax.tree.map(unless_skipped, state._replace(fixed=None), new)
    return chosen._replace(fixed=state.fixed), metrics


def eval_step(params: Any, batch: Batch, model: Transformer, config: Config) -> Metrics:
    """Returns sums over real tokens: `nll`, `correct`, `source_tokens`, `target_tokens`.

    With adaptive recurrence also `encoder_steps` and `decoder_steps`, the steps until positions halted.
    """
    y_BTD, table_RVD, bias_V, sown = _forward(model, params, batch)
    log_prob_BT, correct_BT = token_log_probs(y_BTD, table_RVD, batch.tgt_BT, config.optim.loss_chunk, bias_V)
    real_BT = batch.tgt_seg_BT > 0
    return {
        "nll": -jnp.sum(log_prob_BT * real_BT),
        "correct": jnp.sum(correct_BT & real_BT),
        "source_tokens": jnp.sum(batch.src_seg_BS > 0),
        "target_tokens": jnp.sum(real_BT),
        **{name: total for name, total in _ponder(sown, batch).items() if name != "cost"},
    }


def jit_steps(
    model: Transformer, tx: optax.GradientTransformation, config: Config, mesh: Mesh, state: TrainState
) -> tuple[Callable[..., tuple[TrainState, Metrics]], Callable[..., Metrics]]:
    """Returns the compiled (train_step(state, batch, key, votes_N), eval_step(params, batch)) on `mesh`.

    The state passed to train_step is donated.
    """
    rows = NamedSharding(mesh, spec("BT"))
    batch_shardings = Batch(*(rows,) * 6)
    shardings = state_shardings(state, mesh)
    train = jax.jit(
        partial(train_step, model=model, tx=tx, config=config),
        in_shardings=(shardings, batch_shardings, None, None),
        out_shardings=(shardings, None),
        donate_argnums=0,
    )
    whole = shardings.params if state.fixed is None else shardings.fixed
    evaluate = jax.jit(partial(eval_step, model=model, config=config), in_shardings=(whole, batch_shardings))
    return train, evaluate
