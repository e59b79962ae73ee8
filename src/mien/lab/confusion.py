"""A confusion matrix as a drawing: who is taken for whom, as shares of each label's faces."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from mien.lab.page import ACCENT, INK, drawing, new_plot

# Of a full cell: its number must stay readable in the ink of the page, light and dark.
_DARKEST = 0.75


def draw_confusion(figures: Mapping[str, Any], title: str) -> str:
    """The ``confusion`` of ``figures`` (of ``judge.figures``: rows labels, columns answers) as an SVG file.

    A cell is darker the larger its share of the row; its number is that share in percent.
    """
    counts, names = np.asarray(figures["confusion"], float), list(figures["recall"])
    support = counts.sum(axis=1)
    shares = counts / support.clip(min=1)[:, None]
    size = len(names)
    figure, axis = new_plot(2.2 + 0.62 * size, 1.3 + 0.5 * size)
    for (label, answer), share in np.ndenumerate(shares):
        axis.add_patch(Rectangle((answer - 0.5, label - 0.5), 1, 1, color=ACCENT, alpha=_DARKEST * share, linewidth=0))
        axis.text(answer, label, f"{100 * share:.0f}", ha="center", va="center", color=INK, fontsize=9.5)
    axis.set_xlim(-0.5, size - 0.5)
    axis.set_ylim(size - 0.5, -0.5)
    axis.set_xticks(range(size), names)
    axis.set_yticks(range(size), [f"{name} ({n:,.0f})" for name, n in zip(names, support, strict=True)])
    axis.set_xlabel("read as, % of the label's faces")
    axis.set_title(title, loc="left", fontsize=11)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[["left", "bottom"]].set_visible(False)
    told = ", ".join(f"{name} {100 * shares[i, i]:.0f} %" for i, name in enumerate(names))
    return drawing(figure, alt=f"{title}. Read as labelled: {told}")
