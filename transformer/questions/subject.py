"""What experiments are made on: a model, and pairs of sentences in one array each side."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from transformer.config import Config
from transformer.data.batch import Batch, pack_rows
from transformer.inference.attention_maps import KINDS
from transformer.inference.batches import bucket
from transformer.inference.model_directory import LoadedModel
from transformer.inference.scorer import token_scores
from transformer.model.attention import MultiHeadAttention
from transformer.model.dropout import Dropout
from transformer.model.layers import FeedForward, Layer
from transformer.model.masks import shift_right
from transformer.model.norms import Norm
from transformer.model.transformer import Transformer, unrolled, unstack_layers
from transformer.paths import by_path, nested
from transformer.special_ids import SpecialIds

# The sub-layers of each stack, in their order.
SUBLAYERS = {
    "encoder": ("self_attention", "feed_forward"),
    "decoder": ("self_attention", "cross_attention", "feed_forward"),
}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with sentence pairs, one a row and padded to one length; nothing here changes it.

    Attributes:
      config: of its run.
      step: of its checkpoint; 0: it was not trained here.
      model: with layers apart, or with one that recurs: its steps then count as layers.
      params: its parameters.
      special: ids that are no text.
      batch: the pairs; each row ends with padding on both sides.
    """

    config: Config
    step: int
    model: Transformer
    params: Any
    special: SpecialIds
    batch: Batch

    @classmethod
    def of(cls, loaded: LoadedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> "Subject":
        """Returns a model with pairs of ids (source, target)."""
        width = bucket(1 + max(len(ids) for pair in pairs for ids in pair))
        batch = pack_rows([[pair] for pair in pairs], len(pairs), width)
        special = loaded.tokenizer.special
        params = unstack_layers(loaded.params)
        model = unrolled(loaded.model)
        # All positions at once, or what is inside of a chunk could not be looked at.
        model = model.clone(config=dataclasses.replace(model.config, chunk_length=0))
        return cls(loaded.config, loaded.step, model, params, special, batch)

    @cached_property
    def seen(self) -> dict[str, np.ndarray]:
        """What the model's parts make of the pairs, by path; see `activations`."""
        return self.activations()

    @cached_property
    def whole(self) -> float:
        """`score` with nothing changed."""
        return self.score()

    @cached_property
    def real(self) -> dict[str, np.ndarray]:
        """Which positions of each stack are no padding, [B, S] and [B, T]."""
        return {"encoder": self.batch.src_seg_BS > 0, "decoder": self.batch.tgt_seg_BT > 0}

    def token_scores(
        self, params: Any = None, batch: Batch | None = None, key: jax.Array | None = None, **settings: Any
    ) -> np.ndarray:
        """Returns log_p_BT of each target token, nats, 0 on padding.

        Args:
          params, batch: others than the subject's own.
          key: for dropout, which is off without it.
          **settings: fields of the model's configuration that are changed.
        """
        config = dataclasses.replace(self.model.config, **settings)
        given = len(self.special.given)
        params, batch = self.params if params is None else params, batch or self.batch
        model = dataclasses.replace(self.model, config=config)
        return np.asarray(token_scores(params, batch, model, given, key))

    def score(self, *args: Any, **changes: Any) -> float:
        """Returns the mean log-probability of a target token, in nats; arguments as in `token_scores`."""
        counted_BT = self.real["decoder"] & (self.batch.tgt_pos_BT >= len(self.special.given))
        return float(self.token_scores(*args, **changes).sum() / counted_BT.sum())

    def activations(self, params: Any = None, batch: Batch | None = None) -> dict[str, np.ndarray]:
        """Returns float32 outputs by path ("encoder/layer_0/feed_forward"); arguments as of `token_scores`.

        Besides: "encoder/layer_0/input", "encoder/finish" (what the stack gives), ".../weights" of attention,
        and ".../feed_forward/Dropout_0", what the activation function gives. Where a layer recurs it is
        computed at every step also for positions that have halted.
        """
        params, batch = self.params if params is None else params, batch or self.batch
        found = jax.device_get(_activations(params, batch, self.model))
        # In bfloat16 the sums that experiments make would stall long before their end.
        return {path: np.asarray(x, np.float32) for path, x in found.items()}

    def weights(self, kind: str, seen: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Returns weights_LBHTS of a kind of attention, see `attention_maps.KINDS`."""
        stack, attention = KINDS[kind]
        seen = self.seen if seen is None else seen
        return np.stack([seen[f"{stack}/layer_{i}/{attention}/weights"] for i in self.layers(stack)])

    def layers(self, stack: str) -> range:
        """Returns the numbers of a stack's layers, or steps."""
        config = self.model.config
        return range(config.num_encoder_layers if stack == "encoder" else config.num_decoder_layers)

    @property
    def recurs(self) -> bool:
        """Whether each stack is one layer, again and again."""
        return self.model.config.recurrence != "none"

    def parameters(self, stack: str, layer: int) -> Any:
        """Returns the parameters of a layer, or of a step."""
        return self.params[stack][f"layer_{0 if self.recurs else layer}"]

    def sublayers(self, stack: str) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
        """Yields (layer, sub-layer, what comes along the residual connection, what the sub-layer adds)."""
        for layer in self.layers(stack):
            x_BTD = self.seen[f"{stack}/layer_{layer}/input"]
            for sublayer in SUBLAYERS[stack]:
                path = f"{stack}/layer_{layer}/{sublayer}"
                y_BTD = self.seen[path]
                yield layer, sublayer, x_BTD, y_BTD
                x_BTD = x_BTD + y_BTD if self.model.config.norm == "pre" else self.seen[f"{path}_norm"]

    def output(self, stack: str, seen: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Returns what a stack gives."""
        return (self.seen if seen is None else seen)[f"{stack}/finish"]


def altered(params: Any, pattern: str, change: Callable[[jax.Array], jax.Array]) -> Any:
    """Returns the parameters with those changed in whose path a regular expression is found."""
    return nested({path: change(x) if re.search(pattern, path) else x for path, x in by_path(params).items()})


def silenced(params: Any, sublayers: str) -> Any:
    """Returns the parameters with sub-layers that add nothing, those with paths of this expression."""
    return altered(params, f"({sublayers})/(out|wo)/", lambda x: x * 0)


@partial(jax.jit, static_argnames="model")
def _activations(params: Any, batch: Batch, model: Transformer) -> dict[str, jax.Array]:
    tgt_in_BT = shift_right(batch.tgt_BT, batch.tgt_pos_BT, model.start_id)
    inputs = *batch[:3], tgt_in_BT, batch.tgt_seg_BT, batch.tgt_pos_BT
    _, captured = model.apply(
        {"params": params}, *inputs, mutable="intermediates", capture_intermediates=_is_captured
    )
    return {_place(path): x for path, x in by_path(captured["intermediates"]).items()}


def _is_captured(module: Any, method: str) -> bool:
    parts = Layer, MultiHeadAttention, FeedForward, Norm
    activation = isinstance(module, Dropout) and isinstance(module.parent, FeedForward)
    return method == "finish" or (method == "__call__" and (isinstance(module, parts) or activation))


def _place(path: str) -> str:
    """Returns the path of what a call gave: that of call i to a layer that recurs is layer i."""
    place, call = path.rsplit("/", 1)
    return re.sub(
        r"(?<=/layer_)\d+", lambda layer: str(int(layer[0]) + int(call)), place.removesuffix("/__call__")
    )
