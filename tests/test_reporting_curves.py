"""Plots of a training log."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.reporting import curves
from training.reporting.curves import write_curves

CURVES = (*curves.SCORES, *curves.LOSSES)


def line(epoch: int, **fields: Any) -> dict[str, Any]:
    learnt = {"cross_entropy": 4 / epoch, "cider": 10.0 * epoch, "bleu_4": 3.0 * epoch}
    return {"epoch": epoch, "encoder": "frozen" if epoch < 3 else "learning"} | learnt | fields


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)  # (height, width, 3)


def has_ink(image: np.ndarray, colour: str) -> bool:
    wanted = np.array(list(bytes.fromhex(colour[1:])))
    return bool((np.abs(image - wanted).max(axis=2) < 3).sum() > 20)


@pytest.mark.parametrize(
    "lines",
    [
        [line(1)],
        [line(epoch) for epoch in range(1, 14)],
        [line(1, cider=0.0, bleu_4=0.0)],
        [line(1, cider=None, bleu_4=None), line(2, cider=None, bleu_4=None)],
        [line(1), line(2, cider=None, bleu_4=None), line(3)],
        [line(1, phase="frozen"), line(2, phase="self-critical", cross_entropy=None, reward=0.4)],
        [line(epoch, phase=f"phase {epoch}") for epoch in range(1, 3)],
        [{"epoch": 7}],
    ],
    ids=["one", "many", "zeros", "unscored", "gap", "self-critical", "unknown phases", "bare"],
)
def test_plots_have_the_same_size(tmp_path, lines):
    path = tmp_path / "curves.png"
    write_curves(path, lines)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1600, 1120))
    assert list(tmp_path.iterdir()) == [path]


def test_plot_is_deterministic(tmp_path):
    lines = [line(epoch) for epoch in range(1, 5)]
    for name, drawn in (("a", lines), ("again", lines), ("b", [*lines[:3], line(4, cider=41.0)])):
        write_curves(tmp_path / name, drawn)
    assert (pixels(tmp_path / "a") == pixels(tmp_path / "again")).all()
    assert (pixels(tmp_path / "a") != pixels(tmp_path / "b")).any()


def test_every_value_has_its_curve(tmp_path):
    write_curves(tmp_path / "all.png", [line(1), line(2), line(3, cross_entropy=None, reward=0.25)])
    write_curves(tmp_path / "less.png", [line(1, bleu_4=None)])
    drawn, less = pixels(tmp_path / "all.png"), pixels(tmp_path / "less.png")
    assert [has_ink(drawn, curve.colour) for curve in CURVES] == [True, True, True, True]
    assert [has_ink(less, curve.colour) for curve in CURVES] == [True, False, False, True]


def test_curve_spans_epochs_without_scores(tmp_path):
    figure = curves._draw([line(1), line(2, cider=None), line(3)])
    cider = figure.axes[0].lines[0]
    assert list(cider.get_xdata()) == [1, 3]
    assert list(cider.get_ydata()) == [10.0, 30.0]


def legend(lines: list[dict[str, Any]]) -> set[str]:
    legends = [axes.get_legend() for axes in curves._draw(lines).axes]
    return {text.get_text() for found in legends if found for text in found.get_texts()}


@pytest.mark.parametrize("field", ["phase", "encoder"])
def test_legend_has_phases_of_the_log(field):
    found = legend([line(1, **{field: "frozen"}), line(2, **{field: "learning"})])
    assert {"encoder frozen", "encoder trained"} <= found
    assert "self-critical" not in found


def test_legend_has_last_and_best_values():
    found = legend([line(1), line(2, cider=55.0), line(3, cross_entropy=None, reward=0.645)])
    expected = {
        "val CIDEr 30.0",
        "best CIDEr 55.0",
        "val BLEU-4 9.0",
        "train loss 2.00",
        "sampled CIDEr 64.5",
    }
    assert expected <= found


def test_failed_plot_keeps_the_previous_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    write_curves(path, [line(1)])
    before = path.read_bytes()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curves.Figure, "savefig", lambda *_, **__: no_space())
    with pytest.raises(OSError, match="No space left"):
        write_curves(path, [line(1), line(2)])
    assert path.read_bytes() == before
