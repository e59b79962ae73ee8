"""Teachers, live and cached: predictions, shares, and files that are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch.nn import functional
from typer.testing import CliRunner

from mien._emotions import SEVEN
from mien._errors import DataError, OutputError
from mien._framing import FER2013
from mien.commands.runs import logits_command
from mien.infer import Classifier, find_model
from mien.lab.augment import mix
from mien.lab.data import FaceSet
from mien.lab.data.datasets import load_set
from mien.lab.data.weighting import targets
from mien.lab.export.onnx import contract_metadata, export_fp32
from mien.lab.inference import normalise, predict, tta_views
from mien.lab.recipe import Recipe, TargetConfig
from mien.lab.train.distillation import CachedLogits, Teachers, cache_logits
from mien.lab.train.loop import fit
from mien.lab.train.run import Trained, load_final
from support.random_nets import CALIBRATION, PROVENANCE, variant
from support.short_runs import CPU, short, training, two_runs
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 14, 7))


@pytest.fixture(scope="module")
def folders(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return two_runs(tmp_path_factory.mktemp("teachers"), faces)


@pytest.fixture(scope="module")
def trained(folders: list[Path]) -> list[Trained]:
    return [load_final(folder) for folder in folders]


def opened(*teachers: Path, teach: float = 1.0, temperature: float = 1.0) -> Teachers:
    choice = TargetConfig(distillation=teach, teachers=tuple(map(str, teachers)), distillation_temperature=temperature)
    return Teachers(student(choice), CPU.launch("32-true"), SEVEN)


def student(target: TargetConfig) -> Recipe:
    return Recipe(name="student", about="", target=target)


def probabilities(teacher: Trained, images: torch.Tensor) -> torch.Tensor:
    return predict(teacher.net, images, 48).softmax(dim=1)


def cached(folder: Path, teachers: list[Trained], faces: FaceSet, tta: str = "none") -> Path:
    path = folder / f"logits-{len(teachers)}-{tta}.npz"
    cache_logits(teachers, training(faces), tta=tta).save(path)
    return path


# The file


def test_logits_survive_their_file(trained: list[Trained], faces: FaceSet, tmp_path: Path) -> None:
    stored = cache_logits(trained, training(faces), tta="flip", batch_size=32)
    stored.save(tmp_path / "a.npz")
    assert foreign_files(tmp_path) == []
    loaded = CachedLogits.load(tmp_path / "a.npz")
    assert loaded.logits.dtype == np.float16
    assert loaded.logits.shape == (70, 2, 7)
    assert np.array_equal(loaded.logits, stored.logits)
    assert loaded.rows.tolist() == list(range(70))
    assert (loaded.emotions, loaded.data_sha256) == (SEVEN, faces.sha256)
    assert loaded.teachers == ("mien-plain", "mien-plain")


def test_the_probabilities_of_several_teachers_are_averaged(trained: list[Trained], faces: FaceSet) -> None:
    ours = training(faces)
    expected = torch.stack([probabilities(teacher, ours.images) for teacher in trained]).mean(0)
    given = cache_logits(trained, ours).probabilities(ours, 1.0, source="x")
    torch.testing.assert_close(given, expected, atol=1e-3, rtol=0)  # float16
    assert (probabilities(trained[0], ours.images) - expected).abs().max() > 0.01


def test_progress_is_counted_in_faces(trained: list[Trained], faces: FaceSet) -> None:
    done: list[tuple[int, int]] = []
    cache_logits(trained[:1], training(faces), batch_size=32, progress=lambda _, n, total: done.append((n, total)))
    assert done == [(32, 70), (64, 70), (70, 70)]


def test_two_views_are_the_face_and_its_mirror_image(trained: list[Trained], faces: FaceSet) -> None:
    ours = training(faces)
    logits = torch.from_numpy(cache_logits(trained[:1], ours, tta="flip").logits).float()
    for view, images in enumerate((ours.images, ours.images.flip(2))):
        expected = probabilities(trained[0], images)
        torch.testing.assert_close(logits[:, view].softmax(dim=1), expected, atol=1e-3, rtol=0)
    mean = cache_logits(trained[:1], ours, tta="flip").probabilities(ours, 1.0, source="x")
    torch.testing.assert_close(mean, logits.softmax(dim=2).mean(dim=1))


def test_ten_views_are_five_crops_and_their_mirror_images(trained: list[Trained], faces: FaceSet) -> None:
    x = torch.arange(48.0 * 48).view(1, 1, 48, 48)
    seen = tta_views(x, "ten")
    assert {view.shape for view in seen} == {(1, 1, 44, 44)}
    assert [int(view[0, 0, 0, 0]) for view in seen[::2]] == [0, 4, 4 * 48, 4 * 48 + 4, 2 * 48 + 2]
    assert all(torch.equal(a.flip(3), b) for a, b in zip(seen[::2], seen[1::2], strict=True))
    ours = training(faces)
    crop = ours.images[:, None, :44, 4:].float() / 255
    with torch.no_grad():
        expected = trained[0].net(normalise(crop, 48)).softmax(dim=1)
    logits = torch.from_numpy(cache_logits(trained[:1], ours, tta="ten").logits).float()
    torch.testing.assert_close(logits[:, 2].softmax(dim=1), expected, atol=1e-3, rtol=0)


def test_six_views_are_three_sizes_and_their_mirror_images() -> None:
    x = torch.arange(2 * 48.0 * 48).view(2, 1, 48, 48).to(torch.uint8)
    seen = tta_views(x, "six")
    assert [view.shape[-1] for view in seen] == [48, 48, 44, 44, 52, 52]
    assert torch.equal(seen[0], x)
    assert torch.equal(seen[2], x[:, :, 2:46, 2:46])
    assert torch.equal(seen[4], functional.pad(x.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8))
    assert all(torch.equal(a.flip(3), b) for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_temperature_softens_each_view(trained: list[Trained], faces: FaceSet) -> None:
    ours = training(faces)
    expected = (predict(trained[0].net, ours.images, 48) / 4).softmax(dim=1)
    given = cache_logits(trained[:1], ours).probabilities(ours, 4.0, source="x")
    torch.testing.assert_close(given, expected, atol=1e-3, rtol=0)


def test_cached_logits_find_their_faces_in_any_order(trained: list[Trained], faces: FaceSet) -> None:
    ours = training(faces)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    shuffled = cache_logits(trained[:1], ours.select(order))
    some = ours.select(torch.tensor([5, 60, 5, 0]))
    straight = cache_logits(trained[:1], some).probabilities(some, 1.0, source="x")
    torch.testing.assert_close(shuffled.probabilities(some, 1.0, source="x"), straight, atol=1e-3, rtol=0)


# Shares


def test_a_target_has_the_shares_of_label_cached_and_live_teachers(
    folders: list[Path], trained: list[Trained], faces: FaceSet, tmp_path: Path
) -> None:
    ours = training(faces)
    label = targets(ours, TargetConfig(label_smoothing=0.1))
    x = ours.images.unsqueeze(1).float() / 255
    live, other = (probabilities(teacher, ours.images) for teacher in trained)
    file = cached(tmp_path, trained[1:], faces)
    for named, probs in (
        ([folders[0]], [live]),
        ([file], [other]),
        ([folders[0], file], [live, other]),
        ([file, folders[0], folders[1]], [other, live, other]),
    ):
        for teach in (0.6, 1.0):
            teachers = opened(*named, teach=teach)
            given = teachers.add_live(x, teachers.add_cached(label, ours))
            expected = (1 - teach) * label + teach * torch.stack(probs).mean(0)
            torch.testing.assert_close(given, expected, atol=2e-3, rtol=0)


def test_targets_are_mixed_like_their_faces(trained: list[Trained], faces: FaceSet, tmp_path: Path) -> None:
    """Each face is as bright as its first target, so mixing must change both alike."""
    ours = training(faces)
    teachers = opened(cached(tmp_path, trained, faces))
    before = teachers.add_cached(targets(ours, TargetConfig()), ours)
    flat = before[:, :1, None, None].expand(-1, 1, 48, 48).contiguous()  # a grey as bright as its first probability
    mixed_x, mixed = mix(flat, before, replace(short().augment, mixup=0.4), torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed_x.mean(dim=(1, 2, 3)), mixed[:, 0])
    assert (mixed - before).abs().max() > 0.05


def test_without_distillation_no_teacher_is_loaded(tmp_path: Path) -> None:
    idle = opened(tmp_path / "none.npz", tmp_path / "none", teach=0.0)
    x, target = torch.rand(2, 1, 48, 48), torch.rand(2, 7)
    assert idle.add_live(x, idle.add_cached(target, cartoon_set())) is target


def test_students_of_cached_and_live_teachers_are_alike(
    folders: list[Path], trained: list[Trained], faces: FaceSet, tmp_path: Path
) -> None:
    """Without augmentation the targets are the same, so both students are nearly the same."""
    still = [f"augment.{key}=0" for key in ("flip", "rotate", "shift", "scale", "contrast", "brightness_shift")]
    students = []
    for name in (folders[0], cached(tmp_path, trained[:1], faces)):
        student = short(*still, "target.distillation=1.0", f'target.teachers=["{name}"]')
        place = tmp_path / f"by-{name.name}"
        assert fit(student, faces, place, devices=CPU)
        students.append(probabilities(load_final(place), faces.images))
    torch.testing.assert_close(students[0], students[1], atol=0.02, rtol=0)
    unlike = short(*still)
    fit(unlike, faces, tmp_path / "alone", devices=CPU)
    alone = probabilities(load_final(tmp_path / "alone"), faces.images)
    assert (alone - students[0]).abs().max() > 0.05


# The command


def test_the_command_computes_logits_of_the_training_faces_of_any_set(
    folders: list[Path], trained: list[Trained], faces: FaceSet, tmp_path: Path
) -> None:
    for i, (image, label) in enumerate(zip(faces.images[:35], faces.labels[:35], strict=True)):
        path = tmp_path / "mine" / faces.emotions[label] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path)
    app = typer.Typer()
    app.command()(logits_command)
    out = tmp_path / "logits.npz"
    words = [*map(str, folders), "--data", str(tmp_path / "mine"), "--out", str(out), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--tta", "flip"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    ours = training(load_set(tmp_path / "mine", short()))
    assert f"{len(ours)} faces, 2 versions of each" in done.output
    views = [torch.stack([probabilities(t, x) for t in trained]).mean(0) for x in (ours.images, ours.images.flip(2))]
    given = CachedLogits.load(out).probabilities(ours, 1.0, source="x")
    torch.testing.assert_close(given, torch.stack(views).mean(0), atol=1e-3, rtol=0)
    with pytest.raises(OutputError, match=r"ends in \.npz"):
        CliRunner().invoke(app, [*words[:-3], str(tmp_path / "logits.pt")], catch_exceptions=False)


def test_logits_of_other_data_classes_or_rows_are_refused(trained: list[Trained], faces: FaceSet) -> None:
    ours = training(faces)
    stored = cache_logits(trained[:1], ours.select(torch.arange(60)))
    with pytest.raises(DataError, match=r"a\.npz: its logits are of another data set than cartoons"):
        stored.probabilities(replace(ours, sha256="1" * 64), 1.0, source="a.npz")
    with pytest.raises(DataError, match=r"a\.npz: logits for the classes angry, .*; the recipe learns angry, fear"):
        stored.probabilities(replace(ours, emotions=SEVEN[:1] + SEVEN[2:3]), 1.0, source="a.npz")
    with pytest.raises(DataError, match=r"a\.npz: has no logits for some rows"):
        stored.probabilities(ours, 1.0, source="a.npz")
    assert len(stored.probabilities(ours.select(torch.arange(50)), 1.0, source="a.npz")) == 50
    with pytest.raises(DataError, match="no logits for some rows"):
        cache_logits(trained[:1], ours.select(torch.arange(0))).probabilities(ours, 1.0, source="a.npz")


@pytest.mark.parametrize("content", [None, b"", b"not a file of numpy", b"PK\x03\x04 half of one"])
def test_a_missing_or_damaged_file_is_one_clear_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: .*`cache_logits`"):
        CachedLogits.load(path)


def test_another_npz_file_and_a_file_of_wrong_shape_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="not a file of cached logits"):
        CachedLogits.load(tmp_path / "other.npz")
    short_one = CachedLogits(np.arange(3), np.zeros((2, 1, 7), np.float16), SEVEN, "0" * 64, ("x",))
    short_one.save(tmp_path / "short.npz")
    with pytest.raises(DataError, match=r"damaged \(logits of shape \[2, 1, 7\]\)"):
        CachedLogits.load(tmp_path / "short.npz")


def test_views_and_teachers_that_do_not_fit_are_refused(trained: list[Trained], faces: FaceSet) -> None:
    with pytest.raises(DataError, match=r"unknown test-time augmentation .*; known are none, flip, six, ten"):
        cache_logits(trained, training(faces), tta="three")
    odd = replace(trained[1], emotions=SEVEN[:3])
    with pytest.raises(DataError, match="teachers must have the same classes"):
        cache_logits([trained[0], odd], training(faces))


@pytest.mark.usefixtures("fast_exports")
def test_an_exported_file_is_a_live_teacher(faces: FaceSet, tmp_path: Path) -> None:
    metadata = contract_metadata("small", SEVEN, 48, FER2013, "small", PROVENANCE)
    path = tmp_path / "model.onnx"
    export_fp32(variant("mien reparam"), path, size=48, calibration=CALIBRATION, metadata=metadata)
    images = training(faces).images
    expected = torch.from_numpy(Classifier(path)(images.numpy())[0])
    x, label = images.unsqueeze(1).float() / 255, torch.full((len(images), 7), 1 / 7)
    torch.testing.assert_close(opened(path).add_live(x, label), expected)
    torch.testing.assert_close(opened(path, teach=0.5).add_live(x, label), (expected + label) / 2)
    softer = opened(path, temperature=2.0).add_live(x, label)
    torch.testing.assert_close(softer, functional.normalize(expected.sqrt(), p=1, dim=1), atol=1e-4, rtol=0)
    crops = images.numpy()
    embedded = torch.from_numpy(Classifier(find_model("mien-0"))(crops)[0])
    torch.testing.assert_close(opened(Path("mien-0")).add_live(x, label), embedded)
    with pytest.raises(DataError, match=r"teacher small has the classes angry, .*; the recipe learns angry, disgust"):
        Teachers(student(TargetConfig(distillation=1.0, teachers=(str(path),))), CPU.launch("32-true"), SEVEN[:2])


def test_a_live_teacher_of_other_classes_is_refused(folders: list[Path]) -> None:
    choice = TargetConfig(distillation=1.0, teachers=(str(folders[0]),))
    with pytest.raises(
        DataError, match=r"teacher mien-plain has the classes angry, .*; the recipe learns angry, disgust"
    ):
        Teachers(student(choice), CPU.launch("32-true"), SEVEN[:2])
