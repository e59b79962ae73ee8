"""Add to an embedded model's card what the exporter has learned to say since: mirror images, agreement with people.

    python tools/write_beside.py mien-0

The files stay as they are, and so do their figures: the int8 file answers both test splits again, and where its
accuracy is not what the card says, nothing is written. The run is looked for in results/NAME, the faces at $MIEN_DATA.
"""

import json
import sys
from pathlib import Path

from mien._errors import DataError, MienError
from mien.bundled import BUNDLED
from mien.infer import PRECISIONS, Classifier
from mien.lab import checkpoint
from mien.lab.data import Split, find_fer2013, load_fer2013
from mien.lab.export.beside import beside
from mien.lab.export.card import card_markdown, learned_from
from mien.lab.judge.judge import answer
from mien.lab.train.run import load_final

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main(name: str) -> None:
    """Judge the int8 file anew, compare, and write both forms of the card."""
    folder = BUNDLED / name
    recipe = load_final(RESULTS / name).recipe
    faces = load_fer2013(find_fer2013(None))
    classifier = Classifier(folder / PRECISIONS["int8"])
    card = json.loads((folder / "card.json").read_text("utf-8"))
    found = {}
    for split in card["judged"]:
        part = Split(f"{split.capitalize()}Test")
        answers = answer(classifier, faces, recipe.data.classes, part)
        if (got := answers.figures()["all"]["accuracy"]) != card["accuracy"][split]:
            raise DataError(f"{name}: {got:.2%} on {part}, where its card says {card['accuracy'][split]:.2%}")
        found[split] = beside(classifier, answers, faces, recipe.data.classes, part)
    card |= {"beside": found, "learned_from": learned_from(recipe, faces)}
    checkpoint.save_text(folder / "card.json", json.dumps(card, indent=1) + "\n")
    checkpoint.save_text(folder / "card.md", card_markdown(recipe, card))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except MienError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
