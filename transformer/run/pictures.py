"""Pictures of a run and of attention, as PNG files; no window and no display is needed."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transformer.data.files import replacing
from transformer.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
# Okabe and Ito's colours, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#777777"
# Quality on held-out text, all from 0 to 100: metrics key -> label, colour.
_QUALITY = {
    "bleu": ("BLEU", _BLUE),
    "chrf": ("chrF", _ORANGE),
    "accuracy": ("accuracy (%)", _GREEN),
    "exact_match": ("exact match (%)", _PURPLE),
}
_CELL = 0.16  # inches of a heat map's cell, which a label of 8 points fits
_MISSING = "Boxes: {} characters that no installed font has.\nInstall one, such as Noto Sans CJK."
_LARGEST = 40.0  # inches of a picture's side: 6,000 pixels
# Fonts for what DejaVu Sans lacks; the first that are installed help out, glyph by glyph.
_MORE_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Source Han Sans",
    "IPAexGothic",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Color Emoji",
)


def learning_curve(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws a run: loss, quality on the dev set where there is one, learning rate and gradient norm.

    Args:
      metrics: lines of metrics.jsonl, as `read_metrics` gives them.
      path: the PNG file to write.

    Raises:
      DataError: if no line is of the training split.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    train = sorted((m for m in metrics if m["split"] == "train"), key=lambda m: m["step"])
    dev = sorted((m for m in metrics if m["split"] == "dev"), key=lambda m: m["step"])
    if not train:
        raise DataError(
            f"learning curve: none of {len(metrics)} lines of metrics.jsonl has split train; "
            "train for config.run.log_every steps first"
        )
    quality = [key for key in _QUALITY if any(key in line for line in dev)]
    figure = Figure(figsize=(11, 7.5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    axes = figure.subplot_mosaic([["loss", "quality" if quality else "loss"], ["rate", "norm"]])

    loss = _panel(axes["loss"], "Loss", "nats per token")
    _series(loss, train, "loss", label="train loss (smoothed)", color=_GREY, linewidth=0.9)
    _series(loss, train, "nll", label="train nll", color=_BLUE, linewidth=1.2)
    _series(loss, dev, "nll", label="dev nll", color=_ORANGE, marker="o")
    if quality:
        labels = [_QUALITY[key][0] for key in quality]
        panel = _panel(
            axes["quality"], "Quality on dev", labels[0] if len(labels) == 1 else "score, 0 to 100"
        )
        for key in quality:
            label, color = _QUALITY[key]
            _series(panel, dev, key, label=label, color=color, marker="o")
        panel.set_ylim(bottom=0)
    rate = _panel(axes["rate"], "Learning rate", "learning rate")
    _series(rate, train, "learning_rate", label="train", color=_GREY)
    rate.yaxis.set_major_formatter("{x:.3g}")
    rate.set_ylim(bottom=0)
    norm = _panel(axes["norm"], "Gradient norm", "global L2 norm")
    _series(norm, train, "gradient_norm", label="train", color=_GREY, linewidth=0.9)
    norm.set_ylim(bottom=0)
    for panel in axes.values():
        panel.set_xlim(0, 1.02 * max(line["step"] for line in [*train, *dev]))
        # Between title and axes, where it covers no curve.
        legend = panel.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.02),
            borderaxespad=0,
            borderpad=0,
            ncols=4,
            frameon=False,
            fontsize=9,
            handlelength=1.4,
            columnspacing=1.2,
        )
        legend.set_in_layout(False)
    _save(figure, path)


def attention_heat_maps(
    weights: np.ndarray,
    source_pieces: Sequence[str],
    target_pieces: Sequence[str],
    path: Path,
    title: str = "Cross-attention",
) -> None:
    """Draws the cross-attention of the last layer: one panel a head, and their mean; see `heat_maps`.

    Args:
      weights: attention weights [H, T, S], or [L, H, T, S] of which the last layer is drawn.
      source_pieces: the S pieces attended to.
      target_pieces: the T pieces whose prediction or input attends.
      path: the PNG file to write.
      title: heading of the picture.

    Raises:
      ValueError: if the weights are not of these shapes.
    """
    weights_HTS = np.asarray(weights, np.float32)
    if weights_HTS.ndim == 4:
        weights_HTS = weights_HTS[-1]
    panels = [(f"head {i + 1}", head_TS) for i, head_TS in enumerate(weights_HTS)]
    panels += [(f"mean of {len(panels)} heads", weights_HTS.mean(axis=0))] if len(panels) > 1 else []
    columns = math.ceil(math.sqrt(len(panels)))
    heat_maps(panels, columns, (source_pieces, "source"), (target_pieces, "target"), path, title)


def heat_maps(
    panels: Sequence[tuple[str, np.ndarray]],
    columns: int,
    keys: tuple[Sequence[str], str],
    queries: tuple[Sequence[str], str],
    path: Path,
    title: str,
) -> None:
    """Draws attention weights as heat maps beside and below one another.

    A query is a row of a map, a key a column; all maps share one colour scale from 0 to the largest
    weight. Characters that no installed font has are drawn as boxes, and the picture says so.

    Args:
      panels: heading and weights_TS of each map.
      columns: maps beside one another.
      keys, queries: the S and the T pieces, and what they are called at the axes.
      path: the PNG file to write.
      title: heading of the picture.

    Raises:
      ValueError: if the weights are not of these shapes.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    size_T, size_S = len(queries[0]), len(keys[0])
    wrong = [np.shape(weights) for _, weights in panels if np.shape(weights) != (size_T, size_S)]
    if wrong or not panels or not size_T * size_S:
        raise ValueError(
            f"attention: expected weights [{size_T}, {size_S}] for {size_T} queries and {size_S} keys, "
            f"got {wrong[0] if wrong else 'none'}"
        )
    fonts, num_missing = _fonts_for("".join([*keys[0], *queries[0], title]))
    rows = math.ceil(len(panels) / columns)
    figsize, fontsize = _heat_map_size(rows, columns, keys[0], queries[0])
    figure = Figure(figsize=figsize, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    style = {"family": fonts, "parse_math": False}  # a "$" in a piece is a dollar, not mathematics
    largest = max(float(np.max(weights)) for _, weights in panels)
    for number, (name, weights_TS) in enumerate(panels):
        panel = axes[number]
        image = panel.imshow(weights_TS, cmap="Blues", vmin=0, vmax=largest)
        _frame(panel, name, fontsize)
        if number + columns >= len(panels):  # else the panel below has the labels
            panel.set_xlabel(keys[1])
            panel.set_xticks(range(size_S), keys[0], rotation=90, **style)
        if number % columns == 0:  # else the panel to the left has them
            panel.set_ylabel(queries[1])
            panel.set_yticks(range(size_T), queries[0], **style)
    for unused in axes[len(panels) :]:
        unused.remove()
    figure.suptitle(title, fontsize=14, **style)
    figure.colorbar(image, ax=list(axes[: len(panels)]), label="attention weight", shrink=0.8, aspect=30)
    if num_missing:
        figure.supxlabel(_MISSING.format(num_missing), fontsize=9, color=_ORANGE)
    _save(figure, path)


def _panel(axes: "Axes", title: str, unit: str) -> "Axes":
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", weight="bold", pad=24)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(unit)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    return axes


def _series(
    axes: "Axes", lines: Sequence[dict[str, Any]], key: str, label: str, marker: str = "", **style: Any
) -> None:
    """Plots a key over steps; values that are not finite leave a gap, and the label counts them."""
    points = [(line["step"], line[key]) for line in lines if key in line]
    if not points:
        return
    steps, values = np.asarray(points, np.float64).T
    finite = np.isfinite(values)
    if not finite.all():
        label += f" ({(~finite).sum()} of {len(values)} not finite)"
    marker = "o" if len(points) == 1 else marker
    axes.plot(steps, np.where(finite, values, np.nan), label=label, marker=marker, markersize=4.5, **style)


def _frame(axes: "Axes", name: str, fontsize: float) -> None:
    """Gives a heat map its heading and a tick without label at every cell."""
    size_T, size_S = axes.images[0].get_size()
    axes.set_title(name, fontsize=11, weight="bold" if name.startswith("mean") else "normal")
    axes.set_xticks(range(size_S), [""] * size_S)
    axes.set_yticks(range(size_T), [""] * size_T)
    axes.tick_params(length=2, color=_GREY, labelsize=fontsize)
    axes.spines[:].set_color("#BBBBBB")


def _heat_map_size(
    rows: int, columns: int, source: Sequence[str], target: Sequence[str]
) -> tuple[tuple[float, float], float]:
    """Returns the picture's width and height in inches and the labels' size in points."""
    cell = max(_CELL, 1.8 / max(len(source), len(target)))
    cell = min(cell, _LARGEST / (columns * len(source)), _LARGEST / (rows * len(target)))
    letter = 0.07  # inches; labels of other scripts are wider but shorter
    width = columns * (cell * len(source) + 0.2) + letter * max(map(len, target)) + 2
    height = rows * (cell * len(target) + 0.45) + letter * max(map(len, source)) + 1.2
    return (max(width, 4.0), max(height, 3.0)), min(8.0, 8.0 * cell / _CELL)


def _fonts_for(text: str) -> tuple[list[str], int]:
    """Returns installed font families to draw the text with, and how many of its characters they lack."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    families = ["DejaVu Sans", *(name for name in _MORE_FONTS if name in installed)]
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families]
    lacking = {c for c in text if c.isprintable() and not any(f.get_char_index(ord(c)) for f in fonts)}
    return families, len(lacking)


def _save(figure: "Figure", path: Path) -> None:
    """Writes the PNG whole or not at all."""
    with warnings.catch_warnings(), replacing(path) as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the picture itself says so
        figure.savefig(file, format="png", dpi=DPI)
