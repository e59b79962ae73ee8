"""Plots and tables of reports, written for publications."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from PIL import Image

from mien import _output
from mien.lab.html import ACCENT, new_plot, plot, plot_confusion, saving_figures, table

FILES = ["confusion-of-a.pdf", "confusion-of-a.png", "confusion-of-a.svg", "line.pdf", "line.png", "line.svg"]


def report() -> None:
    figure, axis = new_plot(2, 1.5)
    axis.bar([0, 1], [1, 2], color=ACCENT)
    plot(figure, alt="Line. Its values: 1, 2")
    plot_confusion({"confusion": [[3, 1], [0, 2]], "recall": {"happy": 0.75, "sad": 1.0}}, "Confusion of a")
    table(["model", "accuracy"], [["a_b & <c>", "70.5 %"], ["d|e", None]])
    table(["x"], [["y"]], caption="Small table")


def test_every_plot_and_table_is_a_file(tmp_path: Path) -> None:
    report()
    assert list(tmp_path.iterdir()) == [], "only where a folder is named"
    for _ in range(2):  # the second call replaces the files of the first
        with _output.protect_files([]), saving_figures(tmp_path):
            report()
    tables = [f"{name}.{kind}" for name in ("table-model-accuracy", "table-small-table") for kind in ("md", "tex")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, *tables])
    assert all(_output.is_own(path) for path in tmp_path.iterdir())
    text = (tmp_path / "table-model-accuracy.md").read_text()
    assert text.startswith("| model | accuracy |\n| --- | --- |\n| a_b & <c> | 70.5 % |\n| d/e | – |\n")
    assert r"a\_b \& <c> & 70.5 \% \\" in (tmp_path / "table-model-accuracy.tex").read_text()
    pixels = np.asarray(Image.open(tmp_path / "line.png").convert("RGB"))
    assert pixels.shape[1] >= 500, "300 dpi"
    assert (pixels[0, 0] == 255).all(), "on white"
    assert (pixels == (0x1F, 0x5F, 0xA8)).all(axis=2).mean() > 0.1, "the colour of the bars, not its placeholder"
    assert "#040404" not in (tmp_path / "line.svg").read_text()
