"""Questions 7 to 10: what goes into the encoder, and what comes out of it."""

import jax.numpy as jnp
import numpy as np

from transformer.data.batch import Batch
from transformer.model.positions import FIXED
from transformer.model.transformer import TABLES
from transformer.paths import by_path
from transformer.questions.measured import Measured, Place
from transformer.questions.subject import Subject, silenced

# Parameters that tell the order.
_LEARNED = "/positions", "/relative_bias", "/distance_key", "/distance_value"


def encoder(subject: Subject) -> list[Measured]:
    """7. What the source is worth, what reading it is worth, and how much a piece depends on its sentence."""
    batch = subject.batch
    other = batch._replace(**{name: np.roll(getattr(batch, name), 1, axis=0) for name in batch._fields[:3]})
    unread = silenced(subject.params, "encoder/.*")
    rows = [
        Measured("whole", subject.whole, "nat"),
        Measured("unread", subject.score(unread), "nat"),
        Measured("other", subject.score(batch=other), "nat"),
    ]
    if subject.model.config.attention != "full":
        rows.append(Measured("reach"))
    same_NN = _repeated_pieces(subject)
    if not same_NN.any():
        return [*rows, Measured("no_repetition")]
    ends = {"same_in": subject.seen["encoder/layer_0/input"], "same_out": subject.output("encoder")}
    for key, x_BSD in ends.items():
        x_ND = x_BSD[subject.real["encoder"]].astype(np.float64)
        x_ND /= np.linalg.norm(x_ND, axis=-1, keepdims=True)
        rows.append(Measured(key, float((x_ND @ x_ND.T)[same_NN].mean())))
    return rows


def _repeated_pieces(subject: Subject) -> np.ndarray:
    """Returns which of all source positions hold the same piece of text as one of an earlier row."""
    real_BS, special = subject.real["encoder"], subject.special
    row_N, id_N = np.nonzero(real_BS)[0], subject.batch.src_BS[real_BS]
    text_N = ~np.isin(id_N, [*special.source_prefix, *special.source_suffix])
    return (id_N[:, None] == id_N) & (row_N[:, None] < row_N) & text_N


def scaled_embeddings(subject: Subject) -> list[Measured]:
    """8. Norms of embeddings and of positions, and the score with the scale the other way round."""
    config, real_BS = subject.model.config, subject.real["encoder"]
    table_VD = np.asarray(subject.params[TABLES[config.tied_embeddings].source]["embedding"], np.float32)
    norm = float(np.linalg.norm(table_VD[subject.batch.src_BS[real_BS]], axis=-1).mean())
    rows = [] if config.scale_embeddings else [Measured("never_scales")]
    rows += [
        Measured("factor", config.d_model**0.5, "", {"size": config.d_model}),
        Measured("norm", norm),
        Measured("norm_scaled", norm * config.d_model**0.5),
    ]
    signal_PD = _signals(subject, real_BS.shape[1])
    if signal_PD is None:
        rows.append(Measured("not_added", place={"positions": config.positions}))
    else:
        rows.append(Measured("norm_positions", float(np.linalg.norm(signal_PD, axis=-1).mean())))
    scores = [subject.whole, subject.score(scale_embeddings=not config.scale_embeddings)]
    scaled, unscaled = scores if config.scale_embeddings else scores[::-1]
    return [*rows, Measured("scaled", scaled, "nat"), Measured("unscaled", unscaled, "nat")]


def _signals(subject: Subject, length: int) -> np.ndarray | None:
    """Returns signal_PD that the encoder adds at the first places, if it adds one."""
    config = subject.model.config
    places = np.arange(length) + config.position_offset
    if config.positions == "learned":
        return np.asarray(subject.params["encoder"]["positions"], np.float64)[places[places < _rows(subject)]]
    if config.positions in FIXED:
        return np.asarray(FIXED[config.positions](jnp.asarray(places), config.d_model), np.float64)
    return None


def _rows(subject: Subject) -> int:
    """Returns how many positions have a learned vector."""
    return subject.model.config.max_length + subject.model.config.position_offset


def positions(subject: Subject) -> list[Measured]:
    """9. The source in reverse order, with positions and without."""
    reversed_batch = _reversed(subject)
    rows = [
        Measured("whole", subject.whole, "nat"),
        Measured("reversed", subject.score(batch=reversed_batch), "nat"),
    ]
    if subject.model.config.attention != "full":
        rows.append(Measured("near"))
    if subject.model.config.positions == "none":
        return [*rows, Measured("no_positions")]
    without = subject.token_scores(positions="none")
    difference = np.abs(subject.token_scores(batch=reversed_batch, positions="none") - without).max()
    return [
        *rows,
        Measured("without", subject.score(positions="none"), "nat"),
        Measured("difference", float(difference), "nat"),
    ]


def _reversed(subject: Subject) -> Batch:
    """Returns the pairs with the text of each source in reverse order."""
    src_BS, special = subject.batch.src_BS.copy(), subject.special
    for row, length in zip(src_BS, subject.real["encoder"].sum(axis=1), strict=True):
        text = slice(len(special.source_prefix), length - len(special.source_suffix))
        row[text] = row[text][::-1].copy()
    return subject.batch._replace(src_BS=src_BS)


def other_positions(subject: Subject) -> list[Measured]:
    """10. Which positions the model has, and what a source is worth that begins at another place."""
    config, batch = subject.model.config, subject.batch
    leaves = by_path(subject.params)
    learned = sum(x.size for path, x in leaves.items() if path.endswith(_LEARNED))
    rows = [
        Measured("kind", place={"positions": config.positions}),
        Measured("learned", learned),
        Measured("whole", subject.whole, "nat"),
    ]
    if config.positions == "none":
        return rows
    last = int(subject.real["encoder"].sum(axis=1).max()) + config.position_offset
    for places in (1, 10, config.max_length):
        place: Place = {"places": places, "longest": config.max_length}
        if config.positions == "learned" and last + places > _rows(subject):
            rows.append(Measured("ends", place=place))
            break
        moved = batch._replace(src_pos_BS=batch.src_pos_BS + places)
        rows.append(Measured("moved", subject.score(batch=moved), "nat", place))
    signal_PD = _signals(subject, config.max_length)
    if signal_PD is not None:
        rows.append(Measured("by_distance", 100 * _by_distance(signal_PD), "%"))
    return rows


def _by_distance(signal_PD: np.ndarray) -> float:
    """Returns the share of the variance of the positions' products that their distances explain."""
    products_PP = signal_PD @ signal_PD.T
    number = len(products_PP)
    distance_PP = np.abs(np.arange(number) - np.arange(number)[:, None])
    sums = np.bincount(distance_PP.ravel(), products_PP.ravel())
    means_PP = (sums / np.bincount(distance_PP.ravel()))[distance_PP]
    return float(1 - np.square(products_PP - means_PP).mean() / products_PP.var())
