"""How much accuracy is gained by choosing the best epoch on the test set.

A small net is trained several times, and its predictions for PublicTest are saved after every epoch. Then PublicTest
is split in two at random, many times: one half is the test set, the other is the selection set. On the test half,

    gain = accuracy of the epoch that was chosen on the test half - accuracy of the epoch chosen on the other half

is what choosing on the test set adds to the reported accuracy. It is never below zero. ``drop`` is the difference
between the reported accuracy and that of the same epoch on the selection half, which was not used for the choice.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from mien._errors import DataError
from mien.commands._progress import epoch_line
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, Split
from mien.lab.data.weighting import class_weights
from mien.lab.inference import predict
from mien.lab.recipe import Recipe, dump
from mien.lab.train.devices import Devices
from mien.lab.train.loop import prepare_training, run_epoch
from mien.lab.train.run import open_run

RECIPE = "baseline-cnn-tuned"
# Small enough for a minute or two a run on one core: half of the training faces (others for each seed), seen at 24 px.
OVERRIDES = ("data.size=24", "data.fraction=0.5", "train.epochs=15")
SCHEDULES = ("cosine", "constant")
LAST = (1, 5, 10)  # the best epoch is chosen among so many last ones
SPLITS = 1000
PARTS = (8, 4, 2)  # the test part is N divided by these
WHOLE = 3589  # faces of PublicTest, and of PrivateTest

Rights = NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """Accuracies for every random split: float ``[splits]`` each, in 0..1.

    ``reported``: accuracy on the test part of the candidate that was chosen there; ``honest``: of the one chosen on
    the selection part; ``unseen``: accuracy on the selection part of the one chosen on the test part.
    """

    reported: NDArray[np.float64]
    honest: NDArray[np.float64]
    unseen: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """What choosing on the test part adds, at least 0."""
        return self.reported - self.honest

    @property
    def drop(self) -> NDArray[np.float64]:
        """Reported accuracy minus the accuracy on faces that were not used for the choice."""
        return self.reported - self.unseen


def measure(faces: FaceSet, folder: Path, *, seeds: int) -> dict[str, Any]:
    """Train what ``folder`` does not hold yet; return the results of every schedule."""
    rows: dict[str, Any] = {}
    chosen = {
        (schedule, seed): recipes.load(RECIPE, [*OVERRIDES, f"train.schedule={schedule}", f"seed={seed}"])
        for seed in range(seeds)
        for schedule in SCHEDULES
    }
    right = {key: correct_by_epoch(recipe, faces, folder / f"{key[0]}-{key[1]}") for key, recipe in chosen.items()}
    for schedule in SCHEDULES:
        rows[schedule] = summarize(np.stack([right[schedule, seed] for seed in range(seeds)]))
    sample = chosen[SCHEDULES[0], 0]
    return {
        "recipe": RECIPE,
        "overrides": list(OVERRIDES),
        "seeds": list(range(seeds)),
        "epochs": sample.train.epochs,
        "n": len(faces.split(Split.PUBLIC_TEST)),
        "splits": SPLITS,
        "schedules": rows,
    }


def correct_by_epoch(recipe: Recipe, faces: FaceSet, folder: Path) -> Rights:
    """Bool ``[epochs, N]``: the faces of PublicTest that the averaged net classified correctly after every epoch.

    Saved in ``folder``, and loaded from there if it is the same training on the same faces.
    """
    path, key = folder / "epochs.npz", json.dumps({"recipe": dump(recipe), "data": faces.sha256}, sort_keys=True)
    if path.is_file():
        with np.load(path) as file:
            if str(file["key"]) != key:
                raise DataError(f"{path}: holds the predictions of another training; remove it or name another --runs")
            return np.asarray(file["right"])
    right = train(recipe, faces, folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, right=right, key=key)
    part.replace(path)
    return right


def train(recipe: Recipe, faces: FaceSet, folder: Path) -> Rights:
    """Train ``recipe``, which has one phase; returns the same as ``correct_by_epoch``."""
    fabric = Devices("cpu").launch(recipe.train.precision)
    task, public = prepare_training(recipe, faces, fabric), faces.split(Split.PUBLIC_TEST)
    run = open_run(
        recipe,
        folder,
        device=fabric.device,
        class_weights=class_weights(task.training, recipe.target),
        data_sha256=faces.sha256,
    )
    right: list[Rights] = []
    optimiser = run.start_segment()
    model, stepper = fabric.setup(run.objective, optimiser)
    while not run.is_done:
        record = run_epoch(task, run, model, stepper)
        logits = predict(run.ema.net, public.images, recipe.data.size)
        right.append((logits.argmax(1) == public.labels).numpy())
        print(f"{folder.name}  {epoch_line(record)}", file=sys.stderr, flush=True)
    return np.stack(right)


def summarize(right: Rights) -> dict[str, Any]:
    """Gains and drops in points, from ``right`` bool ``[seeds, epochs, N]``."""
    accuracy, n = 100 * right.mean(axis=2), right.shape[2]
    last = [k for k in LAST if k <= right.shape[1]]
    single = {k: [choose(run[-k:], n // 2, seed=i) for i, run in enumerate(right)] for k in last}
    every = right.reshape(-1, n)
    sizes = {n // part: [choose(run, n // part, seed=i) for i, run in enumerate(right)] for part in PARTS}
    return {
        "accuracy_by_epoch": [[round(float(x), 2) for x in run] for run in accuracy],
        "best_epoch_by_last": {str(k): gain_and_drop(choices) for k, choices in single.items()},
        "best_of_seeds_and_epochs": {"candidates": len(every), **gain_and_drop([choose(every, n // 2)])},
        "best_last_epoch_of_seeds": {"candidates": len(right), **gain_and_drop([choose(right[:, -1], n // 2)])},
        "by_size": {str(size): gain_and_drop(choices) for size, choices in sizes.items()},
        "at_whole": at_whole({size: mean_gain(choices) for size, choices in sizes.items()}),
    }


def choose(right: Rights, count: int, *, splits: int = SPLITS, seed: int = 0) -> Choice:
    """Choose among the candidates of ``right`` bool ``[K, N]`` in ``splits`` random splits.

    The test part and the selection part have ``count`` faces each and no face in common.
    """
    generator, n = np.random.default_rng(seed), right.shape[1]
    order = np.argsort(generator.random((splits, n)), axis=1)
    test, selection = (
        _inside(part, n) @ right.T.astype(float) / count for part in (order[:, :count], order[:, count : 2 * count])
    )
    split, on_test, on_selection = np.arange(splits), test.argmax(axis=1), selection.argmax(axis=1)
    return Choice(test[split, on_test], test[split, on_selection], selection[split, on_test])


def _inside(part: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Float ``[splits, N]``: 1 for the faces in the part of each split, else 0."""
    inside = np.zeros((len(part), n))
    np.put_along_axis(inside, part, 1.0, axis=1)
    return inside


def gain_and_drop(choices: list[Choice]) -> dict[str, Any]:
    """Means in points; ``range`` holds 95 % of all splits, ``interval`` is that of the mean over the trainings."""
    result: dict[str, Any] = {}
    for name in ("gain", "drop"):
        values = [100 * getattr(choice, name) for choice in choices]
        low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
        result[name] = round(float(np.mean(values)), 3)
        result[f"{name}_range"] = [round(float(low), 2), round(float(high), 2)]
        result[f"{name}_interval"] = over_trainings([float(v.mean()) for v in values])
    if result["gain_interval"]:
        result["gain_interval"][0] = max(0.0, result["gain_interval"][0])  # a gain is never below zero, nor is its mean
    return result


def over_trainings(means: list[float]) -> list[float] | None:
    """95 % interval (Student's t) of the mean over trainings; ``None`` for a single one."""
    if len(means) < 2:
        return None
    reach = float(t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / len(means) ** 0.5)
    return [round(float(np.mean(means)) - reach, 3), round(float(np.mean(means)) + reach, 3)]


def mean_gain(choices: list[Choice]) -> float:
    """Mean gain in points."""
    return float(np.mean([100 * choice.gain for choice in choices]))


def at_whole(gains: dict[int, float]) -> dict[str, float]:
    """The gain in points on ``WHOLE`` faces, by a power law through the gains on smaller parts, and its exponent."""
    sizes, values = np.array(list(gains)), np.array(list(gains.values()))
    if (values <= 0).any():
        return {"gain": 0.0, "exponent": 0.0}
    slope, level = np.polyfit(np.log(sizes), np.log(values), 1)
    return {"gain": round(float(np.exp(level + slope * np.log(WHOLE))), 3), "exponent": round(float(slope), 3)}
