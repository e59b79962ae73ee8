"""The training loop: learning, time limits, kill -9 without losing a bit, validation, and error messages."""

import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mien._errors import DataError, DivergedError, OutputError, RecipeError
from mien.commands._progress import epoch_line
from mien.lab.data import FaceSet
from mien.lab.data.selection import training_rows
from mien.lab.files import CHECKPOINT, PREVIOUS, has_checkpoint, load_state, save_state
from mien.lab.inference import predict, tta_views
from mien.lab.recipe import Recipe, TrainConfig
from mien.lab.train import loop
from mien.lab.train.logging import EpochRecord
from mien.lab.train.loop import fit
from mien.lab.train.run import is_finished, load_final, open_run
from mien.lab.train.schedule import lr_factor
from support.paths import TESTS
from support.short_runs import CPU, LEARNING, short, small, train_and_save_often
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import same, tiny
from support.written_files import foreign_files

SIZE = 24  # of the faces of most trainings here
EPOCHS = 16  # in which the cartoons are learned


def quick(*more: str) -> Recipe:
    return small(f"data.size={SIZE}", *more)


def brief(*more: str) -> Recipe:
    return short(f"data.size={SIZE}", *more)


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


def test_it_learns_the_cartoons(faces: FaceSet, tmp_path: Path) -> None:
    records: list[EpochRecord] = []
    chosen = small(*LEARNING, "data.size=32", "train.lr=0.02", f"train.epochs={EPOCHS}")
    assert fit(chosen, faces, tmp_path, devices=CPU, on_epoch=records.append)
    epochs = records
    assert len(epochs) == EPOCHS
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].val_accuracy > 0.9
    trained = load_final(tmp_path)
    logits = predict(trained.net, faces.images[196:266], 32)
    assert float((logits.argmax(1) == faces.labels[196:266]).float().mean()) == pytest.approx(
        epochs[-1].val_accuracy, abs=0.02
    )
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == EPOCHS
    assert foreign_files(tmp_path) == []


def test_the_share_of_clipped_steps_is_recorded(faces: FaceSet, tmp_path: Path) -> None:
    clipping: dict[str, list[EpochRecord]] = {"0.001": [], "1000": [], "0": []}
    for clip, records in clipping.items():
        chosen = quick(f"train.clip_grad={clip}", "train.epochs=1", "train.warmup=0")
        fit(chosen, faces, tmp_path / clip, devices=CPU, on_epoch=records.append)
    always, never, off = (records[-1] for records in clipping.values())
    assert (always.clipped, never.clipped) == (1.0, 0.0)
    assert math.isnan(off.clipped)
    assert "clipped 100% of the steps" in epoch_line(always)
    assert "clipped" not in epoch_line(never) + epoch_line(off)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_final(folder).net.state_dict()


def test_a_stopped_run_resumes_to_the_same_bits(faces: FaceSet, tmp_path: Path) -> None:
    chosen = tiny(train={"epochs": 4})
    assert fit(chosen, faces, tmp_path / "whole", devices=CPU)
    # The first limit is over before an epoch can start, the next ones let one epoch start and refuse the second.
    for limit in (1e-9, 0.2, 0.2):
        assert not fit(
            chosen, faces, tmp_path / "parts", devices=CPU, time_limit=limit, on_epoch=lambda _: time.sleep(0.2)
        )
    assert fit(chosen, faces, tmp_path / "parts", devices=CPU)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from mien.lab.train import loop
from support.short_runs import CPU
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny
loop.SAVE_EVERY = 0
loop.fit(tiny(train={"epochs": 4}), cartoon_set(), Path(sys.argv[1]), devices=CPU,
         on_epoch=lambda r: print(r, flush=True))
"""


def test_kill_minus_nine_loses_nothing_but_the_epoch(faces: FaceSet, tmp_path: Path) -> None:
    chosen, folder = tiny(train={"epochs": 4}), tmp_path / "killed"
    words = [sys.executable, "-c", KILLED, str(folder), str(TESTS)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if "epoch=2," in line:
            break
    deadline = time.monotonic() + 20
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (folder / "checkpoint.pt").exists()
    assert fit(chosen, faces, folder, devices=CPU)
    assert fit(chosen, faces, tmp_path / "whole", devices=CPU)
    killed, whole = weights(folder), weights(tmp_path / "whole")
    assert all(torch.equal(whole[key], killed[key]) for key in whole)


@pytest.mark.release
@pytest.mark.timeout(1800)
def test_thirty_kills_at_random_moments_change_no_bit(tmp_path: Path) -> None:
    """Six runs, each killed at least five times after its first checkpoint, end with the weights of a whole run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.short_runs"])
    moments, kills = random.Random(0), [0] * 6
    train_and_save_often(tmp_path / "whole")
    for number in range(len(kills)):
        folder = tmp_path / str(number)
        while not (folder / "final.pt").exists():
            process = context.Process(target=train_and_save_often, args=(folder,))
            process.start()
            while process.is_alive() and not has_checkpoint(folder):
                time.sleep(0.001)
            process.join(moments.uniform(0, 0.3) if kills[number] < 5 else None)
            if process.is_alive():
                process.kill()
                process.join()
                kills[number] += 1
        assert same(weights(folder), weights(tmp_path / "whole"))
        written = {path.name for path in folder.iterdir()}
        assert written <= {"log.jsonl", "recipe.json", "final.pt", CHECKPOINT, PREVIOUS}
    print(f"\n{sum(kills)} kills of {len(kills)} runs")
    assert sum(kills) >= 30


def test_a_damaged_checkpoint_costs_an_epoch_and_no_bit(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    assert fit(tiny(), faces, tmp_path / "whole", devices=CPU)
    assert not fit(tiny(), faces, tmp_path / "cut", devices=CPU, time_limit=1e-9)

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny(), faces, tmp_path / "cut", devices=CPU, on_epoch=stop)
    path = tmp_path / "cut" / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    repeated: list[EpochRecord] = []
    assert fit(tiny(), faces, tmp_path / "cut", devices=CPU, on_epoch=repeated.append)
    assert [record.epoch for record in repeated] == [2, 3]
    assert caplog.text.count("going on from the checkpoint before it") == 1
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


@pytest.fixture(scope="module")
def begun(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of its first epoch, and the `final.pt` of the same recipe."""
    folder = tmp_path_factory.mktemp("begun")
    fit(tiny(), faces, folder, devices=CPU)
    state = load_state(folder / CHECKPOINT)
    save_state(folder / CHECKPOINT, state | {"epoch": 1, "history": state["history"][:1]})
    return folder


SELDOM = [pytest.param(wrong, marks=pytest.mark.release) for wrong in (True, [1], {"a": 1})]


@pytest.mark.parametrize("wrong", [None, -5, "x", {"a": torch.zeros(2)}, *SELDOM])
def test_a_wrong_value_in_a_file_is_one_clear_line(wrong: object, begun: Path, faces: FaceSet, tmp_path: Path) -> None:
    """Also where the checksum is right. Such a file neither ends in another error nor trains on in silence."""
    state, final = load_state(begun / CHECKPOINT), load_state(begun / "final.pt")
    for key in state:
        save_state(tmp_path / CHECKPOINT, state | {key: wrong})
        with pytest.raises(DataError, match=r"damaged|another recipe|other faces"):
            open_run(
                tiny(), tmp_path, device=torch.device("cpu"), class_weights=torch.ones(7), data_sha256=faces.sha256
            ).start_segment()
    for key in ("recipe", "net", "history", "provenance"):
        if isinstance(wrong, dict) and key == "provenance":
            continue
        save_state(tmp_path / "final.pt", final | {key: wrong})
        with pytest.raises((DataError, RecipeError), match=r"damaged|unknown key"):
            load_final(tmp_path)


def test_the_final_file_of_another_recipe_does_not_count(begun: Path, faces: FaceSet, tmp_path: Path) -> None:
    other = tiny(train={"lr": 0.01})
    assert fit(other, faces, tmp_path, devices=CPU)
    final = (tmp_path / "final.pt").read_bytes()
    (tmp_path / "final.pt").write_bytes((begun / "final.pt").read_bytes())
    assert not is_finished(tmp_path, other, faces.sha256)
    assert fit(other, faces, tmp_path, devices=CPU)  # written again from the checkpoint
    assert (tmp_path / "final.pt").read_bytes() == final


def test_the_provenance_is_that_of_all_commands(faces: FaceSet, tmp_path: Path) -> None:
    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    first, second, third = ({"commit": commit, "machine": "ours", "data_sha256": faces.sha256} for commit in "abc")
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(), faces, tmp_path, devices=CPU, provenance=first, on_epoch=stop)
    fit(tiny(), faces, tmp_path, devices=CPU, provenance=second)
    joined = first | {"commit": "a; b", "train_precision": "32-true"}
    assert load_final(tmp_path).provenance == joined
    (tmp_path / "final.pt").unlink()
    fit(tiny(), faces, tmp_path, devices=CPU, provenance=third)  # writes the file again, and trains nothing
    assert load_final(tmp_path).provenance == joined


def test_other_content_of_a_file_that_the_recipe_names_is_another_training(faces: FaceSet, tmp_path: Path) -> None:
    listed = tmp_path / "bad.txt"
    listed.write_text("1\n")
    chosen, run = tiny(data={"exclude": str(listed)}, train={"epochs": 1}), tmp_path / "run"
    fit(chosen, faces, run, devices=CPU)
    assert is_finished(run, chosen, faces.sha256)
    listed.write_text("1\n2\n")
    assert not is_finished(run, chosen, faces.sha256)
    with pytest.raises(DataError, match=r"holds a run with another content of .*bad.txt; name another folder"):
        fit(chosen, faces, run, devices=CPU)
    for name in (CHECKPOINT, "final.pt"):  # as older versions wrote them
        state = load_state(run / name)
        save_state(run / name, {key: value for key, value in state.items() if key not in ("inputs", "provenances")})
    assert is_finished(run, chosen, faces.sha256)
    assert fit(chosen, faces, run, devices=CPU)


def test_two_runs_into_one_folder_are_locked_out(faces: FaceSet, tmp_path: Path) -> None:
    def start_another(_: EpochRecord) -> None:
        with pytest.raises(OutputError, match=f"process {os.getpid()} writes here"):
            fit(tiny(seed=1), faces, tmp_path, devices=CPU)

    assert fit(tiny(), faces, tmp_path, devices=CPU, on_epoch=start_another)
    with pytest.raises(DataError, match="another recipe"):
        fit(tiny(seed=1), faces, tmp_path, devices=CPU)


def test_a_finished_run_is_not_changed(faces: FaceSet, tmp_path: Path) -> None:
    chosen = quick("train.epochs=1")
    assert fit(chosen, faces, tmp_path, devices=CPU, provenance={"command": "first"})
    final = (tmp_path / "final.pt").read_bytes()
    assert fit(chosen, faces, tmp_path, devices=CPU, provenance={"command": "second"})
    assert (tmp_path / "final.pt").read_bytes() == final


def test_a_folder_of_another_recipe_is_refused(faces: FaceSet, tmp_path: Path) -> None:
    fit(quick("train.epochs=1"), faces, tmp_path, devices=CPU)
    with pytest.raises(DataError, match="another recipe"):
        fit(quick("train.epochs=2"), faces, tmp_path, devices=CPU)


def test_a_calibration_may_be_changed_later(faces: FaceSet, tmp_path: Path) -> None:
    """The calibration does not change the training: a run resumes, and a finished run stays as it is."""
    assert not fit(quick("train.epochs=2"), faces, tmp_path, devices=CPU, time_limit=0.001)
    assert fit(quick("train.epochs=2", "calibration=temperature"), faces, tmp_path, devices=CPU)
    final = (tmp_path / "final.pt").read_bytes()
    assert fit(quick("train.epochs=2"), faces, tmp_path, devices=CPU)
    assert (tmp_path / "final.pt").read_bytes() == final


def test_divergence_keeps_the_last_checkpoint(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"lower train\.lr"):
        fit(quick("train.lr=1e30", "train.epochs=3", "train.warmup=0.01"), faces, tmp_path, devices=CPU)


def test_a_folder_that_cannot_be_written_is_one_clear_line(faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        fit(quick("train.epochs=1"), faces, tmp_path / "file" / "run", devices=CPU)


def test_missing_and_damaged_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train the run first"):
        load_final(tmp_path)
    (tmp_path / "final.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(DataError, match="damaged"):
        load_final(tmp_path)


def test_a_student_learns_from_its_teacher(faces: FaceSet, tmp_path: Path) -> None:
    fit(quick("train.epochs=2"), faces, tmp_path / "teacher", devices=CPU)
    student = quick("train.epochs=2", "target.distillation=1.0", f'target.teachers=["{tmp_path / "teacher"}"]')
    assert fit(student, faces, tmp_path / "student", devices=CPU)
    with pytest.raises(DataError, match="train the run first"):
        fit(
            quick("target.distillation=1.0", f'target.teachers=["{tmp_path / "none"}"]'),
            faces,
            tmp_path / "x",
            devices=CPU,
        )


def test_leaked_rows_are_left_out_on_the_full_set_before_classes_are_chosen(faces: FaceSet) -> None:
    images = faces.images.clone()
    images[0] = images[200]  # a Training row of class angry that also occurs in PublicTest
    leaky = replace(faces, images=images)
    assert len(training_rows(leaky, quick())) == 195
    assert len(training_rows(leaky, quick("data.exclude_leaked=false"))) == 196
    assert len(training_rows(leaky, quick("data.classes=three"))) == 3 * 28 - 1
    with pytest.raises(DataError, match="make no batch"):
        training_rows(leaky, quick("train.batch_size=500"))


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    choice = TrainConfig(lr=0.1, warmup=0.1)
    assert [lr_factor(choice, at, []) for at in (0.05, 0.1, 0.55, 1.0)] == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_validation_may_average_a_face_and_its_mirror_image(faces: FaceSet, tmp_path: Path) -> None:
    records: list[EpochRecord] = []
    assert fit(brief("train.epochs=2", "tta=flip"), faces, tmp_path, devices=CPU, on_epoch=records.append)
    net, images, labels = load_final(tmp_path).net, faces.images[196:266], faces.labels[196:266]
    probs = (predict(net, images, SIZE).softmax(1) + predict(net, images.flip(2), SIZE).softmax(1)) / 2
    assert records[-1].val_accuracy == pytest.approx(float((probs.argmax(1) == labels).float().mean()))
    surprise = -probs.gather(1, labels[:, None]).log().mean()
    assert records[-1].val_log_loss == pytest.approx(float(surprise), rel=1e-4)


@pytest.mark.parametrize("views", ["six", "ten"])
def test_validation_may_average_more_views(faces: FaceSet, tmp_path: Path, views: str) -> None:
    records: list[EpochRecord] = []
    assert fit(brief("train.epochs=1", f"tta={views}"), faces, tmp_path, devices=CPU, on_epoch=records.append)
    net, labels = load_final(tmp_path).net, faces.labels[196:266]
    seen = tta_views(faces.images[196:266].unsqueeze(1), views)
    probs = torch.stack([predict(net, view.squeeze(1), SIZE).softmax(1) for view in seen]).mean(0)
    assert records[-1].val_accuracy == pytest.approx(float((probs.argmax(1) == labels).float().mean()))
    surprise = -probs.gather(1, labels[:, None]).log().mean()
    assert records[-1].val_log_loss == pytest.approx(float(surprise), rel=1e-4)


def test_it_may_validate_every_few_epochs_and_after_the_last(faces: FaceSet, tmp_path: Path) -> None:
    records: list[EpochRecord] = []
    chosen = brief("train.epochs=5", "validate_every=2", "checkpoint=best")
    assert fit(chosen, faces, tmp_path, devices=CPU, on_epoch=records.append)
    validated = {r.epoch: r.val_accuracy for r in records if r.val_split}
    assert list(validated) == [2, 4, 5]
    assert "PublicTest" in epoch_line(records[-1])
    net = load_final(tmp_path).net
    logits = predict(net, faces.images[196:266], SIZE)
    right = float((logits.argmax(1) == faces.labels[196:266]).float().mean())
    assert right == pytest.approx(max(validated.values()), abs=0.02)


def test_a_plateau_needs_validation_after_every_epoch(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="schedule 'plateau' needs a validation loss after every epoch"):
        fit(brief("validate_every=2", "train.schedule=plateau"), faces, tmp_path, devices=CPU)
    with pytest.raises(RecipeError, match=r"validate_every is in \[1, inf\), not 0"):
        brief("validate_every=0")
