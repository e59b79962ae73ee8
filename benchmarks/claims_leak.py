"""How much accuracy is gained by expanding a data set before splitting it, as document 003 did.

Two runs of one net are compared. LEAKY was trained on four fifths of the expanded set and validated on the last fifth.
CLEAN was trained on the expanded Training rows and validated on PublicTest. A validation face of LEAKY has a relative
if the training part holds a face of the same source row (an augmented copy of it, or its original) or of a row with
exactly the same pixels. The faces to augment and the faces of the last fifth were drawn at random. So the original
faces with an augmented copy in training and those without a relative differ in nothing else: the difference of their
accuracies is the effect of the leak.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import fisher_exact
from torch.nn import functional

from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.data.duplicates import same_pixels
from mien.lab.data.selection import training_rows, validation_rows
from mien.lab.inference import predict
from mien.lab.metrics import compute_metrics
from mien.lab.predictions import Predictions, select_rows
from mien.lab.recipe import Claim, Recipe
from mien.lab.train.logging import epoch_of_result
from mien.lab.train.run import Trained, load_final

RESAMPLES = 2000
Bools = NDArray[np.bool_]
Probs = NDArray[np.float32]


@dataclass(frozen=True)
class Kin:
    """Bool ``[N]`` each, of the validation faces.

    ``same_row``: the training part holds a face of the same source row; ``same_pixels``: none of that row, but one of
    a row whose pixels are the same; ``made``: the face itself is an augmented copy.
    """

    same_row: Bools
    same_pixels: Bools
    made: Bools

    @property
    def relative(self) -> Bools:
        """Whether the face has any relative in the training part."""
        return self.same_row | self.same_pixels

    def groups(self) -> dict[str, Bools]:
        """The groups of faces to compare, by name."""
        return {
            "all": np.ones_like(self.made),
            "with a relative": self.relative,
            "without": ~self.relative,
            "untouched, its changed twin in training": ~self.made & self.same_row,
            "untouched, only a copy of its pixels in training": ~self.made & self.same_pixels,
            "untouched, without": ~self.made & ~self.relative,
            "changed, with a relative": self.made & self.relative,
            "changed, without": self.made & ~self.relative,
        }


def measure(faces: FaceSet, leaky_folder: Path, clean_folder: Path) -> dict[str, Any]:
    """Results of both runs. Raises ``DataError`` for other runs, or runs on other faces."""
    leaky, clean = load_final(leaky_folder), load_final(clean_folder)
    check(leaky, clean, faces)
    training, validation = (choose(faces, leaky.recipe) for choose in (training_rows, validation_rows))
    kin = relatives(faces, training, validation)
    print(f"predictions for {len(validation):,} leaky validation faces and PublicTest", file=sys.stderr, flush=True)
    probs, labels = probabilities(leaky, validation), validation.labels.numpy()
    right = probs.argmax(1) == labels
    selection = select_rows(faces, clean.emotions, Split.PUBLIC_TEST)
    predictions = Predictions(
        selection.faces.rows.numpy(),
        probabilities(clean, selection.faces),
        selection.faces.labels.numpy(),
        selection.clean,
        clean.emotions,
    )
    right_clean = predictions.probs.argmax(1) == predictions.labels
    groups = {
        name: group_metrics(probs[rows], labels[rows], leaky) for name, rows in kin.groups().items() if rows.any()
    }
    public = {name: in_points(f) for name, f in predictions.metrics().items()}
    return {
        "runs": {"leaky": about(leaky), "clean": about(clean)},
        "n_training": len(training),
        "leaky": {name: {**f, "share": f["n"] / len(validation)} for name, f in groups.items()},
        "clean": {"PublicTest, all": public["all"], "PublicTest, rows without a copy": public["clean"]},
        "differences": {
            "with a relative - without": difference(right[kin.relative], right[~kin.relative]),
            "untouched: changed twin in training - without": difference(
                right[~kin.made & kin.same_row], right[~kin.made & ~kin.relative]
            ),
            "leaky - clean": difference(right, right_clean),
            "leaky, without a relative - clean": difference(right[~kin.relative], right_clean),
        },
    }


def check(leaky: Trained, clean: Trained, faces: FaceSet) -> None:
    """Refuse runs that differ in more than the leak, and other faces."""
    if not leaky.recipe.data.expand_first or clean.recipe.data.expand_first:
        raise DataError("name a run with data.expand_first = true and then one without: LEAKY CLEAN")
    plain = [bare(run.recipe) for run in (leaky, clean)]
    if plain[0] != plain[1]:
        raise DataError("the two runs differ in more than the leak; train both with the same overrides and seed")
    for run in (leaky, clean):
        known = run.provenance.get("data_sha256", faces.sha256)
        if known != faces.sha256:
            raise DataError(f"{run.recipe.name} was trained on other faces than {faces.source}; name those with --data")


def bare(recipe: Recipe) -> Recipe:
    """The recipe without the leak and without its descriptions."""
    data = replace(recipe.data, expand_first=False, exclude_leaked=True)
    return replace(recipe, name="any", about="", claim=Claim(), data=data)


def relatives(faces: FaceSet, training: FaceSet, validation: FaceSet) -> Kin:
    """Which validation faces have relatives in ``training``; both were made of ``faces``."""
    place = {row: i for i, row in enumerate(faces.rows.tolist())}
    of_training, of_validation = (
        np.array([place[row] for row in part.rows.tolist()], np.int64) for part in (training, validation)
    )
    family = same_pixels(faces)
    same_row = np.isin(of_validation, of_training)
    kin = np.isin(family[of_validation], family[of_training])
    made = (validation.images != faces.images[torch.from_numpy(of_validation)]).flatten(1).any(1).numpy()
    return Kin(same_row, kin & ~same_row, made)


def probabilities(run: Trained, faces: FaceSet) -> Probs:
    """Probabilities of the run's net for ``faces``, float32 ``[N, C]``, not calibrated."""
    logits = predict(run.net, faces.images, run.recipe.data.size, batch_size=128)
    return functional.softmax(logits, dim=1).numpy()


def group_metrics(probs: Probs, labels: NDArray[np.int64], run: Trained) -> dict[str, Any]:
    """Metrics of some validation faces."""
    return in_points(compute_metrics(probs, labels, run.emotions))


def in_points(metrics: dict[str, Any]) -> dict[str, Any]:
    """Accuracy and macro F1 with their intervals, in points."""
    result: dict[str, Any] = {"n": metrics["n"]}
    for name in ("accuracy", "macro_f1"):
        result[name] = round(100 * metrics[name], 2)
        result[f"{name}_interval"] = [round(100 * edge, 2) for edge in metrics["intervals"][name]]
    return result


def difference(first: Bools, second: Bools) -> dict[str, Any]:
    """Difference of two independent accuracies in points, its 95 % bootstrap interval, and Fisher's exact p."""
    generator = np.random.default_rng(0)
    # The number of correct faces in a resample is binomial, so the faces themselves need not be drawn.
    draws = [generator.binomial(len(g), g.mean(), RESAMPLES) / len(g) for g in (first, second)]
    low, high = np.percentile(100 * (draws[0] - draws[1]), [2.5, 97.5])
    table = [[int(group.sum()), int((~group).sum())] for group in (first, second)]
    return {
        "points": round(100 * float(first.mean() - second.mean()), 2),
        "interval": [round(float(low), 2), round(float(high), 2)],
        "p": float(fisher_exact(table).pvalue),
    }


def about(run: Trained) -> dict[str, Any]:
    """Recipe, seed and provenance of a run."""
    recipe = run.recipe
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "size": recipe.data.size,
        "epochs": recipe.train.epochs,
        "schedule": recipe.train.schedule,
        "kept_epoch": _kept(run),
        "provenance": run.provenance,
    }


def _kept(run: Trained) -> int:
    """The epoch whose weights were kept."""
    return epoch_of_result(run.recipe, run.history).epoch
