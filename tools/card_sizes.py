"""Measure the embedded models on small faces, and write their thresholds into their cards.

    python tools/card_sizes.py [MODEL ...]

It writes ``sizes`` of ``card.json``, which ``mien export`` writes for new models, and its section of ``card.md``.
The data set is the one at $MIEN_DATA.
"""

import sys
from pathlib import Path

from mien.bundled import BUNDLED
from mien.infer import bundled_models
from mien.lab.data import Split
from mien.lab.data.datasets import load_test_set
from mien.lab.export.card import SIZES, size_section
from mien.lab.files import load_json, save_json
from mien.lab.models import open_model
from mien.lab.predictions import measure_by_size, select_rows

_NEXT = "### Two views instead of one"  # the section that follows


def write_sizes(folder: Path) -> None:
    """Measure the int8 file of a model folder on PublicTest, and write the result into its cards."""
    model = open_model(folder)
    faces = load_test_set(None, model.emotions, size=model.size)
    sizes = measure_by_size(model, select_rows(faces, model.emotions, Split.PUBLIC_TEST))
    path = folder / "card.json"
    save_json(path, load_json(path) | {"sizes": sizes})
    path = folder / "card.md"
    before, _, after = path.read_text("utf-8").partition(_NEXT)
    before = before.partition(SIZES.format(precision="int8").split("\n")[0])[0]
    path.write_text(f"{before}{size_section(sizes, 'int8')[0]}\n\n{_NEXT}{after}", "utf-8")
    print(folder.name, {side: found["unsure_below"] for side, found in sizes.items()})


if __name__ == "__main__":
    for name in sys.argv[1:] or bundled_models():
        write_sizes(BUNDLED / name)
