"""Questions 11 to 14: residual connections, norms, and the feed-forward network."""

import numpy as np

from transformer.paths import by_path
from transformer.questions.measured import Measured, Place
from transformer.questions.subject import SUBLAYERS, Subject, silenced

_EPSILON = 1e-6  # of the batch norm that is tried
_BATCHES = 8  # fewer would say little about how far they lie apart


def residuals(subject: Subject) -> list[Measured]:
    """11. How large sub-layers' outputs are beside what they are added to, and layers that add nothing."""
    rows = []
    for stack in SUBLAYERS:
        ratios: dict[int, list[float]] = {}
        for layer, _, x_BTD, y_BTD in subject.sublayers(stack):
            sizes = [np.linalg.norm(z[subject.real[stack]], axis=-1) for z in (y_BTD, x_BTD)]
            ratios.setdefault(layer, []).append(float((sizes[0] / sizes[1]).mean()))
        rows += [
            Measured("ratio", float(np.mean(found)), "", {"stack": stack, "layer": layer + 1})
            for layer, found in ratios.items()
        ]
    if subject.recurs:
        return [*rows, Measured("recurs")]
    for layer in subject.layers("encoder"):
        change = subject.score(silenced(subject.params, f"encoder/layer_{layer}/.*")) - subject.whole
        rows.append(Measured("skipped", change, "nat", {"layer": layer + 1}))
    return rows


def layer_norm(subject: Subject) -> list[Measured]:
    """12. What a sentence has to do with the others of its batch, by either norm, and sizes in the stack."""
    config, real_BS = subject.model.config, subject.real["encoder"]
    rows = [Measured(config.norm)]
    if config.norm_type == "rms":
        rows.append(Measured("rms"))
    # Another batch with the same first sentence: each other one becomes a copy of it.
    copies = subject.batch._replace(
        **{name: np.broadcast_to(x[:1], x.shape) for name, x in subject.batch._asdict().items()}
    )
    own, other = (subject.output("encoder", seen)[0] for seen in (None, subject.activations(batch=copies)))
    x_BSD = entering(subject, subject.layers("encoder")[-1])
    first_SD = x_BSD[0][real_BS[0]]
    halves = [_normed(first_SD, x_BSD[half::2][real_BS[half::2]]) for half in (0, 1)]
    sizes = [_size(subject, x) for x in (subject.seen["encoder/layer_0/input"], _leaving(subject))]
    return [
        *rows,
        Measured("layer", float(np.abs(own - other)[real_BS[0]].max())),
        Measured("batch", float(np.sqrt(np.square(halves[0] - halves[1]).mean()))),
        Measured("size_in", sizes[0]),
        Measured("size_out", sizes[1]),
    ]


def entering(subject: Subject, layer: int) -> np.ndarray:
    """Returns x_BSD, what the first norm of an encoder layer reads."""
    found = {
        number: x + y if subject.model.config.norm == "post" else x
        for number, sublayer, x, y in subject.sublayers("encoder")
        if sublayer == "self_attention"
    }
    return found[layer].astype(np.float64)


def _leaving(subject: Subject) -> np.ndarray:
    """Returns x_BSD, what the last encoder layer gives, before a final norm."""
    return subject.seen[f"encoder/layer_{subject.layers('encoder')[-1]}"]


def _size(subject: Subject, x_BSD: np.ndarray) -> float:
    """Returns the root of the mean square of a number, real positions only."""
    return float(np.sqrt(np.square(x_BSD[subject.real["encoder"]].astype(np.float64)).mean()))


def _normed(x_ND: np.ndarray, batch_ND: np.ndarray) -> np.ndarray:
    """Returns `x` normalized by the statistics of a batch (Ioffe and Szegedy 2015)."""
    return (x_ND - batch_ND.mean(axis=0)) / np.sqrt(batch_ND.var(axis=0) + _EPSILON)


def batch_norm(subject: Subject) -> list[Measured]:
    """13. How far statistics of batches lie apart, by the sentences of a batch, and what padding does."""
    real_BS, layer = subject.real["encoder"], subject.layers("encoder")[-1]
    x_BSD = entering(subject, layer)
    all_ND = x_BSD[real_BS]
    deviation_D = all_ND.std(axis=0) + _EPSILON
    rows = []
    for lines in (1, 4, 16):
        starts = range(0, len(x_BSD) - lines + 1, lines)
        if len(starts) < _BATCHES:
            break
        batches = [x_BSD[i : i + lines][real_BS[i : i + lines]] for i in starts]
        means_ND, deviations_ND = (np.array([f(b, axis=0) for b in batches]) for f in (np.mean, np.std))
        place: Place = {"lines": lines, "layer": layer + 1}
        rows.append(Measured("means", 100 * float((means_ND.std(axis=0) / deviation_D).mean()), "%", place))
        spread_D = deviations_ND.std(axis=0) / deviation_D
        rows.append(Measured("deviations", 100 * float(spread_D.mean()), "%", place))
    padded_D = np.abs(x_BSD.reshape(-1, x_BSD.shape[-1]).mean(axis=0) - all_ND.mean(axis=0)) / deviation_D
    return [*rows, Measured("padded", 100 * float(padded_D.mean()), "%")]


def feed_forward(subject: Subject) -> list[Measured]:
    """14. Units that are zero, and the score without the feed-forward networks."""
    config = subject.model.config
    sizes = {path: x.size for path, x in by_path(subject.params).items()}
    inside = sum(size for path, size in sizes.items() if "/feed_forward/" in path)
    rows = [Measured("share", 100 * inside / sum(sizes.values()), "%")]
    if config.activation == "relu":
        rows += _zeros(subject)
    else:
        rows.append(Measured("smooth", place={"activation": config.activation}))
    rows.append(Measured("whole", subject.whole, "nat"))
    for stack in SUBLAYERS:
        score = subject.score(silenced(subject.params, f"{stack}/layer_.*/feed_forward"))
        rows.append(Measured("silent", score, "nat", {"stack": stack}))
    return rows


def _zeros(subject: Subject) -> list[Measured]:
    rows: list[Measured] = []
    idle: list[np.ndarray] = []
    for stack in SUBLAYERS:
        always_LF = []
        for layer in subject.layers(stack):
            path = f"{stack}/layer_{layer}/feed_forward/Dropout_0"
            zero_NF = subject.seen[path][subject.real[stack]] == 0
            place: Place = {"stack": stack, "layer": layer + 1}
            rows.append(Measured("zero", 100 * float(zero_NF.mean()), "%", place))
            always_LF.append(zero_NF.all(axis=0))
        idle.append(np.all(always_LF, axis=0) if subject.recurs else np.concatenate(always_LF))
    idle_F = np.concatenate(idle)
    return [*rows, Measured("idle", int(idle_F.sum()), "", {"units": idle_F.size})]
