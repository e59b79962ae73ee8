"""`mien stress` on a custom folder, on several models, with groups, and with mistakes; --json of it and its like."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from mien._emotions import SEVEN
from mien.commands import app
from mien.lab.files import load_json
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files


@pytest.fixture
def mien(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """The command line in this process: torch is imported once for all tests."""

    def run(*words: str) -> Result:
        monkeypatch.setattr("sys.argv", ["mien", *words])
        return CliRunner().invoke(app, words)

    monkeypatch.setenv("MIEN_DATA", "")
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder of 14 training and 84 validation cartoons, and a table of their groups."""
    faces = cartoon_set(per_split=(14, 84, 0))
    root = tmp_path_factory.mktemp("drawn") / "faces"
    rows = []
    for row, (image, label, usage) in enumerate(zip(faces.images, faces.labels, faces.usage, strict=True)):
        name = f"{('train', 'val')[int(usage)]}/{SEVEN[int(label)]}/{row:05d}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(root / name)
        rows.append((name, "left" if row % 14 < 7 else "right", "rare" if row % 20 == 0 else ""))
    with (root.parent / "groups.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "hand", "kind"), *rows])
    return root


@pytest.mark.parametrize(
    "words",
    [
        ("stress", "mien-0", "--split", "all", "--faces", "7", "--only", "jpeg"),
        ("explain", "mien-0", "--split", "all", "--faces", "20", "--no-align"),
        ("compare", "mien-0", "mien-plus", "--split", "all", "--no-latency"),
    ],
)
def test_unreadable_images_are_skipped_on_request(
    words: tuple[str, ...], mien: Callable[..., Result], drawn: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawn / "train", tmp_path / "faces")
    (tmp_path / "faces" / "sad" / "bad.png").write_bytes(b"")
    refused = mien(*words, "--data", "faces", "--out", "out")
    assert (refused.exit_code, "1 of 15 images is unreadable" in refused.stderr) == (2, True)
    done = mien(*words, "--data", "faces", "--out", "out", "--skip-unreadable")
    assert "1 of 15 images is unreadable and left out" in done.stderr, done.stderr
    assert done.exit_code == 0, done.stderr


PRINTED = {
    "stress": ("mien-0", "--split", "all", "--faces", "7", "--only", "jpeg"),
    "explain": ("mien-0", "--split", "all", "--faces", "7", "--no-align"),
    "compare": ("mien-0", "mien-plus", "--split", "all", "--no-latency"),
    "evaluate": ("mien-0",),
    "audit": ("--exclude", "blank"),
}


def test_every_command_that_writes_json_is_swept() -> None:
    commands = typer.main.get_group(app).commands.items()
    both = {name for name, command in commands if {"as_json", "out"} <= {each.name for each in command.params}}
    assert both - {"predict", "track"} == PRINTED.keys()


@pytest.mark.parametrize("command", PRINTED)
def test_json_on_standard_output_is_the_file(
    command: str, mien: Callable[..., Result], drawn: Path, tmp_path: Path
) -> None:
    data = (str(drawn / "train"),) if command == "audit" else ("--data", str(drawn / "train"))
    done = mien(command, *data, *PRINTED[command], "--json", "--out", "out")
    assert done.exit_code == 0, done.stderr
    (written,) = (tmp_path / "out").glob("*.json")
    assert json.loads(done.stdout) == load_json(written)


def test_a_report_metrics_and_a_table_are_written(mien: Callable[..., Result], drawn: Path, tmp_path: Path) -> None:
    only = ("--only", "jpeg", "--only", "cover-mouth")
    groups = ("--groups", str(drawn.parent / "groups.csv"), "--keep", "recorded")
    done = mien("stress", "mien-0", "--data", str(drawn), *only, *groups, "--out", "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("mien-0: 84 faces, clean accuracy ")
    assert "mCE 100.0 % of mien-0's" in done.stdout
    assert "cover-mouth: from" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "stress.json", "stress.csv"}
    assert foreign_files(tmp_path / "out", tmp_path / "recorded") == []
    result = json.loads((tmp_path / "out" / "stress.json").read_text())
    assert result["provenance"]["command"].startswith("mien stress mien-0 --data .../faces")
    (model,) = result["models"]
    assert list(model["corrupted"]) == ["jpeg", "cover-mouth"]
    assert [len(five) for five in model["corrupted"].values()] == [5, 5]
    assert {group["n"] for group in model["groups"]["hand"]["groups"].values()} == {42}
    assert (model["groups"]["kind"]["small"], model["groups"]["kind"]["missing"]) == ({"rare": 4}, 80)
    rows = list(csv.DictReader((tmp_path / "out" / "stress.csv").read_text().splitlines()))
    assert len(rows) == 1 + 10
    assert float(rows[0]["accuracy"]) == model["clean"]["metrics"]["accuracy"]["value"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Examples of the corruptions" in page
    assert "kind: fewer than 30 faces, not evaluated: rare (4)." in page

    command = ("stress", "mien-0", "--data", str(drawn), "--only", "jpeg", "--faces", "35", "--out", "again")
    again = mien(*command, "--reference", "recorded/mien-0.json")
    assert again.exit_code == 0, again.stderr
    assert "35 faces" in again.stdout
    assert "mCE 100.0 %" in again.stdout
    other = mien(*command, "--reference", "recorded/mien-0.json", "--seed", "1")
    assert other.exit_code == 2
    assert "mien-0 was tested on another seed; name a model instead" in other.stderr


def test_steadiness_is_printed_and_kept(mien: Callable[..., Result], drawn: Path, tmp_path: Path) -> None:
    command = ("stress", "--steady", "mien-0", "--data", str(drawn), "--faces", "7", "--only", "jpeg", "--out", "out")
    done = mien(*command, "--keep", "kept")
    assert done.exit_code == 0, done.stderr
    printed = dict(line.split("\t") for line in done.stdout.splitlines() if "\t" in line)
    (found,) = [model["steadiness"] for model in json.loads((tmp_path / "kept/mien-0.json").read_text())["models"]]
    assert printed["calibration error at 20 px"] == f"{found['sizes']['20']['ece']:.3f}"
    assert printed["top emotion changed by jitter"].startswith(f"{100 * found['flip_rate']:.1f} %")
    assert printed["faces; of these moved"] == "84; 7, 10 times each"
    assert printed["size of the file"] == "1.62 MB"
    assert (found["n"], found["moved"], list(found["sizes"])) == (84, 7, ["16", "20", "24", "32", "48"])
    assert "Steadiness" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mien-00"], "did you mean 'mien-0'?"),
        (["mien-0", "--only", "jepg"], "did you mean 'jpeg'"),
        (["mien-0", "--split", "publictst"], "did you mean 'PublicTest'"),
        (["mien-0", "--split", "PrivateTest"], "has no rows in PrivateTest; it has Training, PublicTest"),
        (["mien-0", "mien-0"], "mien-0 is named twice"),
        (["mien-0", "--groups", "nowhere.csv"], "nowhere.csv: no such file"),
        (["mien-0", "--reference", "nowhere.json"], "nowhere.json: not a robustness file"),
        (["mien-0", "--map", "joy"], "say LABEL=EMOTION"),
    ],
)
def test_mistakes_are_one_line_and_status_two(
    words: list[str], says: str, mien: Callable[..., Result], drawn: Path, tmp_path: Path
) -> None:
    done = mien("stress", *words, "--data", str(drawn), "--out", "out")
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
