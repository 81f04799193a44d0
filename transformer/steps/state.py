"""What a run carries from step to step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer.axes import param_specs
from transformer.config import Config
from transformer.model.transformer import Transformer
from transformer.paths import by_path, nested


class TrainState(NamedTuple):
    """Everything that an optimizer step changes.

    Attributes:
      step: scalar int32, finished optimizer steps.
      params: parameters.
      opt_state: the optimizer's moments and count.
      ema: moving average of the parameters, or None.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any

    def items(self) -> dict[str, Any]:
        """Returns the pytrees that a checkpoint holds, by their names there."""
        items = {"params": self.params, "optimizer": self.opt_state}
        return items if self.ema is None else {**items, "ema": self.ema}


def init_state(
    model: Transformer,
    tx: optax.GradientTransformation,
    config: Config,
    mesh: Mesh | None = None,
    given: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """Returns the state of step 0, born sharded when there is a mesh.

    Args:
      model: the model; `tx` and `config` are its optimizer and run.
      mesh: devices.
      given: parameters by path; those that are missing are drawn from `config.run.init_seed`.
    """

    def init(key: jax.Array, given: Mapping[str, jax.Array]) -> TrainState:
        # A parameter's shape does not depend on the input's, so the smallest input will do.
        ids = jnp.ones((1, 1), jnp.int32)
        params = model.init(key, ids, ids, 0 * ids, ids, ids, 0 * ids)["params"]
        params = nested({**by_path(params), **given})
        ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), ema)

    inputs = jax.random.key(config.run.init_seed), given or {}
    if mesh is None:
        return jax.jit(init)(*inputs)
    shardings = state_shardings(jax.eval_shape(init, *inputs), mesh)
    return jax.jit(init, out_shardings=shardings)(*inputs)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the sharding of each array of `state` (arrays or their shapes).

    Moments and averages lie like their parameters: their paths end alike and their shapes are
    equal. All else is replicated.
    """
    specs = by_path(param_specs(state.params))
    known = {tuple(path.split("/")): (x.shape, specs[path]) for path, x in by_path(state.params).items()}

    def one(path: tuple[Any, ...], x: Any) -> NamedSharding:
        names = tuple(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", "")))) for k in path)
        for start in range(len(names)):
            shape, spec = known.get(names[start:], (None, None))
            if shape == x.shape:
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, state)


@jax.jit
def all_finite(params: Any) -> jax.Array:
    """Returns whether every parameter is a finite number."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()
