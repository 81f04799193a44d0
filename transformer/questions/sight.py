"""Questions 5, 15, 16 and 19: who sees what, and who does not."""

import numpy as np

from transformer.data.batch import Batch
from transformer.inference.attention_maps import KINDS
from transformer.questions.measured import Measured, Place
from transformer.questions.subject import Subject, silenced


def padding(subject: Subject) -> list[Measured]:
    """5. Weights on padding, and what a pair's score has to do with the padding beside it."""
    batch, real_BS = subject.batch, subject.real["encoder"]
    on_padding = max(_largest(subject, kind, ~real_BS[:, None]) for kind in ("encoder", "cross"))
    lengths = real_BS.sum(axis=1)
    shortest = int(lengths.argmin())
    sides = [max(1, int(seg[shortest].astype(bool).sum())) for seg in (batch.src_seg_BS, batch.tgt_seg_BT)]
    alone = Batch(*(x[[shortest], : sides[i // 3]] for i, x in enumerate(batch)))
    together = subject.token_scores()[shortest].sum()
    unmasked = batch._replace(src_seg_BS=np.ones_like(batch.src_seg_BS))
    place: Place = {"short": int(lengths[shortest]), "long": real_BS.shape[1]}
    return [
        Measured("padding", 100 * float((~real_BS).mean()), "%"),
        Measured("weight", on_padding),
        Measured("alone", abs(float(together - subject.token_scores(batch=alone).sum())), "nat", place),
        Measured("whole", subject.whole, "nat"),
        Measured("unmasked", subject.score(batch=unmasked), "nat"),
    ]


def _largest(subject: Subject, kind: str, chosen_BTS: np.ndarray) -> float:
    """Returns the largest weight, of any layer and head, that a real position gives to chosen ones."""
    weights_LBHTS = subject.weights(kind)
    real_BT = subject.real[KINDS[kind][0]]
    chosen_BTS = np.broadcast_to(chosen_BTS & real_BT[:, :, None], (*real_BT.shape, weights_LBHTS.shape[-1]))
    return float(weights_LBHTS.transpose(1, 3, 4, 0, 2)[chosen_BTS].max(initial=0))


def meeting(subject: Subject) -> list[Measured]:
    """15. What encoder-decoder attention is worth, in all layers and in each, and what it looks at."""
    rows = [Measured("whole", subject.whole, "nat")]
    rows.append(Measured("silent", subject.score(silenced(subject.params, "cross_attention")), "nat"))
    if subject.recurs:
        rows.append(Measured("recurs"))
    else:
        rows += [_silent_layer(subject, layer) for layer in subject.layers("decoder")]
    weights_NLHS = subject.weights("cross").transpose(1, 3, 0, 2, 4)[subject.real["decoder"]]
    rows.append(Measured("largest", 100 * float(weights_NLHS.max(axis=-1).mean()), "%"))
    marks = len(subject.special.source_suffix)
    if marks:
        last_B = subject.real["encoder"].sum(axis=1)
        place_S = np.arange(subject.batch.src_BS.shape[1])
        mark_BS = (place_S >= last_B[:, None] - marks) & subject.real["encoder"]
        rows.append(Measured("mark", 100 * _share(subject, "cross", mark_BS[:, None]), "%"))
    return rows


def _silent_layer(subject: Subject, layer: int) -> Measured:
    without = silenced(subject.params, f"decoder/layer_{layer}/cross_attention")
    return Measured("silent_layer", subject.score(without) - subject.whole, "nat", {"layer": layer + 1})


def _share(subject: Subject, kind: str, chosen_BTS: np.ndarray) -> float:
    """Returns the mean share of a real position's weight that chosen ones get."""
    weights_LBHTS = subject.weights(kind) * chosen_BTS[:, None]
    return float(weights_LBHTS.sum(axis=-1).transpose(1, 3, 0, 2)[subject.real[KINDS[kind][0]]].mean())


def both_self_attentions(subject: Subject) -> list[Measured]:
    """16. What positions see of later ones, and how far they look."""
    rows = []
    length = subject.batch.src_BS.shape[1]
    distance_TS = np.arange(length) - np.arange(length)[:, None]
    for kind in ("encoder", "decoder"):
        later_BTS = np.broadcast_to(distance_TS > 0, (len(subject.batch.src_BS), length, length))
        weights_NS = subject.weights(kind).mean(axis=(0, 2))
        far_NS = (weights_NS * np.abs(distance_TS)).sum(axis=-1)[subject.real[kind]]
        rows += [
            Measured(f"later_{kind}", 100 * _share(subject, kind, later_BTS), "%"),
            Measured(f"largest_{kind}", _largest(subject, kind, later_BTS)),
            Measured(f"far_{kind}", float(far_NS.mean())),
        ]
    first = float(subject.weights("decoder")[:, :, :, 0, 0].min())
    if subject.model.config.attention != "full":
        rows.append(Measured("reach"))
    return [*rows, Measured("first", 100 * first, "%")]


def leaks(subject: Subject) -> list[Measured]:
    """19. What changes before and after a token that is changed, along the residual connections too."""
    batch, model = subject.batch, subject.model
    shortest = {stack: int(real.sum(axis=1).min()) for stack, real in subject.real.items()}
    read, at = max(shortest["decoder"] // 2, 1), shortest["encoder"] // 2
    changed = {
        # Target token t is read at place t + 1.
        "decoder": (read, batch._replace(tgt_BT=_other_token(batch.tgt_BT, read - 1, model.target_vocab))),
        "encoder": (at, batch._replace(src_BS=_other_token(batch.src_BS, at, model.source_vocab))),
    }
    rows = []
    for stack, (first, other) in changed.items():
        seen = subject.activations(batch=other)
        paths = [path for path in seen if path.startswith(f"{stack}/") and not path.endswith("/weights")]
        moved_T = np.max([np.abs(seen[p] - subject.seen[p]).max(axis=(0, 2)) for p in paths], axis=0)
        rows += [
            Measured(f"earlier_{stack}", float(moved_T[:first].max(initial=0)), "", {"place": first + 1}),
            Measured(f"from_{stack}", float(moved_T[first:].max()), "", {"place": first + 1}),
        ]
    return rows


def _other_token(ids_BT: np.ndarray, place: int, vocab: int) -> np.ndarray:
    """Returns the ids with another one at a place of each row."""
    changed_BT = ids_BT.copy()
    changed_BT[:, place] = (changed_BT[:, place] + 1) % vocab
    return changed_BT
