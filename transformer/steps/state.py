"""What a run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer.axes import param_specs
from transformer.config import Config
from transformer.model.transformer import Transformer


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
    model: Transformer, tx: optax.GradientTransformation, config: Config, mesh: Mesh | None = None
) -> TrainState:
    """Returns the state of step 0 from `config.run.init_seed`, born sharded when there is a mesh."""

    def init(key: jax.Array) -> TrainState:
        # A parameter's shape does not depend on the input's, so the smallest input will do.
        ids = jnp.ones((1, 1), jnp.int32)
        params = model.init(key, ids, ids, 0 * ids, ids, ids, 0 * ids)["params"]
        ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), ema)

    key = jax.random.key(config.run.init_seed)
    if mesh is None:
        return jax.jit(init)(key)
    shardings = state_shardings(jax.eval_shape(init, key), mesh)
    return jax.jit(init, out_shardings=shardings)(key)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns the sharding of each array of `state` (arrays or their shapes).

    Moments and averages lie like their parameters: their paths end alike and their shapes are
    equal. All else is replicated.
    """
    by_path = {
        tuple(str(k.key) for k in path): (x.shape, s)
        for (path, x), (_, s) in zip(
            jax.tree_util.tree_leaves_with_path(state.params),
            jax.tree_util.tree_leaves_with_path(
                param_specs(state.params), is_leaf=lambda s: isinstance(s, PartitionSpec)
            ),
            strict=True,
        )
    }

    def one(path: tuple[Any, ...], x: Any) -> NamedSharding:
        names = tuple(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", "")))) for k in path)
        for start in range(len(names)):
            shape, spec = by_path.get(names[start:], (None, None))
            if shape == x.shape:
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, state)


@jax.jit
def all_finite(params: Any) -> jax.Array:
    """Returns whether every parameter is a finite number."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()
