"""How a training is judged on the way: on which views of a face, and after which epochs."""

from pathlib import Path

import pytest
import torch

from mien._errors import RecipeError
from mien.commands.progress import epoch_line
from mien.lab.data import FaceSet
from mien.lab.looks import VIEWS, views_of
from mien.lab.train.fit import Devices, fit, predict
from mien.lab.train.run import load_final
from support.short_runs import short
from support.synthetic_faces import cartoon_set

CPU = Devices("cpu")


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


def test_it_may_judge_the_mean_of_a_face_and_its_mirror_image(faces: FaceSet, tmp_path: Path) -> None:
    records: list[dict] = []
    assert fit(short("optimise.epochs=2", "views=flip"), faces, tmp_path, devices=CPU, report=records.append)
    net, images, labels = load_final(tmp_path).net, faces.images[196:266], faces.labels[196:266]
    probs = (predict(net, images, 48).softmax(1) + predict(net, images.flip(2), 48).softmax(1)) / 2
    assert records[-1]["public_accuracy"] == pytest.approx(float((probs.argmax(1) == labels).float().mean()))
    surprise = -probs.gather(1, labels[:, None]).log().mean()
    assert records[-1]["public_log_loss"] == pytest.approx(float(surprise), rel=1e-4)


@pytest.mark.parametrize("views", ["six", "ten"])
def test_it_may_judge_the_mean_of_more_views(faces: FaceSet, tmp_path: Path, views: str) -> None:
    records: list[dict] = []
    assert fit(short("optimise.epochs=1", f"views={views}"), faces, tmp_path, devices=CPU, report=records.append)
    net, labels = load_final(tmp_path).net, faces.labels[196:266]
    seen = views_of(faces.images[196:266].unsqueeze(1), VIEWS[views])
    probs = torch.stack([predict(net, view.squeeze(1), 48).softmax(1) for view in seen]).mean(0)
    assert records[-1]["public_accuracy"] == pytest.approx(float((probs.argmax(1) == labels).float().mean()))
    surprise = -probs.gather(1, labels[:, None]).log().mean()
    assert records[-1]["public_log_loss"] == pytest.approx(float(surprise), rel=1e-4)


def test_it_may_judge_every_few_epochs_and_after_the_last(faces: FaceSet, tmp_path: Path) -> None:
    records: list[dict] = []
    chosen = short("optimise.epochs=5", "judge=2", "keep=best")
    assert fit(chosen, faces, tmp_path, devices=CPU, report=records.append)
    judged = {r["epoch"]: r["public_accuracy"] for r in records if "public_accuracy" in r}
    assert list(judged) == [2, 4, 5]
    assert "PublicTest" in epoch_line(records[-1])
    kept = load_final(tmp_path).net
    logits = predict(kept, faces.images[196:266], 48)
    right = float((logits.argmax(1) == faces.labels[196:266]).float().mean())
    assert right == pytest.approx(max(judged.values()), abs=0.02)


def test_a_plateau_needs_every_epoch_judged(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="schedule 'plateau' needs a loss of every epoch; leave judge at 1, not 2"):
        fit(short("judge=2", "optimise.schedule=plateau"), faces, tmp_path, devices=CPU)
    with pytest.raises(RecipeError, match="judge is at least 1, not 0"):
        short("judge=0")
