"""FER-2013 mixed with other sets, and training on custom faces as documented."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import MienError
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, Split, vote_distribution, with_classes
from mien.lab.data.datasets import load_set, mix_sets
from mien.lab.data.selection import training_rows, validation_rows
from mien.lab.data.weighting import targets
from mien.lab.explain.study import explain_dataset
from support.cli import mien_here
from support.custom_datasets import Draw, fill, lines_of, put, recipe, table
from support.fer2013_files import parquet_columns, write_parquet
from support.paths import ROOT
from support.short_runs import ONE_BLOCK
from support.synthetic_faces import cartoon_set


def test_sets_mix_with_weights(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path / "main", SEVEN, draw_face)
    fill(tmp_path / "more" / "test", ["angry", "grin"], draw_face, seed=500_000, size=100)
    fill(tmp_path / "more" / "train", ["angry", "grin"], draw_face, seed=700_000)
    fill(tmp_path / "third", ["fear/ann", "fear/ben"], draw_face, seed=800_000)
    also = (
        f"""data.extra=[{{path="{tmp_path}/more", weight=0.5, labels={{grin="happy"}}}}, {{path="{tmp_path}/third"}}]"""
    )
    chosen = recipe(also, "data.size=64")
    faces, alone = load_set(tmp_path / "main", chosen), load_set(tmp_path / "main", recipe("data.size=64"))
    assert len(faces) == 56 + 32 + 16
    assert faces.images.shape[1:] == (64, 64)
    assert torch.equal(faces.images[:56], alone.images)
    assert torch.equal(faces.usage[:56], alone.usage)
    assert (faces.usage[56:] == 0).all()
    assert faces.weights is not None
    assert faces.weights.tolist() == [1.0] * 56 + [0.5] * 32 + [1.0] * 16
    assert faces.groups is not None
    assert len(set(faces.groups.tolist())) == 56 + 32 + 2
    assert faces.mixed_in is not None
    assert int(faces.mixed_in.sum()) == 48
    assert len(set(faces.rows.tolist())) == len(faces)
    assert faces.sha256 != alone.sha256
    assert "32 faces of" in str(faces.note)
    assert len(validation_rows(faces, chosen)) == len(validation_rows(alone, chosen))
    put(tmp_path / "third" / "fear" / "ann" / "0.png", draw_face(60, seed=1))
    assert load_set(tmp_path / "main", chosen).sha256 != faces.sha256


def test_copies_of_test_faces_are_not_mixed_in(tmp_path: Path, draw_face: Draw) -> None:
    for top, seed in (("train", 0), ("val", 10_000), ("test", 20_000)):
        fill(tmp_path / "main" / top, SEVEN, draw_face, count=4, seed=seed)
    fill(tmp_path / "more", SEVEN, draw_face, count=4, seed=20_000)  # the faces of test/
    also = f'data.extra=[{{path="{tmp_path}/more"}}]'
    assert len(training_rows(load_set(tmp_path / "main", recipe(also)), recipe(also))) == 28
    kept = recipe(also, "data.exclude_leaked=false")
    assert len(training_rows(load_set(tmp_path / "main", kept), kept)) == 56


def test_only_the_faces_of_one_set_have_votes(tmp_path: Path, draw_face: Draw) -> None:
    voted = cartoon_set(per_split=(28, 14, 14))
    own = load_set(fill(tmp_path, SEVEN, draw_face), recipe("target.vote_weight=0"))
    joint = mix_sets(voted, [(own, 2.0)])
    spread = vote_distribution(joint)
    assert torch.equal(spread[: len(voted)], vote_distribution(voted))
    assert float(spread[len(voted) :].sum()) == 0
    mixed = targets(joint, recipe("target.vote_weight=0.5", "target.label_smoothing=0").target)
    assert torch.allclose(mixed.sum(1), torch.ones(len(joint)))
    assert (mixed[len(voted) :].max(1).values == 1).all()


def test_a_set_of_eight_classes_is_mixed_into_fer2013(tmp_path: Path, draw_face: Draw, fer2013_faces: FaceSet) -> None:
    fill(tmp_path / "more", ["contempt", "happy"], draw_face)
    chosen = recipe("data.classes=eight", f'data.extra=[{{path="{tmp_path / "more"}"}}]')
    part = fer2013_faces.select(torch.arange(0, len(fer2013_faces), 50))
    faces = load_set(write_parquet(tmp_path / "part.parquet", parquet_columns(part)), chosen)
    assert faces.emotions == CLASS_SETS["eight"]
    training = training_rows(faces, chosen)
    assert training.labels[-16:].tolist() == [7] * 8 + [1] * 8
    assert len(validation_rows(faces, chosen)) == len(with_classes(part, "eight").split(Split.PUBLIC_TEST)) > 50


@pytest.mark.parametrize(
    ("also", "says"),
    [
        ("{weight=1.0}", "a set has no path"),
        ('{path="more", weight=0.0}', "weight is above 0"),
        ('{path="more", weigth=2.0}', "unknown key 'weigth'; did you mean 'weight'?"),
        ('{path="gone"}', "there is no such file or folder"),
        ('{path="more", labels={grin="hapy"}}', "did you mean 'happy'?"),
    ],
)
def test_bad_mixtures(tmp_path: Path, draw_face: Draw, monkeypatch: pytest.MonkeyPatch, also: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "main", SEVEN, draw_face, count=3)
    fill(tmp_path / "more", ["grin"], draw_face, count=3)
    with pytest.raises(MienError) as caught:
        load_set(Path("main"), recipe(f"data.extra=[{also}]"))
    assert says in str(caught.value)


def test_one_line_trains_on_a_folder(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path / "mine", SEVEN, draw_face)
    tiny = [*ONE_BLOCK, "train.batch_size=8", "train.epochs=1", "train.precision=32-true"]
    done = mien_here("train", "mien-0", *tiny, "--data", "mine", "--out", "run", cwd=tmp_path, MIEN_DATA="")
    assert done.returncode == 0, done.stderr
    assert "validate as PublicTest" in done.stderr
    assert "no FER+ votes" in done.stderr
    assert (tmp_path / "run" / "final.pt").is_file()
    assert '"val_split": "public"' in (tmp_path / "run" / "log.jsonl").read_text()


def test_a_run_on_a_folder_is_tested_on_the_faces_that_it_has_not_learned(tmp_path: Path, draw_face: Draw) -> None:
    folder = fill(tmp_path / "mine", SEVEN, draw_face, count=14)
    tiny = [*ONE_BLOCK, "train.batch_size=8", "train.epochs=1", "train.precision=32-true"]
    assert mien_here("train", "mien-0", *tiny, "--data", "mine", "--out", "run", cwd=tmp_path).returncode == 0
    validated = len(load_set(folder, recipe()).split(Split.PUBLIC_TEST))
    done = mien_here("evaluate", "run", "--data", "mine", "--out", "tested", "--json", cwd=tmp_path)
    words = ("stress", "run", "--data", "mine", "--out", "corrupted", "--only", "jpeg", "--reference", "run", "--json")
    tested = json.loads(done.stdout)
    (corrupted,) = json.loads(mien_here(*words, cwd=tmp_path).stdout)["models"]
    explained = explain_dataset(str(tmp_path / "run"), folder, align=False)
    assert [tested["all"]["n"], corrupted["n"], len(explained.crops)] == [validated] * 3
    loss = corrupted["clean"]["metrics"]["log_loss"]["value"]
    assert loss == pytest.approx(tested["all"]["log_loss"], abs=1e-4)  # both are calibrated on these faces


def test_mistakes_give_one_line_and_status_two(tmp_path: Path, draw_face: Draw) -> None:
    fill(tmp_path / "mine", ["happy", "sad"], draw_face)
    (tmp_path / "mine" / "sad" / "4.png").write_bytes(b"nothing")
    for words, says in ((["mine"], "4.png: not a readable image"), (["mine", "data.labels.glad=happy"], "'glad'")):
        done = mien_here("train", "mien-0", *words[1:], "--data", words[0], cwd=tmp_path, MIEN_DATA="")
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def documented(language: str) -> list[str]:
    page = (ROOT / "docs" / "reference/data.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_recipes_of_the_docs_are_read() -> None:
    blocks = documented("toml")
    assert len(blocks) >= 2
    for block in blocks:
        head = {"name": "shown", "about": "from the docs"}
        recipes.parse({**head, **tomllib.loads(block)}, where="docs/reference/data.md")


def test_the_commands_of_the_docs_run(tmp_path: Path, draw_face: Draw) -> None:
    """Every documented `mien train` runs on drawn faces in the layout of the page, with a tiny net."""
    names = [*(e for e in SEVEN if e is not Emotion.HAPPY), "smile", "other"]
    fill(tmp_path / "my_folder", SEVEN, draw_face, count=5)
    fill(tmp_path / "odd_names", names, draw_face, count=5)
    fill(tmp_path / "more_faces", SEVEN, draw_face, count=3, seed=300_000)
    table(tmp_path, draw_face, lines_of("path,label,split", "images/{n}.png,{emotion},{split}"), name="faces.csv")
    (tmp_path / "bad_rows.txt").write_text("3  # two faces\n\n4\n")
    tiny = [*ONE_BLOCK, "train.batch_size=4", "train.epochs=1", "train.precision=32-true"]
    commands = [line for block in documented("bash") for line in block.splitlines() if line.startswith("mien train")]
    assert len(commands) >= 5
    for number, command in enumerate(commands):
        words = [*shlex.split(command)[1:], *tiny, "--out", f"runs/{number}"]
        done = mien_here(*words, cwd=tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert (tmp_path / "runs" / str(number) / "final.pt").is_file()
