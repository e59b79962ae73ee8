"""The section on where models disagree, with the faces that divide them most."""

import numpy as np
from numpy.typing import NDArray

from mien.lab.compare import words
from mien.lab.compare.compare import Comparison
from mien.lab.page import Tile, columns, gallery, paragraph, section, table
from mien.lab.page.blocks import Section
from mien.lab.page.words import percent

_TILES = 24


def disagreement_section(comparison: Comparison) -> Section:
    """How often two models differ or fail together, what all know together, and a gallery."""
    d, common = comparison.disagreement, comparison.common
    best = max(d.accuracy)
    together = [
        ["the best model alone", percent(best)],
        ["what most say", percent(d.majority)],
        ["the mean of their probabilities", percent(d.mean)],
        ["at least one is right (oracle)", percent(d.oracle)],
        ["all are right", percent(d.all_right)],
        ["all are wrong", percent(d.all_wrong)],
    ]
    caption = f"Share of the {len(common.rows):,} common faces. The oracle is the ceiling of every choice among them."
    differ = _matrix(comparison, d.differ, "Disagreement: share of the faces that two models answer differently.")
    faults = _matrix(comparison, d.double_fault, "Double fault: share that both get wrong, on the diagonal each alone.")
    tiles = gallery(_tiles(comparison))
    return section(
        "Where they disagree",
        table(["together", "of the faces"], together, caption=caption),
        columns(differ, faults),
        "<h3>The faces that divide them most</h3>",
        paragraph("By the Jensen-Shannon divergence of their probabilities. Each says what it reads and how surely."),
        tiles,
    )


def _matrix(comparison: Comparison, values: NDArray[np.float64], caption: str) -> str:
    order = words.ranking(comparison)
    names = [comparison.contenders[place].name for place in order]
    rows = [
        [f"{number} {name}", *("·" if a == b and not values[a, b] else f"{100 * values[a, b]:.0f} %" for b in order)]
        for number, (name, a) in enumerate(zip(names, order, strict=True), 1)
    ]
    top = max(float(values.max()), 1e-9)
    shade = [[float(values[a, b]) / top if values[a, b] else None for b in order] for a in order]
    return table(["", *(str(number) for number, _ in enumerate(names, 1))], rows, shade=shade, caption=caption)


def _tiles(comparison: Comparison) -> list[Tile]:
    common, faces = comparison.common, comparison.faces
    chosen = np.argsort(-comparison.disagreement.divergence, kind="stable")[:_TILES]
    place_of = {int(row): place for place, row in enumerate(faces.rows.tolist())}
    order = words.ranking(comparison)
    tiles = []
    for face in chosen:
        said = []
        for place in order:
            probs = common.probs[place, face]
            guess = int(probs.argmax())
            said.append(f"{comparison.contenders[place].name} {common.emotions[guess]} {100 * probs[guess]:.0f} %")
        label = common.emotions[common.labels[face]]
        image = faces.images[place_of[int(common.rows[face])]].numpy()
        tiles.append(Tile(image, f"row {common.rows[face]}, labelled {label}: {'; '.join(said)}"))
    return tiles
