"""Pictures are PNGs that show what they were given: axes, series and pieces, read back from the figure."""

import math
import struct
import subprocess
import sys

import numpy as np
import pytest

from transformer.errors import DataError
from transformer.run import pictures

TRAIN = [
    {
        "split": "train",
        "step": s,
        "loss": 5 / s,
        "nll": 4 / s,
        "learning_rate": 1e-4 * s,
        "gradient_norm": 1.0,
    }
    for s in range(10, 60, 10)
]
DEV = [{"split": "dev", "step": s, "nll": 4.5 / s, "bleu": s / 2, "chrf": s, "note": "x"} for s in (25, 50)]


@pytest.fixture
def figures(monkeypatch):
    """Returns the list of figures that will have been saved."""
    saved, save = [], pictures._save
    monkeypatch.setattr(pictures, "_save", lambda figure, path: (saved.append(figure), save(figure, path)))
    return saved


def png_size(path):
    """Returns width and height in pixels from the file's header."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
    return struct.unpack(">II", data[16:24])


def panels(figure):
    return {axes.get_title(loc="left") or axes.get_title(): axes for axes in figure.axes}


def curves(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_learning_curve_shows_train_and_dev(tmp_path, figures):
    pictures.learning_curve([*DEV, *TRAIN[::-1]], tmp_path / "sub" / "curve.png")
    assert png_size(tmp_path / "sub" / "curve.png") == (1650, 1125)
    shown = panels(figures[0])
    assert set(shown) == {"Loss", "Quality on dev", "Learning rate", "Gradient norm"}
    loss = curves(shown["Loss"])
    np.testing.assert_allclose(loss["train nll"], [(m["step"], m["nll"]) for m in TRAIN])
    np.testing.assert_allclose(loss["train loss (smoothed)"], [(m["step"], m["loss"]) for m in TRAIN])
    np.testing.assert_allclose(loss["dev nll"], [(25, 0.18), (50, 0.09)])
    np.testing.assert_allclose(curves(shown["Quality on dev"])["BLEU"], [(25, 12.5), (50, 25)])
    assert shown["Loss"].get_ylabel() == "nats per token"
    assert {axes.get_xlabel() for axes in shown.values()} == {"optimizer steps"}
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["curve.png"]


def test_a_single_quality_is_named_at_its_axis(tmp_path, figures):
    pictures.learning_curve([*TRAIN, {"split": "dev", "step": 50, "bleu": 30.0}], tmp_path / "c.png")
    assert panels(figures[0])["Quality on dev"].get_ylabel() == "BLEU"


def test_learning_curve_without_dev_and_with_numbers_that_are_none(tmp_path, figures):
    lines = [*TRAIN, {**TRAIN[-1], "step": 60, "loss": math.nan, "gradient_norm": math.inf}]
    pictures.learning_curve(lines, tmp_path / "c.png")
    shown = panels(figures[0])
    assert set(shown) == {"Loss", "Learning rate", "Gradient norm"}
    assert "train (1 of 6 not finite)" in curves(shown["Gradient norm"])


def test_learning_curve_needs_a_train_line(tmp_path):
    with pytest.raises(DataError, match="none of 2 lines"):
        pictures.learning_curve(DEV, tmp_path / "c.png")


def test_heat_maps_show_every_head_and_the_mean_of_the_last_layer(tmp_path, figures):
    source, target = ["▁A", "▁$5", "▁$6", "</s>"], ["▁Ein", "▁Hut", "</s>"]
    weights_LHTS = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3, 3))
    pictures.attention_heat_maps(weights_LHTS, source, target, tmp_path / "a.png", "Cross-attention: $1")
    png_size(tmp_path / "a.png")
    *maps, bar = figures[0].axes
    assert [axes.get_title() for axes in maps] == ["head 1", "head 2", "head 3", "mean of 3 heads"]
    for axes, weights_TS in zip(maps, [*weights_LHTS[1], weights_LHTS[1].mean(0)], strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), weights_TS, rtol=1e-6)
        assert axes.images[0].get_clim() == pytest.approx((0, weights_LHTS[1].max()))
    # Two by two: source pieces below, target pieces to the left, nothing twice.
    columns = [[label.get_text() for label in axes.get_xticklabels()] for axes in maps]
    rows = [[label.get_text() for label in axes.get_yticklabels()] for axes in maps]
    assert columns == [[""] * 4, [""] * 4, source, source]
    assert rows == [target, [""] * 3, target, [""] * 3]
    assert bar.get_ylabel() == "attention weight"
    assert figures[0].get_suptitle() == "Cross-attention: $1"


def test_characters_without_a_glyph_are_announced_in_the_picture(tmp_path, figures):
    # U+13000 is an Egyptian hieroglyph; warnings are errors in this test run.
    pictures.attention_heat_maps(np.ones((1, 1, 2)) / 2, ["▁\U00013000", "é"], ["a"], tmp_path / "a.png")
    assert "Boxes: 1 characters" in figures[0].get_supxlabel()
    pictures.attention_heat_maps(np.ones((1, 1, 2)) / 2, ["▁ы", "é"], ["a"], tmp_path / "a.png")
    assert figures[1].get_supxlabel() == ""


def test_one_head_needs_no_mean(tmp_path, figures):
    pictures.attention_heat_maps(np.ones((1, 1, 1)), ["a"], ["b"], tmp_path / "a.png")
    assert [axes.get_title() for axes in figures[0].axes[:-1]] == ["head 1"]


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3), (2, 3, 5), (0, 3, 4)])
def test_shapes_that_do_not_fit_are_named(tmp_path, shape):
    with pytest.raises(ValueError, match=r"expected weights \[3, 4\] for 3 queries and 4 keys, got"):
        pictures.attention_heat_maps(np.zeros(shape), list("abcd"), list("xyz"), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_importing_the_room_does_not_import_matplotlib():
    program = "import sys, transformer.run.pictures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
