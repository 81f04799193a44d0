"""What a run carries from step to step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer.axes import param_specs
from transformer.config import Config, LoraConfig
from transformer.errors import ConfigError
from transformer.model.lora import merged, new_adapters
from transformer.model.transformer import Transformer
from transformer.paths import by_path, chosen, names, nested


class TrainState(NamedTuple):
    """Everything that an optimizer step changes.

    Attributes:
      step: scalar int32, finished optimizer steps.
      params: parameters.
      opt_state: the optimizer's moments and count, of the parameters that are trained.
      ema: moving average of the parameters, or None.
      fixed: None; or the model's parameters, where `params` are adapters of them. Nothing changes them.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    fixed: Any = None

    def items(self) -> dict[str, Any]:
        """Returns the pytrees that a checkpoint holds, by their names there."""
        items = {"params": self.params, "optimizer": self.opt_state}
        return items if self.ema is None else {**items, "ema": self.ema}


def trained_part(params: Any, freeze: str) -> Any:
    """Returns those of the parameters that are trained: all but those whose path has `freeze`.

    Raises:
      ConfigError: if the expression is found in no path, or in all of them.
    """
    if not freeze:
        return params
    leaves = by_path(params)
    frozen = chosen(freeze, leaves, "optim.freeze")
    if len(frozen) == len(leaves):
        raise ConfigError(f"config.optim.freeze: {freeze!r} is found in every path; nothing is left to train")
    return nested({path: x for path, x in leaves.items() if path not in frozen})


def with_part(params: Any, part: Any) -> Any:
    """Returns `params` with those of `part` in their places."""
    return nested({**by_path(params), **by_path(part)})


def count_numbers(tree: Any) -> int:
    """Returns how many numbers the arrays of a tree have."""
    return sum(x.size for x in jax.tree.leaves(tree))


def model_params(params: Any, fixed: Any, lora: LoraConfig) -> Any:
    """Returns what the model computes with; `params` and `fixed` as in `TrainState`."""
    return params if fixed is None else merged(fixed, params, lora)


def init_state(
    model: Transformer,
    tx: optax.GradientTransformation,
    config: Config,
    mesh: Mesh | None = None,
    given: Mapping[str, jax.Array] | None = None,
    moments: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """Returns the state of step 0, born sharded when there is a mesh.

    Args:
      model: the model; `tx` and `config` are its optimizer and run.
      mesh: devices.
      given: the model's parameters by path; those that are missing are drawn from `config.run.init_seed`.
      moments: arrays of the optimizer's state by path; those that are missing are as it begins.
    """

    def init(key: jax.Array, given: Mapping[str, jax.Array], moments: Mapping[str, jax.Array]) -> TrainState:
        params = model.init(key, *model.smallest())["params"]
        params = nested({**by_path(params), **given})
        fixed = None
        if config.lora.rank:
            fixed, params = params, new_adapters(jax.random.fold_in(key, 1), params, config.lora)
        ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
        opt_state = jax.tree_util.tree_map_with_path(
            lambda path, x: moments.get("/".join(names(path)), x),
            tx.init(trained_part(params, config.optim.freeze)),
        )
        return TrainState(jnp.zeros((), jnp.int32), params, opt_state, ema, fixed)

    inputs = jax.random.key(config.run.init_seed), given or {}, moments or {}
    if mesh is None:
        return jax.jit(init)(*inputs)
    shardings = state_shardings(jax.eval_shape(init, *inputs), mesh)
    return jax.jit(init, out_shardings=shardings)(*inputs)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the sharding of each array of `state` (arrays or their shapes).

    Moments and averages lie like their parameters: their paths end alike and their shapes are
    equal. All else is replicated.
    """
    known: dict[tuple[str, ...], Any] = {}
    for tree in (state.params, state.fixed):
        specs = by_path(param_specs(tree))
        known |= {tuple(path.split("/")): (x.shape, specs[path]) for path, x in by_path(tree).items()}

    def one(path: tuple[Any, ...], x: Any) -> NamedSharding:
        keys = names(path)
        for start in range(len(keys)):
            shape, spec = known.get(keys[start:], (None, None))
            if shape == x.shape:
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, state)


def state_like(
    model: Transformer, tx: optax.GradientTransformation, config: Config, mesh: Mesh
) -> TrainState:
    """Returns shapes, dtypes and shardings of a run's state; nothing is allocated."""
    shapes = jax.eval_shape(lambda: init_state(model, tx, config))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, state_shardings(shapes, mesh)
    )


@jax.jit
def all_finite(params: Any) -> jax.Array:
    """Returns whether every parameter is a finite number."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()
