"""What each head is worth to one sentence pair: its log-probability with that head switched off."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from transformer.data.batch import pack_rows
from transformer.inference.attention_maps import KINDS
from transformer.inference.model_directory import LoadedModel
from transformer.inference.scorer import token_scores
from transformer.inference.sentence_pair import SentencePair
from transformer.model.transformer import unrolled, unstack_layers


class HeadOff(NamedTuple):
    """One head switched off.

    Attributes:
      kind: of attention, as in `attention_maps`.
      layer, head: from 0.
      change: of the pair's log-probability, nats; below 0: the head helped.
    """

    kind: str
    layer: int
    head: int
    change: float


def without_each_head(loaded: LoadedModel, pair: SentencePair) -> tuple[float, list[HeadOff]]:
    """Returns the log-probability of the target, in nats, and how it changes without each head.

    A head is off when the rows of the output projection W^O that read it are zero (paper, section
    3.2.2); what the other heads contribute, and the projection's bias, stay.
    """
    params, model = unstack_layers(loaded.params), unrolled(loaded.model)
    batch = pack_rows([[(pair.source, pair.target)]], 1, max(len(pair.source), len(pair.target)))
    given = len(loaded.tokenizer.special.given)

    def score(params: Any) -> float:
        return float(token_scores(params, batch, model, given).sum())

    whole = score(params)
    off = each_head_off(params, loaded.config.model.num_heads)
    return whole, [HeadOff(kind, layer, head, score(changed) - whole) for kind, layer, head, changed in off]


def each_head_off(params: Any, num_heads: int) -> Iterator[tuple[str, int, int, Any]]:
    """Yields (kind, layer, head, parameters with that head switched off); layers are apart."""
    for kind, (stack, attention) in KINDS.items():
        for layer in range(sum(name.startswith("layer_") for name in params[stack])):
            path = (stack, f"layer_{layer}", attention, "out", "kernel")
            for head in range(num_heads):
                yield kind, layer, head, _without(params, path, head)


def _without(tree: Any, path: tuple[str, ...], head: int) -> Any:
    """Returns the parameters with kernel_HKD at `path` zero for one head."""
    if not path:
        return tree.at[head].set(0)
    return {**tree, path[0]: _without(tree[path[0]], path[1:], head)}
