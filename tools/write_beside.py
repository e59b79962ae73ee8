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
from mien.infer import PRECISIONS
from mien.lab import checkpoint
from mien.lab.data import Split, find_fer2013, load_fer2013
from mien.lab.export.card import card_markdown, learned_from
from mien.lab.export.release import answer_files, beside_splits, judge_answers, require_same_faces
from mien.lab.train.run import load_final

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main(name: str) -> None:
    """Judge the int8 file anew, compare, and write both forms of the card."""
    trained, faces = load_final(RESULTS / name), load_fer2013(find_fer2013(None))
    require_same_faces(trained, faces)
    folder = BUNDLED / name
    path, card = folder / PRECISIONS["int8"], json.loads((folder / "card.json").read_text("utf-8"))
    answers = answer_files(
        trained, faces, {"int8": path}, [Split(f"{split.capitalize()}Test") for split in card["judged"]]
    )
    for split, by in judge_answers(answers).items():
        got, said = by["int8"]["all"]["accuracy"], card["accuracy"][split]
        if got != said:
            raise DataError(f"{name}: reads {got:.2%} of the {split} test split, where its card says {said:.2%}")
    card |= {
        "beside": beside_splits(trained, answers, faces, path),
        "learned_from": learned_from(trained.recipe, faces),
    }
    checkpoint.save_text(folder / "card.json", json.dumps(card, indent=1) + "\n")
    checkpoint.save_text(folder / "card.md", card_markdown(trained.recipe, card))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except MienError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
