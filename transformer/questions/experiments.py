"""Which experiment answers which question."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from transformer.questions import layers, running, scores, sight, signals
from transformer.questions.measured import Measured
from transformer.questions.subject import Subject

EXPERIMENTS: Mapping[int, Callable[[Subject], list[Measured]]] = MappingProxyType(
    {
        1: scores.many_heads,
        2: scores.queries_and_keys,
        3: scores.dot_or_additive,
        4: scores.divided_scores,
        5: sight.padding,
        6: scores.small_heads,
        7: signals.encoder,
        8: signals.scaled_embeddings,
        9: signals.positions,
        10: signals.other_positions,
        11: layers.residuals,
        12: layers.layer_norm,
        13: layers.batch_norm,
        14: layers.feed_forward,
        15: sight.meeting,
        16: sight.both_self_attentions,
        17: running.parallel,
        18: running.rate_and_dropout,
        19: sight.leaks,
    }
)
