"""Every public function, and those of the lab that the docs show, refuse wrong arguments with one line."""

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mien
from mien import Emotion, MienError

FEW: list[Any] = [None, -1, float("nan"), "nonsense", b"\0", np.zeros(3), object()]
MANY: list[Any] = [
    *FEW,
    *(0, True, 10**30, 10**5000, float("inf"), 1.5, "", "\0", [], {}, ["a"], (1, 2, 3), Path("nowhere")),
    *(np.zeros((2, 2, 3), np.float32), np.zeros((0, 0, 3), np.uint8), lambda: None, range(3), {"a": object()}),
]
LAB: list[Any] = [-1, 1.5, 1e300, float("inf"), "\0", "a" * 5000, [], {}, ["a"], (1, 2, 3), Path("nowhere"), Path()]
FLAGS = ("array", "keep_pixels", "maps", "own_scale", "raw", "resume", "dashboard")  # any value is true or false
VALUES = ("Box", "Emotion", "Face", "KeyPoints", "Reading")  # plain values, which a reader makes


def calls(folder: Path) -> dict[str, tuple[Callable[..., object], dict[str, Any]]]:
    """Every public function and method, with arguments that it accepts."""
    pixels, stream, every = np.zeros((64, 64, 3), np.uint8), io.StringIO(), list(Emotion)
    reader = mien.Reader(detector="none")
    reading, prepared = reader.read(pixels), reader.prepare(pixels)
    of_reader = {"model": "mien-1", "detector": "none", "precision": "int8", "threads": 1, "providers": ("cpu",)}
    of_track = {"source": "nowhere.mp4", "reader": reader, "every": 3, "smooth": 0.5, "forget": 1.0}
    of_track |= {"fps": 25.0, "rate": 1.0, "start": 0.0, "end": 1.0}
    of_distribute = {"sources": "nowhere", "out": folder / "out", "reader": reader, "fps": 1.0, "column": "image"}
    of_distribute |= {"block_bytes": 10**6, "workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    of_distribute |= {"address": None, "progress": lambda *_: None}
    path = folder / "result"
    return {
        "Reader": (
            mien.Reader,
            {**of_reader, "abstain": 0.0, "min_quality": 0.0, "max_bytes": 10**6, "max_pixels": 10**6, "max_faces": 9},
        ),
        "Reader.threshold": (reader.threshold, {"size": 48.0}),
        "Reader.read": (reader.read, {"image": pixels}),
        "Reader.read_many": (
            lambda **given: list(reader.read_many(**given)),
            {"images": [pixels], "batch": 4, "workers": 1},
        ),
        "Reader.prepare": (reader.prepare, {"image": pixels}),
        "Reader.classify": (reader.classify, {"prepared": [prepared]}),
        "Reader.read_at": (reader.read_at, {"image": pixels, "detections": [[0, 0, 9, 9]]}),
        "Reader.read_faces": (reader.read_faces, {"pixels": pixels, "detections": []}),
        "Reading.to_records": (reading.to_records, {"emotions": every}),
        "Face.map": (reading.faces[0].map, {"emotion": "happy", "own_scale": False}),
        "annotate": (mien.annotate, {"pixels": pixels, "reading": reading}),
        "open_detector": (
            mien.open_detector,
            {"name": "none", "threshold": 0.5, "min_face": 20.0, "max_faces": 9, "threads": 1, "providers": ("cpu",)},
        ),
        "track": (lambda **given: list(mien.track(**given)), of_track),
        "distribute": (mien.distribute, of_distribute),
        "AnnotatedImages": (mien.AnnotatedImages, {"folder": path, "roots": ()}),
        "AnnotatedImages.add": (mien.AnnotatedImages(path).add, {"reading": reading}),
        "Csv": (mien.Csv, {"file": stream, "emotions": every}),
        "Csv.add": (mien.Csv(stream, every).add, {"reading": reading}),
        "Html": (mien.Html, {"path": path, "title": "faces", "model": {"name": "mien-1"}, "beside": reader}),
        "Html.add": (mien.Html(path, title="faces", model={}).add, {"reading": reading}),
        "JsonLines": (mien.JsonLines, {"file": stream}),
        "JsonLines.add": (mien.JsonLines(stream).add, {"reading": reading}),
        "Parquet": (mien.Parquet, {"path": path, "emotions": every, "settings": {"model": "mien-1"}}),
        "Parquet.add": (mien.Parquet(path).add, {"reading": reading}),
        "example": (mien.example, {}),
        "to_pandas": (mien.to_pandas, {"readings": [reading], "emotions": every}),
    }


def lab_calls() -> dict[str, tuple[Callable[..., object], dict[str, Any]]]:
    """The functions of the lab that the docs show and its commands use, without those that work on loaded faces."""
    from mien.lab import audit, compare, explain, metrics, models, nets, robustness
    from mien.lab import recipe as recipes
    from mien.lab.data import datasets, find_fer2013, load_fer2013
    from mien.lab.evaluate.evaluate import evaluate
    from mien.lab.evaluate.plots import abstention
    from mien.lab.explain.study import explain_dataset
    from mien.lab.search.space import read_space
    from mien.lab.train.run import load_final

    recipe, nowhere, every = recipes.load("conv4"), Path("nowhere"), tuple(Emotion)
    net, crops = nets.build("lenet", channels=1, classes=7).eval(), np.zeros((2, 48, 48), np.uint8)
    of_maps = {"method": "integrated-gradients", "layer": "features", "size": 0, "steps": 2, "batch_size": 2}
    of_study = {"split": "all", "method": "map", "layer": "features", "faces": 100, "baseline": "blur", "labels": {}}
    return {
        "recipe.load": (recipes.load, {"name_or_path": "conv4", "overrides": ["train.epochs=3"]}),
        "recipe.parse": (recipes.parse, {"table": recipes.dump(recipe), "where": "here"}),
        "nets.build": (nets.build, {"name": "lenet", "channels": 1, "classes": 7}),
        "read_space": (read_space, {"name": "resnet18-64", "overrides": ()}),
        "choose_corruptions": (robustness.choose_corruptions, {"names": ["partial"]}),
        "read_split": (datasets.read_split, {"word": "all"}),
        "read_part": (datasets.read_part, {"word": "all"}),
        "read_map": (datasets.read_map, {"words": ["smile=happy"]}),
        "find_fer2013": (find_fer2013, {"path": "nowhere"}),
        "load_fer2013": (load_fer2013, {"path": "nowhere", "votes": None}),
        "load_faces": (audit.load_faces, {"path": nowhere, "labels": {}}),
        "load_set": (datasets.load_set, {"path": nowhere, "recipe": recipe}),
        "load_test_set": (datasets.load_test_set, {"path": nowhere, "emotions": every, "size": 48, "labels": {}}),
        "open_model": (models.open_model, {"what": "mien-0", "precision": "int8"}),
        "load_final": (load_final, {"folder": nowhere}),
        "compare": (compare.compare, {"models": ["nothing"], "data": nowhere, "split": None}),
        "evaluate": (evaluate, {"model": "nothing", "data": [nowhere]}),
        "explain_dataset": (explain_dataset, {"model": "mien-0", "data": nowhere, **of_study}),
        "run_robustness": (robustness.run_robustness, {"models": ["nothing"], "data": nowhere}),
        "saliency_maps": (explain.saliency_maps, {"net": net, "images": crops, "target": [3, 5], **of_maps}),
        "abstention": (abstention, {"probs": np.full((2, 2), 0.5), "labels": np.array([0, 1])}),
        "compute_metrics": (
            metrics.compute_metrics,
            {"probs": np.full((4, 7), 1 / 7), "labels": np.arange(4), "emotions": every[:7]},
        ),
    }


def sweep(wrong: list[Any], swept: dict[str, tuple[Callable[..., object], dict[str, Any]]]) -> list[str]:
    """What is not a MienError of one short line, with one argument of every call replaced by each of ``wrong``."""
    faults = []
    for name, (call, given) in swept.items():
        for key in given:
            for value in wrong:
                if key == "progress" and callable(value):
                    continue  # its errors are those of the caller's own function
                said = ""
                try:
                    call(**{**given, key: value})
                except MienError as error:
                    said = str(error)
                except Exception as error:
                    said = f"{type(error).__name__}\n{error}"
                if "\n" in said or len(said) > 400:
                    faults.append(f"{name}({key}={type(value).__name__}): {said[:200]}")
    return faults


def test_wrong_arguments_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep(FEW, calls(tmp_path)) == []


@pytest.mark.release
def test_many_wrong_arguments_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep(MANY, calls(tmp_path)) == []


@pytest.mark.parametrize(
    "wrong", [[None, -1, float("nan"), "", "nonsense", b"\0"], pytest.param(LAB, marks=pytest.mark.release)]
)
def test_wrong_arguments_of_the_lab_are_one_clear_line(
    wrong: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="the lab is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIEN_DATA", raising=False)
    assert sweep(wrong, lab_calls()) == []


def test_the_sweep_covers_every_public_function_and_argument(tmp_path: Path) -> None:
    """Except flags, and arguments that have no wrong value."""
    swept = calls(tmp_path)
    public = {name: getattr(mien, name) for name in mien.__all__ if callable(getattr(mien, name))}
    for name, value in public.items():
        if name in VALUES or (inspect.isclass(value) and issubclass(value, Exception)):
            continue
        missing = set(inspect.signature(value).parameters) - set(swept[name][1]) - set(FLAGS)
        assert not missing, f"{name}: {missing}"
