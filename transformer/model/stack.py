"""A stack of layers (paper, section 3.1), or of one that recurs; its positions, and who sees whom."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.axes import copies, shard
from transformer.config import ModelConfig
from transformer.model import halting, local, masks, positions
from transformer.model.attention import KeysValues
from transformer.model.dropout import Dropout
from transformer.model.layers import DecoderLayer, EncoderLayer
from transformer.model.norms import Norm
from transformer.model.sharded import look_up


class Turns(NamedTuple):
    """What belongs to the layers 0, 2, ... and to the layers 1, 3, ... of a stack where they differ."""

    even: Any
    odd: Any


class Stack(nn.Module):
    """What encoder and decoder share: input signal, layers, and the final norm of pre-norm models."""

    config: ModelConfig
    layer_type: type[EncoderLayer] | type[DecoderLayer]  # of a language model `SequenceLayer`
    num_layers: int

    def setup(self) -> None:
        c = self.config
        self.causal = self.layer_type.causal
        self.reach = local.reach(c, self.causal)
        layer: Any = self.layer_type
        if c.remat:
            # The last argument, `deterministic`, is a Python bool. Without CSE prevention XLA may
            # merge the recomputation away; inside a scan it cannot, and the barrier only costs.
            last = 7 if layer is DecoderLayer else 5
            layer = nn.remat(layer, static_argnums=(last,), prevent_cse=not c.scan_layers)
        if c.scan_layers:
            self.layers = layer(c)
        else:
            number = 1 if c.recurrence != "none" else self.num_layers
            self.layer = [layer(c if self.causal else c.of_layer(depth)) for depth in range(number)]
        if c.recurrence == "adaptive":
            self.halting = halting.HaltingUnit(c)
        if c.norm == "pre":
            self.final_norm = Norm(c)
        if c.embedding_norm:
            self.embedding_norm = Norm(c)
        normal, dtype = nn.initializers.normal(c.d_model**-0.5), jnp.dtype(c.param_dtype)
        if c.positions == "learned":
            rows = c.num_positions + c.position_offset
            self.positions = self.param("positions", normal, (rows, c.d_model), dtype)
        if c.positions == "relative":
            tables = 1 if c.relative_shared else self.num_layers
            shape = tables, c.relative_buckets, c.num_heads
            self.relative_bias = self.param("relative_bias", normal, shape, dtype)
        self.dropout = Dropout(c.dropout_rate)

    def signal(self, embedded_BTD: jax.Array, pos_BT: jax.Array, deterministic: bool = True) -> jax.Array:
        """Returns Dropout(embedding + position signal) (3.5, 5.4).

        Where layers recur the signal is added at each step instead, see `deepen`.
        """
        c = self.config
        x_BTD = self.placed(embedded_BTD, pos_BT) if c.recurrence == "none" else embedded_BTD
        if c.embedding_norm:
            x_BTD = self.embedding_norm(x_BTD)
        return shard(self.dropout(x_BTD, deterministic), self.layer_type.rows + "D")

    def placed(self, x_BTD: jax.Array, pos_BT: jax.Array) -> jax.Array:
        """Returns `x_BTD` with the signal of the positions added, if the model adds one."""
        c = self.config
        if c.positions == "learned":
            rows, table_R_D = self.layer_type.rows, copies(self.positions, "_D")
            return x_BTD + look_up(table_R_D, pos_BT + c.position_offset, "_D", c.dtype, rows)
        if c.positions in positions.FIXED:
            signal_BTD = positions.FIXED[c.positions](pos_BT + c.position_offset, c.d_model)
            return x_BTD + signal_BTD.astype(c.dtype)
        return x_BTD

    def deepen(
        self, x_BTD: jax.Array, pos_BT: jax.Array, step: Callable[[int, Any, jax.Array], jax.Array]
    ) -> jax.Array:
        """Returns `x_BTD` after all layers and the final norm.

        With `recurrence` they are one layer, and before each of its steps the signals of the positions
        and of the step's number are added (Dehghani et al. 2019, equations 4 to 7). If it is adaptive,
        a position that has halted keeps its state, and the result is the mean of its states
        (`halting`); the numbers of steps and the remainders are sown in the collection "ponder".

        Args:
          x_BTD: from `signal`.
          pos_BT: the positions.
          step: runs a layer, given its depth, itself, and its input.
        """
        if self.config.recurrence == "none":
            for depth, layer in enumerate(self.layer):
                x_BTD = step(depth, layer, x_BTD)
            return self.finish(x_BTD)
        found = halting.start(x_BTD)
        for depth in range(self.num_layers):
            time_1D = positions.sinusoidal(jnp.array([depth + 1]), self.config.d_model)
            x_BTD = self.placed(found.state_BTD, pos_BT) + time_1D.astype(x_BTD.dtype)
            x_BTD = step(depth, self.layer[0], x_BTD)
            if self.config.recurrence == "adaptive":
                found = halting.advance(found, x_BTD, self.halting(x_BTD), depth + 1 == self.num_layers)
            else:
                found = found._replace(state_BTD=x_BTD)
        if self.config.recurrence == "fixed":
            return self.finish(x_BTD)
        self.sow("ponder", "steps", found.steps_BT)
        self.sow("ponder", "remainder", found.remainder_BT)
        return self.finish(found.mean_BTD)

    def mask(self, seg_BT: jax.Array, num_source: int = 0) -> jax.Array | local.Parts | Turns:
        """Returns who sees whom in self-attention, as `MultiHeadAttention` takes it.

        Of one sequence the first `num_source` places are a source's.
        """
        if self.causal and self.reach is None:
            return masks.decoder_mask(seg_BT, num_source if self.config.prefix == "bidirectional" else 0)
        if self.reach is not None:
            return self.reach.mask(seg_BT)
        if self.config.attention == "alternating":
            return Turns(*(_mask(self.config.of_layer(depth), seg_BT) for depth in range(2)))
        return _mask(self.config, seg_BT)

    def distance(self, pos_BT: jax.Array) -> jax.Array | local.Parts | None:
        """Returns distances_NTS, int32, of keys from queries: sentences of a row do not see each other.

        None where scores do not depend on them.
        """
        if self.config.positions not in ("relative", "alibi"):
            return None
        if self.reach is not None:
            return self.reach.distance(pos_BT.shape[1])
        if self.config.prefix != "none":  # a row's sources, then its targets
            return pos_BT[:, None, :] - pos_BT[:, :, None]
        place_T = jnp.arange(pos_BT.shape[1])
        return (place_T - place_T[:, None])[None]

    def score_bias(self, table_XH: jax.Array | None, distance_NTS: jax.Array) -> jax.Array | None:
        """Returns bias_NHTS that self-attention adds to its scores, if it does, from one of `tables`."""
        if self.config.positions == "alibi":
            return positions.alibi(self.config.num_heads, distance_NTS)
        if table_XH is None:
            return None
        far = self.config.relative_max_distance
        return positions.relative_bias(table_XH, distance_NTS, far, not self.causal)

    def tables(self) -> jax.Array | None:
        """Returns table_LXH of the biases of distances for each layer, if the model has them."""
        if self.config.positions != "relative":
            return None
        return jnp.broadcast_to(self.relative_bias, (self.num_layers, *self.relative_bias.shape[1:]))

    def remembered(
        self, t: jax.Array, T: int, ancestor_BWT: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns (place_T, seen_T, ancestor_BWT) of the T positions in a cache when `t` is the newest one.

        That is their numbers, whether `t` sees them, and the part of `ancestor_BWT` (of all positions) that
        belongs to them.
        """
        if self.reach is None:
            place_T = jnp.arange(T)
            return place_T, place_T <= t, ancestor_BWT[..., :T]
        place_T, seen_T = self.reach.remembered(t, T)
        return place_T, seen_T, jnp.take(ancestor_BWT, place_T, axis=2, mode="clip")

    def finish(self, x_BTD: jax.Array) -> jax.Array:
        """Returns the stack's output: normed once more where the layers' outputs are not."""
        return self.final_norm(x_BTD) if self.config.norm == "pre" else x_BTD

    def run(
        self,
        x_BTD: jax.Array,
        pos_BT: jax.Array,
        deterministic: bool,
        *context: Any,
        remembered: list[KeysValues] | None = None,
    ) -> jax.Array:
        """Returns `x_BTD` after all layers and the final norm.

        To `remembered` are added each layer's keys and values; needs unscanned layers.
        """
        distance, table_LXH = self.distance(pos_BT), self.tables()

        def body(
            layer: Any, x: jax.Array, table_XH: jax.Array | None, depth: int = 0
        ) -> tuple[jax.Array, None]:
            if remembered is not None:
                remembered.append(layer.remember(x, pos_BT))
            bias = jax.tree.map(partial(self.score_bias, table_XH), distance)
            own = (x[depth % 2] if isinstance(x, Turns) else x for x in context)
            return layer(x, pos_BT, *own, bias, deterministic), None

        if not self.config.scan_layers:

            def step(depth: int, layer: Any, x_BTD: jax.Array) -> jax.Array:
                return body(layer, x_BTD, None if table_LXH is None else table_LXH[depth], depth)[0]

            return self.deepen(x_BTD, pos_BT, step)

        scan = nn.scan(
            body,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.num_layers,
        )
        return self.finish(scan(self.layers, x_BTD, table_LXH)[0])


def _mask(config: ModelConfig, seg_BT: jax.Array) -> jax.Array | local.Parts:
    """Returns who sees whom in an encoder's layer."""
    if config.attention == "compressed":
        return seg_BT  # its layers make their masks, for a few queries at a time
    reach = local.reach(config, causal=False)
    return masks.segment_mask(seg_BT, seg_BT) if reach is None else reach.mask(seg_BT)
