"""Our numbers -> the dtypes of others."""

import jax.numpy as jnp
import numpy as np

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}


def cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """Returns an array in a dtype as safetensors names it, rounded where it must be."""
    with np.errstate(over="ignore"):
        return array.astype(_DTYPES[dtype])
