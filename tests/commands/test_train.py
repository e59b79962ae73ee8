"""`mien train` and `mien export`: a small run, its resumption, and mistakes."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorboardX.proto.event_pb2 import Event

from mien._errors import MissingExtraError, RecipeError
from mien.lab import recipe as recipes
from mien.lab.files import save_state
from mien.lab.train.devices import Devices
from mien.lab.train.logging import EpochRecord, ExperimentLoggers, write_log
from mien.lab.train.run import build_net
from support.cli import mien_here
from support.encoded_images import encode
from support.short_runs import FAMILY, ONE_BLOCK_RECIPE
from support.synthetic_faces import cartoon_folder, cartoon_set


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "mien-00"], "unknown recipe 'mien-00'; did you mean 'mien-0'?"),
        (["train", "mien-1"], "mien-1 is no recipe, but the mean of 2 runs, trained with: mien train mien-0"),
        (["train", "mien-0", "train.epoch=3"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["train", "mien-0", "--data", "nowhere"], "nowhere"),
        (["export", "nowhere", "--out", "x"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_status_two(words: list[str], message: str, tmp_path: Path) -> None:
    done = mien_here(*words, cwd=tmp_path, MIEN_DATA="")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_data_says_how_to_get_it(tmp_path: Path) -> None:
    done = mien_here("train", "mien-0", cwd=tmp_path, MIEN_DATA="")
    assert done.returncode == 2
    assert "MIEN_DATA" in done.stderr


def test_a_data_set_with_wrong_counts_is_refused(tmp_path: Path) -> None:
    faces = cartoon_set()
    usage = ["Training", "PublicTest", "PrivateTest"]

    table = {
        "image": [encode(image.numpy()) for image in faces.images],
        "label": pa.array(faces.labels.tolist(), pa.uint8()),
        "usage": [usage[i] for i in faces.usage.tolist()],
    }
    pq.write_table(pa.table(table), tmp_path / "small.parquet")
    done = mien_here("train", "mien-0", "--data", "small.parquet", cwd=tmp_path)
    assert done.returncode == 2
    assert "official=False" in done.stderr or "28,709" in done.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A custom folder of labelled images beside the recipe of a family."""
    root = tmp_path_factory.mktemp("own")
    (root / "pair.toml").write_text(FAMILY)
    cartoon_folder(root / "faces")
    return root


def test_a_family_is_trained_once_member_by_member(images: Path) -> None:
    words = ["train", "pair.toml", "--data", "faces", "--device", "cpu"]
    done = mien_here(*words, cwd=images)
    assert done.returncode == 0, done.stderr
    runs = [images / "runs" / "pair" / member / "seed-0" for member in ("slow", "fast")]
    for run in runs:
        found = {path.name for path in run.iterdir()}
        assert found == {"checkpoint.pt", "curves.png", "final.pt", "log.jsonl", "recipe.json"}
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["pair/slow", "pair/fast"]
    assert "PublicTest" in done.stdout
    assert done.stderr.count("no validation split") == 1
    has_bf16 = Devices("cpu").precision("bf16-mixed") == "bf16-mixed"
    assert done.stderr.count("no bf16 instructions; the net is trained in fp32") == (0 if has_bf16 else 1)
    assert "Automatic Mixed Precision" not in done.stderr
    finals = [(run / "final.pt").read_bytes() for run in runs]
    again = mien_here(*words, cwd=images)
    assert again.returncode == 0
    assert again.stdout.count("finished already") == 2
    assert "epoch" not in again.stderr
    assert [(run / "final.pt").read_bytes() for run in runs] == finals


@pytest.mark.parametrize("name", ["../../../outside", "/tmp/outside", "a//b", ".hidden", "a\\b", "", "x" * 200])
def test_a_name_that_leaves_the_folder_of_runs_is_refused(name: str, images: Path) -> None:
    text = FAMILY.partition("[grid")[0].replace('"pair"', json.dumps(name))
    (images / "named.toml").write_text(text)
    done = mien_here("train", "named.toml", "--data", "faces", "--device", "cpu", cwd=images)
    assert done.returncode == 2
    assert "names folders" in done.stderr


def test_a_trial_is_not_recorded_as_its_recipe(images: Path) -> None:
    (images / "named.toml").touch()
    recipe = recipes.load("lenet", ["data.fraction=0.1"])
    state = {"recipe": recipes.dump(recipe), "net": build_net(recipe).state_dict(), "history": [], "provenance": {}}
    save_state(images / "trial" / "final.pt", state)
    done = mien_here("record", "trial", "--data", "faces", cwd=images)
    assert done.returncode == 2
    assert "changes its recipe lenet (data.fraction=0.1); name another folder with --out" in done.stderr
    assert not (images / "results").exists()
    for command in ("record", "export"):  # an impossible folder is noticed before the data, which is not there
        done = mien_here(command, "trial", "--data", "nowhere", "--out", "named.toml/x", cwd=images)
        assert done.returncode == 2
        assert "named.toml/x: cannot be written" in done.stderr
        done = mien_here(command, "trial", "--out", "new", "--device", "openvino", cwd=images)
        assert done.returncode == 2
        assert "--device openvino: the net of a run is evaluated on one of auto, cpu, cuda, mps" in done.stderr


def test_sigterm_prints_how_to_resume_and_loses_no_finished_epoch(images: Path) -> None:
    """As Ctrl-C, which has the same handler."""
    words = [
        "train",
        "pair.toml/fast",
        "train.epochs=400",
        "--data",
        "faces",
        "--device",
        "cpu",
        "--out",
        "cut",
    ]
    command = [sys.executable, "-m", "mien", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(command, cwd=images, text=True, **pipes)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("epoch 3 "):
            break
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate()
    assert child.returncode == 143
    assert "the same command resumes" in errors
    assert "Traceback" not in errors
    epochs = len((images / "cut" / "log.jsonl").read_text().splitlines())
    assert epochs >= 3
    assert (images / "cut" / "checkpoint.pt").is_file()
    assert not list((images / "cut").glob(".*"))  # no part of a file, no lock
    assert (images / "cut" / "curves.png").is_file()
    more = mien_here(*words, "--time-limit", "0.001", cwd=images)
    assert more.returncode == 0
    assert "stopped at the time limit" in more.stdout
    assert len((images / "cut" / "log.jsonl").read_text().splitlines()) == epochs
    other = mien_here(*words[:2], "--data", "faces", "--device", "cpu", "--out", "cut", cwd=images)
    assert other.returncode == 2
    assert "another recipe" in other.stderr


def epoch(number: int, loss: float) -> EpochRecord:
    return EpochRecord(epoch=number, loss=loss, accuracy=0.5, lr=0.1, val_split="public", val_accuracy=0.4)


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Step and value of what TensorBoard's files hold (records of length, checksum, message, checksum)."""
    found = []
    for path in sorted(folder.glob("events*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
            content = content[16 + length :]
    return sorted(found)


@pytest.mark.filterwarnings("ignore:.*noload.*")  # of SQLAlchemy, at what MLflow asks of it
def test_a_resumed_run_continues_the_same_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    chosen = recipes.load("mien-0")
    write_log(tmp_path, [epoch(1, 3.0)])  # trained before the logs were requested
    for number, loss in ((2, 2.0), (3, math.nan), (4, 1.0)):
        logs = ExperimentLoggers(["tensorboard", "mlflow"], chosen, tmp_path)
        logs.on_epoch(epoch(number, loss))
        logs.finished = number == 4
        logs.close()
    run = (tmp_path / "mlflow-run.txt").read_text().strip()
    client = MlflowClient("sqlite:///mlflow.db")
    losses = [(metric.step, metric.value) for metric in client.get_metric_history(run, "loss")]
    assert losses == [(1, 3.0), (2, 2.0), (4, 1.0)]
    assert client.get_run(run).info.status == "FINISHED"
    assert client.get_run(run).data.params["train.batch_size"] == "256"
    assert points(tmp_path / "tensorboard", "loss") == [(1, 3.0), (2, 2.0), (4, 1.0)]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")  # resumed from another folder
    logs = ExperimentLoggers(["mlflow"], chosen, tmp_path)
    logs.on_epoch(epoch(5, 0.5))
    logs.close()
    run = (tmp_path / "mlflow-run.txt").read_text().strip()
    assert [each.step for each in MlflowClient("sqlite:///other.db").get_metric_history(run, "loss")][-1] == 5


def test_loggers_are_checked_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="did you mean 'mlflow'"):
        ExperimentLoggers(["mlflo"], recipes.load("mien-0"), tmp_path)
    monkeypatch.setattr("mien.lab.train.logging.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"mien\[track\]"):
        ExperimentLoggers(["tensorboard"], recipes.load("mien-0"), tmp_path)


def test_folds_are_trained_and_recorded_with_two_commands(tmp_path: Path) -> None:
    cartoon_folder(tmp_path / "faces")
    (tmp_path / "block.toml").write_text(f'name = "block"\n{ONE_BLOCK_RECIPE}')
    words = ("train", "block.toml", "train.epochs=1", "--folds", "2", "--data", "faces", "--device", "cpu")
    done = mien_here(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "block" / "folds-seed-0"
    assert sorted(path.name for path in run.iterdir()) == ["fold-0", "fold-1"]
    assert mien_here(*words, cwd=tmp_path).stdout.count("finished already") == 2
    done = mien_here("record", str(run), "--data", "faces", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "block, 2 folds: " in done.stdout
    assert (tmp_path / "results" / "block" / "folds-seed-0" / "metrics.json").is_file()
    refused = mien_here("record", str(run), "--data", "faces", "--final", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "folds have no PrivateTest" in refused.stderr
    refused = mien_here("train", "block.toml", "--folds", "1", "--data", "faces", cwd=tmp_path)
    assert "data.folds is 0, for none, or at least 2" in refused.stderr
