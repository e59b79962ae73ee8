"""Impossible recipes are refused in one line before the first epoch."""

from pathlib import Path
from typing import Any

import pytest

from mien._errors import DataError, DivergedError, ModelError, RecipeError
from mien.lab import nets
from mien.lab.data import FaceSet
from mien.lab.evaluate.evaluation import evaluate_task, prepare_evaluation
from mien.lab.evaluate.subjects import TestSet, find_subjects
from mien.lab.export.release import export_model
from mien.lab.recipe import Recipe, dump, fold_recipes, load, parse, put
from mien.lab.record import record_run
from mien.lab.train.devices import Devices
from mien.lab.train.distillation import Teachers, cache_logits
from mien.lab.train.logging import EpochRecord
from mien.lab.train.loop import fit
from mien.lab.train.run import load_final
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny

CPU = Devices("cpu")
EXPLODES = {"lr": 1e30, "clip_grad": 1.0, "schedule": "plateau", "warmup": 0.0}


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


def changed(key: str, value: Any) -> Recipe:
    table = dump(tiny())
    put(table, key, value)
    return parse(table, where="tiny")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.lr", float("nan")),
        ("train.momentum", -1.0),
        ("train.momentum", 2.0),
        ("train.weight_decay", -1.0),
        ("train.ema_decay", 2.0),
        ("train.clip_grad", -1.0),
        ("train.patience", -1),
        ("train.min_lr_factor", 0.0),
        ("train.lr_factors", {"features": -1.0}),
        ("train.weight_decays", {"features": float("nan")}),
        ("data.expand", float("inf")),
        ("data.folds", 1),
        ("data.fold", 1),
        ("target.class_weight_power", -1.0),
        ("augment.rotate", float("nan")),
        ("augment.mixup", -1.0),
        ("augment.cutmix", float("nan")),
        ("net.options.dropout", float("nan")),
        ("phases", [{"dropout": 3.0}]),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=key.rpartition(".")[2].removesuffix("s")):
        changed(key, value)


@pytest.mark.parametrize(
    "options", [{"dropout": 2}, {"hidden": [-3]}, {"widths": [0]}, {"kernel": 0}, {"kernel": 99}], ids=str
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_option_that_torch_refuses_names_the_net(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="net 'lenet': "):
        nets.build("lenet", channels=1, classes=7, **options)


@pytest.mark.parametrize(
    ("last", "says"),
    [
        ({"freeze": ["featurs"]}, "no module 'featurs'; did you mean 'features'"),
        ({"freeze": ["features", "head"]}, "every module is frozen"),
        ({"train": {"lr_factors": {"heat": 1.0}}}, "no module 'heat'"),
        ({"train": {"schedule": "plateau", "fallback": {"weight_decays": {"heat": 1.0}}}}, "no module 'heat'"),
    ],
)
def test_what_the_last_phase_names_is_looked_for_before_the_first(
    last: dict[str, Any], says: str, faces: FaceSet, tmp_path: Path
) -> None:
    records: list[EpochRecord] = []
    with pytest.raises(RecipeError, match=says):
        fit(tiny(phases=[{}, last]), faces, tmp_path / "run", devices=CPU, on_epoch=records.append)
    assert records == []
    assert not (tmp_path / "run").exists()


def test_faces_too_small_for_a_pooled_net_are_refused(faces: FaceSet, tmp_path: Path) -> None:
    recipe = parse({**dump(tiny()), "data": {"size": 8}, "net": {"name": "vgg"}}, where="vgg")
    with pytest.raises(RecipeError, match=r"net 'vgg' takes no faces of data\.size=8: .*too small"):
        fit(recipe, faces, tmp_path, devices=CPU)


def test_a_clipped_training_that_explodes_diverges_or_falls_back(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        fit(tiny(train=EXPLODES), faces, tmp_path / "diverged", devices=CPU)
    caught = {"epochs": 2, **EXPLODES, "fallback": {"optimizer": "sgd", "lr": 0.05}}
    records: list[EpochRecord] = []
    recipe = tiny(phases=[{"train": {"epochs": 1}}, {"train": caught}])
    assert fit(recipe, faces, tmp_path / "caught", devices=CPU, on_epoch=records.append)
    assert [record.fallback for record in records] == ["", "sgd", ""]


def test_a_run_that_has_learned_from_test_faces_teaches_nobody(faces: FaceSet, tmp_path: Path) -> None:
    leaky = tiny(data={"expand": 0.3, "expand_first": True}, train={"epochs": 1})
    fit(leaky, faces, tmp_path / "leaky", devices=CPU)
    student = tiny(target={"distillation": 0.5, "teachers": [str(tmp_path / "leaky")]})
    with pytest.raises(DataError, match="has learned from test faces"):
        Teachers(student, CPU.launch("32-true"), faces.emotions)
    with pytest.raises(DataError, match="has learned from test faces"):
        fit(tiny(net={"weights": str(tmp_path / "leaky")}), faces, tmp_path / "started", devices=CPU)


def test_weights_and_teachers_that_know_the_fold_are_refused(faces: FaceSet, tmp_path: Path) -> None:
    origin = {"data_sha256": faces.sha256}
    one = {"train": {"epochs": 1}}
    fit(tiny(**one), faces, tmp_path / "all", devices=CPU, provenance=origin)
    fit(tiny(data={"folds": 4, "fold": 2}, **one), faces, tmp_path / "fold", devices=CPU, provenance=origin)
    started = {"data": {"folds": 4, "fold": 2}, **one}
    with pytest.raises(DataError, match="learned from faces of the fold"):
        fit(tiny(net={"weights": str(tmp_path / "all")}, **started), faces, tmp_path / "a", devices=CPU)
    assert fit(tiny(net={"weights": str(tmp_path / "fold")}, **started), faces, tmp_path / "b", devices=CPU)
    for name in ("all", "fold"):
        cache_logits([load_final(tmp_path / name)], faces).save(tmp_path / f"{name}.npz")
    for number, suffix in enumerate(("", ".npz")):
        taught = {name: {"distillation": 0.5, "teachers": [f"{tmp_path / name}{suffix}"]} for name in ("all", "fold")}
        with pytest.raises(DataError, match=r"teacher .* may have learned from faces of the fold"):
            fit(tiny(target=taught["all"], **started), faces, tmp_path / f"c{number}", devices=CPU)
        assert fit(tiny(target=taught["fold"], **started), faces, tmp_path / f"d{number}", devices=CPU)


def test_a_run_that_learned_public_test_is_never_taken_for_one_that_did_not(faces: FaceSet, tmp_path: Path) -> None:
    run, one = tmp_path / "fold-0", {"train": {"epochs": 1}}
    chosen = fold_recipes(tiny(**one), 3, public=True)[0]
    fit(chosen, faces, run, devices=CPU, provenance={"data_sha256": faces.sha256, "commit": "c"})
    learned = r"has learned from (test faces|PublicTest) \(data.fold_public\)"
    with pytest.raises(DataError, match=learned):
        fit(tiny(net={"weights": str(run)}, **one), faces, tmp_path / "a", devices=CPU)
    cache_logits([load_final(run)], faces).save(tmp_path / "fold.npz")
    for teacher in (run, tmp_path / "fold.npz"):
        with pytest.raises(DataError, match=learned):
            fit(
                tiny(target={"distillation": 0.5, "teachers": [str(teacher)]}, **one),
                faces,
                tmp_path / "b",
                devices=CPU,
            )
    with pytest.raises(DataError, match=learned):
        record_run(run, faces, tmp_path / "recorded")
    with pytest.raises(ModelError, match=learned):
        export_model(load_final(run), faces, tmp_path / "exported")
    task = prepare_evaluation(find_subjects(str(run))[0], TestSet(faces, "cartoons"), None)
    (warning, *_) = (found := evaluate_task(task)).warnings()
    assert "has learned from faces of PublicTest (data.fold_public)" in warning
    assert found.subject.about["calibration"] == "none: learned from the faces to fit it on (data.fold_public)"


def test_a_key_of_one_phase_is_overridden_by_its_place() -> None:
    recipe = load("hybrid-resnet50", ["phases.1.train.epochs=3"])
    assert [phase.train["epochs"] for phase in recipe.phases] == [30, 3, 15, 20, 20]
    for override in ("phases.9.name=x", "phases.one.name=x", "phases.0=x"):
        with pytest.raises(RecipeError, match="override 'phases"):
            load("hybrid-resnet50", [override])


def test_a_recipe_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"r\.toml: cannot be read"):
        load(str(path))
