"""Name or path -> Model."""

import json
import os
from pathlib import Path

import torch
from torch.nn import functional as F

from mien._errors import DataError, ModelError
from mien.infer import Classifier, find_model
from mien.lab.data import FaceSet
from mien.lab.export.calibrate import Calibration
from mien.lab.export.release import calibrate
from mien.lab.model.foreign import open_foreign
from mien.lab.model.model import Crops, Maps, Model, Probs
from mien.lab.train.fit import predict
from mien.lab.train.run import Trained, load_final


def open_model(
    what: str | os.PathLike[str], *, precision: str = "int8", threads: int = 1, faces: FaceSet | None = None
) -> Model:
    """Open ``what``:

    - the name of an embedded model, an ONNX file of the contract, or a folder that holds one (``precision`` chooses);
    - a run folder of ``mien train`` (``final.pt``), or the folder of a recipe with one run in it: the torch net. Where
      ``faces`` are the set it was trained on, its answers are calibrated on their PublicTest as its exported files
      are; else they are as trained, and ``about`` says so;
    - a TOML file that describes a foreign ONNX model (``mien.lab.model.foreign``).

    ``threads`` is how many a call may use. Raises ``ModelError`` or ``DataError`` that names what is wrong.
    """
    path = Path(what)
    if path.suffix == ".toml":
        return open_foreign(path, threads=threads)
    run = _run_folder(path)
    if run is not None:
        return _of_run(run, faces)
    if path.is_dir() and (path / "answers.npz").is_file() and not (path / "model.onnx").is_file():
        raise ModelError(f"{path}: holds the answers of a run, but no model; name the run's folder under runs/")
    return _of_file(find_model(what, precision=precision), threads)


def _run_folder(path: Path) -> Path | None:
    if (path / "final.pt").is_file():
        return path
    seeds = sorted(path.glob("seed-*/final.pt")) if path.is_dir() else []
    if len(seeds) > 1:
        names = ", ".join(seed.parent.name for seed in seeds)
        raise ModelError(f"{path}: holds several runs ({names}); name one of them")
    return seeds[0].parent if seeds else None


def _of_file(path: Path, threads: int) -> Model:
    classifier = Classifier(path, threads=threads)
    said = classifier.metadata
    about = {"kind": "ONNX file of the contract"}
    about |= {key: said[key] for key in ("precision", "recipe", "commit", "data_sha256", "licence")}
    seed = _seed_beside(path)
    if seed is not None:
        about["seed"] = seed
    return Model(classifier.name, classifier.emotions, classifier.size, about, path, classifier.__call__)


def _seed_beside(path: Path) -> str | None:
    """The seed of a file of results/, whose figures stand beside it."""
    try:
        return str(json.loads((path.parent / "metrics.json").read_text("utf-8"))["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_run(folder: Path, faces: FaceSet | None) -> Model:
    trained = load_final(folder)
    recipe, calibration, said = trained.recipe, *_calibration(trained, faces)
    about = {"kind": "run (torch, fp32)", "recipe": recipe.name, "seed": str(recipe.seed), "calibration": said}
    about |= {key: str(trained.provenance[key]) for key in ("commit", "data_sha256") if key in trained.provenance}

    def answer(crops: Crops) -> tuple[Probs, Maps]:
        logits = predict(trained.net, torch.from_numpy(crops), recipe.data.size)
        return F.softmax(calibration(logits) if calibration else logits, dim=1).numpy(), None

    return Model(recipe.name, trained.emotions, recipe.data.size, about, folder, answer, trained)


def _calibration(trained: Trained, faces: FaceSet | None) -> tuple[Calibration | None, str]:
    if faces is None or faces.sha256 != trained.provenance.get("data_sha256"):
        return None, "none: probabilities as trained"
    if trained.recipe.data.expand_first:
        return None, "none: learned from faces of every split"
    try:
        return calibrate(trained, faces), "fitted on PublicTest, as in its exported files"
    except DataError:  # a set without PublicTest
        return None, "none: the set has no PublicTest to fit it on"
