"""Linear maps: the only parameters that multiply inside a layer."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.config import ModelConfig
from transformer.model.sharded import products


class Projection(nn.Module):
    """Linear map between named axes: `letters` as in "D->HK", `rows` of what comes before them."""

    letters: str
    use_bias: bool
    config: ModelConfig
    rows: str = "BT"

    def setup(self) -> None:
        c = self.config
        sizes = {"D": c.d_model, "F": c.d_ff, "H": c.num_heads, "G": c.kv_heads, "K": c.key_size}
        sizes["C"] = c.source_features
        inputs, outputs = (tuple(sizes[letter] for letter in side) for side in self.letters.split("->"))
        init = nn.initializers.variance_scaling(
            1.0,
            "fan_avg",
            "uniform",
            in_axis=tuple(range(len(inputs))),
            out_axis=tuple(range(len(inputs), len(inputs + outputs))),
        )
        self.kernel = self.param("kernel", init, inputs + outputs, jnp.dtype(c.param_dtype))
        if self.use_bias:
            self.bias = self.param("bias", nn.initializers.zeros, outputs, jnp.dtype(c.param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        return project(x, self)[0]


def project(x: jax.Array, *projections: Projection, together: bool = False) -> tuple[jax.Array, ...]:
    """Returns what each of the projections, with inputs of the same letters, makes of `x`; see `products`."""
    dtype = jnp.dtype(projections[0].config.dtype)
    kernels = [p.kernel.astype(dtype) for p in projections]
    ys = products(x.astype(dtype), kernels, projections[0].letters, together, projections[0].rows)
    return tuple(y + p.bias.astype(dtype) if p.use_bias else y for y, p in zip(ys, projections, strict=True))
