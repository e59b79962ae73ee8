"""`mien explain`: images without torch, runs, data sets, and refusals."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mien._emotions import SEVEN
from mien.bundled import DEFAULT_MODEL
from mien.commands import app
from mien.commands.explain import _file_name
from mien.lab.explain import METHODS
from mien.report.maps import MAP_PAGE
from support.paths import ROOT
from support.written_files import foreign_files

ASTRONAUT = ROOT / "examples" / "astronaut.png"
IGNORED = ("--no-align", "--faces 0", "--baseline mean", "--seed 0", "--again x", "--ledger looks.json")
runner = CliRunner()


def explain(*words: object):
    return runner.invoke(app, ["explain", *map(str, words)])


def test_an_image_is_explained_without_torch(tmp_path: Path) -> None:
    """In an environment where torch, the lab and what it needs cannot be imported."""
    block = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'captum', 'sklearn', 'matplotlib') or name == 'mien.lab':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from mien.__main__ import main\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", block, "explain", str(ASTRONAUT), "--emotion", "sad", "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / MAP_PAGE).read_text("utf-8")
    assert "under the map of happy" in page
    assert "under the map of sad" in page
    assert "under the map of fear" not in page
    with Image.open(tmp_path / "astronaut.maps.mien.png") as image:
        assert image.size[0] > 500
    needs_lab = subprocess.run(
        [*command[:4], "mien-0", "--data", "x"], env=environment, capture_output=True, text=True, check=False
    )
    assert needs_lab.returncode == 2
    assert 'run: pip install "mien[lab]"' in needs_lab.stderr


def test_every_emotion_has_its_map_and_unreadable_images_are_reported(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    done = explain(ASTRONAUT, broken, "--emotion", "all", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "2 images, 1 face, 1 not read" in done.output
    page = (tmp_path / "out" / MAP_PAGE).read_text("utf-8")
    for emotion in SEVEN:
        assert f"under the map of {emotion}" in page
    assert "broken.png" in page
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["astronaut.maps.mien.png", MAP_PAGE]


def test_an_image_without_a_face_has_a_sheet(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), "grey").save(tmp_path / "empty.png")
    assert explain(tmp_path / "empty.png", "--out", tmp_path).exit_code == 0
    assert "No face was found" in (tmp_path / MAP_PAGE).read_text("utf-8")
    with Image.open(tmp_path / "empty.maps.mien.png") as image:
        assert image.size == (136, 116)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name images to explain, or a data set with --data"),
        ([ASTRONAUT, "--method", "gradcam"], "unknown method 'gradcam'; did you mean 'grad-cam'?"),
        (["mien-0", "--data", ROOT, "--baseline", "blr"], "unknown baseline 'blr'; did you mean 'blur'?"),
        ([ASTRONAUT, "--split", "all"], "--split is for a data set"),
        ([ASTRONAUT, "--keep", "kept"], "--keep is for a data set"),
        *(
            ([ASTRONAUT, *words.split()], f"{words.split()[0]} is for a data set; name one with --data")
            for words in IGNORED
        ),
        (["mien-0", "--data", ROOT, "--detector", "none"], "--detector is for images; leave it out"),
        ([ASTRONAUT, "--emotion", "hapy"], "has no emotion 'hapy'; did you mean 'happy'?"),
        (["mien-0", "--data", ASTRONAUT], "is one image; a data set is a folder or a table of labelled faces"),
        (["mien-0", "--data", ROOT, "--split", "Test"], "there is no such split"),
        ([ASTRONAUT, "--method", "grad-cam"], "explain the run, or use the method map"),
        ([ASTRONAUT, "--layer", "features.2"], "needs the torch net of a run"),
        ([ASTRONAUT, "--emotion", "glad"], f"{DEFAULT_MODEL} has no emotion 'glad'"),
        ([ASTRONAUT, "--model", "mien-00"], "unknown model 'mien-00'; did you mean 'mien-0'?"),
        (["mien-0", "mien-0", "--data", "x"], "with --data, name one model"),
        (["mien-0", "--data", "x", "--emotion", "sad"], "--emotion is for images"),
        (["mien-0", "--data", "x", "--method", "grad-cam"], "grad-cam needs the torch net of a run"),
        (["mien-0", "--data", "nowhere"], "nowhere"),
        (["mien-0", "--data", "x", "--map", "glad"], "say LABEL=EMOTION"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = explain(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_named_after_the_model() -> None:
    assert _file_name("mien-0") == "mien-0"
    assert _file_name("runs/conv4/") == "conv4"
    assert _file_name("runs/conv4/seed-0") == "conv4-seed-0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, small enough for a test, on cartoons."""
    from mien.lab.train.devices import Devices
    from mien.lab.train.loop import fit
    from support.synthetic_faces import cartoon_set
    from support.tiny_recipe import tiny

    folder = tmp_path_factory.mktemp("run")
    result = {"commit": "abc", "data_sha256": "0" * 64}
    fit(tiny(train={"epochs": 1}), cartoon_set(), folder, devices=Devices("cpu"), provenance=result)
    return folder


@pytest.fixture(scope="module")
def folder_of_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cartoons in a folder for each emotion, as users store their own data."""
    from support.synthetic_faces import cartoon_set

    root, faces = tmp_path_factory.mktemp("own"), cartoon_set(per_split=(42, 7, 7))
    for row, (image, label) in enumerate(zip(faces.images.numpy(), faces.labels.tolist(), strict=True)):
        path = root / str(SEVEN[label]) / f"{row}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return root


@pytest.mark.parametrize("method", METHODS)
def test_a_run_explains_an_image_by_every_method(run: Path, method: str, tmp_path: Path) -> None:
    done = explain(ASTRONAUT, "--model", run, "--method", method, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    page = (tmp_path / MAP_PAGE).read_text("utf-8")
    assert page.count("under the map of") == 2  # on one scale for all emotions, and on its own
    assert "probabilities as trained" in page


def test_a_layer_that_is_not_there_leaves_nothing(run: Path, tmp_path: Path) -> None:
    done = explain(ASTRONAUT, "--model", run, "--method", "grad-cam", "--layer", "featurs", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "no layer 'featurs'; similar are features" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_label_is_an_error_that_names_the_option(folder_of_faces: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder_of_faces, own)
    (own / "happy").rename(own / "smile")
    done = explain("mien-0", "--data", own, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert 'map the label to an emotion, or to "" to leave its faces out' in done.stderr


@pytest.mark.parametrize(
    ("model", "method"), [pytest.param("mien-0", "map", marks=pytest.mark.release), ("run", "grad-cam")]
)
def test_a_data_set_is_explained(model: str, method: str, run: Path, folder_of_faces: Path, tmp_path: Path) -> None:
    name = run if model == "run" else model
    words = (name, "--data", folder_of_faces, "--method", method, "--faces", 28, "--no-align", "--out", tmp_path)
    words += ("--keep", tmp_path / "kept")
    done = explain(*words)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "explanation.json").read_text())
    assert result["method"] == method
    assert result["faces"]["explained"] == 28
    assert result["alignment"]["how"].startswith("none")
    assert {"model", "attention", "claims", "faithfulness", "randomisation", "provenance"} <= result.keys()
    assert {"command", "commit", "data_sha256", "machine"} <= result["provenance"].keys()
    kept = tmp_path / "kept" / f"{result['model']['model']}.json"
    assert kept.read_bytes() == (tmp_path / "explanation.json").read_bytes()
    assert "Where" in (tmp_path / "report.html").read_text("utf-8")
    assert foreign_files(kept, tmp_path / "explanation.json", tmp_path / "report.html") == []
    first = json.dumps({key: result[key] for key in ("attention", "faithfulness", "randomisation")})
    assert explain(*words).exit_code == 0
    again = json.loads((tmp_path / "explanation.json").read_text())
    assert json.dumps({key: again[key] for key in ("attention", "faithfulness", "randomisation")}) == first
