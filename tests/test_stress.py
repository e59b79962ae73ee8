"""Spoilt faces and their figures: checked against libraries, against themselves, and against what must be so."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.filters import gaussian
from skimage.transform import rotate

from faces import cartoon_set
from mien import Reader
from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.judge.metrics import bootstrap_figures, figures
from mien.lab.model import Model, open_model
from mien.lab.stress import move
from mien.lab.stress.corruption import corruption
from mien.lab.stress.detail import path
from mien.lab.stress.draw import generators
from mien.lab.stress.faces import draw_faces, from_ranges, selected, to_ranges
from mien.lab.stress.figures import FIGURES, draw_weights, figures_of, point
from mien.lab.stress.gaps import alarms, judge_groups
from mien.lab.stress.groups import Groups, read_groups
from mien.lab.stress.judge import judge
from mien.lab.stress.kept import write_each, write_json
from mien.lab.stress.read import Read, read_spoilt
from mien.lab.stress.reference import Reference, pack, read_reference, reference_of
from mien.lab.stress.report import report
from mien.lab.stress.sheet import example_face
from mien.lab.stress.spoilings import SPOILINGS, STRENGTHS, Kind, Spoiling, choose
from mien.lab.stress.stress import Trial, name_models, stress
from mien.lab.stress.tables import filled

ROOT = Path(__file__).resolve().parent.parent
BY_NAME = {spoiling.name: spoiling for spoiling in SPOILINGS}
SETTING = {"data_sha256": "0" * 64, "side": 48, "seed": 0}
each_spoiling = pytest.mark.parametrize("spoiling", SPOILINGS, ids=lambda spoiling: spoiling.name)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Real pixels and drawn ones: the astronaut and cartoons, uint8 [24, 48, 48]."""
    drawn = cartoon_set(per_split=(12, 0, 0)).images.numpy()
    return np.concatenate([np.repeat(example_face()[None], 12, axis=0), drawn])


def spoil(spoiling: Spoiling, images: NDArray[np.uint8], strength: int, seed: int = 0) -> NDArray[np.uint8]:
    return spoiling(images, strength, generators(seed, spoiling.name, range(len(images))))


@each_spoiling
def test_a_spoiling_keeps_shape_and_input_and_grows_with_its_strength(
    spoiling: Spoiling, images: NDArray[np.uint8]
) -> None:
    before = images.copy()
    spoilt = [spoil(spoiling, images, strength) for strength in STRENGTHS]
    assert all(each.dtype == np.uint8 and each.shape == images.shape for each in spoilt)
    assert np.array_equal(images, before)
    distances = [((each.astype(float) - images) ** 2).mean() for each in spoilt]
    assert distances[0] > 0
    assert all(np.diff(distances) > 0), distances


@each_spoiling
def test_a_face_is_spoilt_by_itself_and_its_seed_alone(spoiling: Spoiling, images: NDArray[np.uint8]) -> None:
    together = spoil(spoiling, images, 3)
    assert np.array_equal(together, spoil(spoiling, images, 3))
    alone = [spoiling(images[at : at + 1], 3, generators(0, spoiling.name, [at]))[0] for at in range(len(images))]
    assert np.array_equal(together, np.stack(alone))
    chance = not np.array_equal(together, spoil(spoiling, images, 3, seed=1))
    assert chance == (spoiling.kind in (Kind.NOISY, Kind.FRAMING) or spoiling.name in ("motion-blur", "low-light"))


@each_spoiling
@pytest.mark.parametrize("side", [33, 96])
def test_faces_of_other_sizes_are_spoilt_too(spoiling: Spoiling, side: int) -> None:
    face = np.asarray(Image.fromarray(example_face()).resize((side, side)))
    spoilt = spoil(spoiling, np.repeat(face[None], 3, axis=0), 5)
    assert spoilt.shape == (3, side, side)
    assert not np.array_equal(spoilt[0], face)


def test_no_faces_stay_none() -> None:
    assert SPOILINGS[0](np.zeros((0, 48, 48), np.uint8), 1, []).shape == (0, 48, 48)


@pytest.mark.parametrize(
    ("images", "strength", "count", "says"),
    [
        (np.zeros((2, 48, 48), np.uint8), 6, 2, "strength is one of 1 to 5"),
        (np.zeros((2, 48, 48), np.float32), 1, 2, "spoils uint8"),
        (np.zeros((2, 48, 40), np.uint8), 1, 2, "spoils uint8"),
        (np.zeros((2, 48, 48), np.uint8), 1, 3, "as many generators"),
    ],
)
def test_other_input_is_refused(images: NDArray[np.uint8], strength: int, count: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        SPOILINGS[0](images, strength, generators(0, "x", range(count)))


def test_blur_is_that_of_scikit_image() -> None:
    face = example_face()
    for strength, sigma in zip(STRENGTHS, BY_NAME["gaussian-blur"].amounts, strict=True):
        wanted = gaussian(face, sigma, mode="nearest", preserve_range=True)
        assert np.abs(spoil(BY_NAME["gaussian-blur"], face[None], strength)[0] - wanted).max() <= 0.51


def test_rotation_is_that_of_scikit_image() -> None:
    face = example_face()
    turned = spoil(BY_NAME["rotation"], face[None], 3)[0].astype(float)
    to_sides = [rotate(face, sign * 25, order=1, mode="edge", preserve_range=True) for sign in (1, -1)]
    assert min(np.abs(turned - wanted).max() for wanted in to_sides) <= 1


def test_a_shift_of_whole_pixels_moves_pixels() -> None:
    class East:
        def uniform(self, low: float, _high: float) -> float:
            return low  # angle 0: along the columns

    face = example_face()
    moved = move.shift(face[None], 6 / 48, [East()])[0]  # type: ignore[list-item]
    assert np.array_equal(moved[:, 6:], face[:, :-6])
    assert (moved[:, :6] == face[:, :1]).all()


def test_jpeg_and_low_resolution_are_those_of_pillow() -> None:
    face = Image.fromarray(example_face())
    stream = io.BytesIO()
    face.save(stream, "JPEG", quality=10)
    assert np.array_equal(spoil(BY_NAME["jpeg"], example_face()[None], 4)[0], np.asarray(Image.open(stream)))
    small = face.resize((16, 16), Image.Resampling.BOX).resize((48, 48), Image.Resampling.BICUBIC)
    assert np.array_equal(spoil(BY_NAME["low-resolution"], example_face()[None], 3)[0], np.asarray(small))


def test_noise_has_the_spread_that_the_table_says() -> None:
    grey = np.full((200, 48, 48), 128, np.uint8)
    noise = {name: spoil(BY_NAME[name], grey, 3).astype(float) - 128 for name in ("gaussian-noise", "camera-noise")}
    assert noise["gaussian-noise"].std() == pytest.approx(20, rel=0.02)
    # Light of 50 photons a white pixel: the variance of a level is the level times 255 / 50.
    assert spoil(BY_NAME["shot-noise"], grey, 3).astype(float).var() == pytest.approx(128 * 255 / 50, rel=0.03)
    neighbours = {name: (each[:, :, 1:] * each[:, :, :-1]).mean() / each.var() for name, each in noise.items()}
    assert abs(neighbours["gaussian-noise"]) < 0.02
    assert neighbours["camera-noise"] > 0.2


def test_a_move_is_as_long_as_the_table_says() -> None:
    for angle in (0, 0.4, np.pi / 2):
        kernel = path(9, angle)
        assert kernel.sum() == pytest.approx(1)
        y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
        spread = (kernel * (x**2 + y**2)).sum()
        assert spread == pytest.approx(9**2 / 12, rel=0.12)  # of an even line, and the width of its pixels


def test_patches_cover_what_they_are_named_after() -> None:
    """Where mien's own detector sees the eyes and the mouth of the portrait, the strongest patch hides them."""
    portrait = np.asarray(Image.open(ROOT / "examples" / "astronaut.png").convert("RGB"))
    face = Reader().read(portrait).faces[0]
    assert np.array_equal(face.crop, example_face())
    matrix = np.linalg.inv(np.vstack([face.to_image, [0, 0, 1]]))
    points = {name: (matrix @ [*getattr(face.points, name), 1])[:2] for name in ("right_eye", "left_eye", "mouth")}
    right, left, mouth = "right_eye", "left_eye", "mouth"
    hides = {  # and what stays in sight; the mouth lies on the middle line, half of it on either side
        "cover-eyes": ((right, left), (mouth,)),
        "cover-mouth": ((mouth,), (right, left)),
        "cover-left": ((right,), (left,)),
        "cover-right": ((left,), (right,)),
        "glasses": ((right, left), (mouth,)),
        "mask": ((mouth,), (right, left)),
    }
    for name, (hidden, shown) in hides.items():
        spoilt = spoil(BY_NAME[name], face.crop[None], 5)[0]
        for point_name in (*hidden, *shown):
            x, y = points[point_name]
            around = np.s_[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2]
            assert (np.ptp(spoilt[around]) == 0) == (point_name in hidden), (name, point_name)
            assert np.array_equal(spoilt[around], face.crop[around]) == (point_name in shown), (name, point_name)


def test_names_and_kinds_choose() -> None:
    assert choose([]) == SPOILINGS
    assert [each.name for each in choose(["jpeg", "noisy"])] == ["gaussian-noise", "shot-noise", "camera-noise", "jpeg"]
    with pytest.raises(DataError, match='did you mean "glasses"'):
        choose(["glases"])


# Figures


def test_figures_and_intervals_are_those_of_the_judge() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 7, 400)
    probs = generator.dirichlet(np.ones(7) * 0.4, 400)
    said, drawn = figures(probs, labels, SEVEN, resamples=20), bootstrap_figures(probs, labels, resamples=1000)
    assert point(probs, labels) == pytest.approx([said[name] for name in FIGURES])
    draws = figures_of(probs, labels, draw_weights(400))
    for at, name in enumerate(FIGURES):  # the same draws of the same seed, so the same intervals
        assert np.percentile(draws[:, at], [2.5, 97.5]) == pytest.approx(drawn[name])


def test_faces_are_drawn_by_class_and_more_faces_hold_the_fewer() -> None:
    faces = cartoon_set()
    few, more = (draw_faces(faces, Split.PUBLIC_TEST, count, seed=0) for count in (14, 35))
    assert torch.bincount(few.labels).tolist() == [2] * 7
    assert set(few.rows.tolist()) < set(more.rows.tolist())
    assert len(draw_faces(faces, Split.PUBLIC_TEST, 0, seed=0)) == 70
    assert few.rows.tolist() != draw_faces(faces, Split.PUBLIC_TEST, 14, seed=1).rows.tolist()


def test_ranges_come_back() -> None:
    for rows in ([3], [3, 4, 5, 9, 11, 12], list(range(50))):
        assert from_ranges(to_ranges(rows)) == rows
    assert to_ranges([3, 4, 5, 9]) == "3-5,9"


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 210, 0))


def by_brightness(name: str = "light", emotions: tuple = SEVEN, dark: float = 0.0) -> Model:
    """A reader that guesses by the mean grey of the mouth, and wrongly (``dark``) where the face is dark."""

    def answer(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        mouth = crops[:, 28:43, 13:36].mean(axis=(1, 2), dtype=np.float64)
        logits = -(((mouth[:, None] - 45) / 12 - np.arange(len(emotions))) ** 2)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        if dark:
            low = crops[:, :4].mean(axis=(1, 2)) < dark
            odds[low] = np.roll(odds[low], 1, axis=1)
        return odds.astype(np.float32), None

    return Model(name, tuple(emotions), 48, {"kind": "test"}, Path(), answer)


def read(model: Model, faces: FaceSet, names: tuple[str, ...] = ("gaussian-noise", "cover-mouth"), **how: int) -> Read:
    drawn = draw_faces(faces, Split.PUBLIC_TEST, 0, seed=0)
    selection = selected(faces, drawn, model.emotions, Split.PUBLIC_TEST)
    return read_spoilt({model.name: model}, {model.name: selection}, drawn, choose(names), seed=0, **how)[0]


def test_answers_do_not_depend_on_how_many_are_handled_at_once(faces: FaceSet) -> None:
    model = open_model("mien-0")
    few = faces.select(torch.arange(60, 90))
    one, many = (read(model, few, ("shot-noise", "rotation"), piece=piece) for piece in (1, 64))
    assert np.array_equal(one.clean, many.clean)
    for name in one.spoilt:
        assert np.array_equal(np.stack(one.spoilt[name]), np.stack(many.spoilt[name]))


def test_models_of_other_classes_see_the_same_pixels(faces: FaceSet) -> None:
    seen: dict[str, list[NDArray[np.uint8]]] = {"a": [], "b": []}

    def watching(name: str, emotions: tuple) -> Model:
        plain = by_brightness(name, emotions)
        return replace(plain, answer=lambda crops: (seen[name].append(crops), plain.answer(crops))[1])

    models = {"a": watching("a", SEVEN), "b": watching("b", SEVEN[:3])}
    drawn = draw_faces(faces, Split.PUBLIC_TEST, 70, seed=0)
    selections = {n: selected(faces, drawn, m.emotions, Split.PUBLIC_TEST) for n, m in models.items()}
    read_spoilt(models, selections, drawn, choose(["gaussian-noise"]), seed=0)
    known = np.isin(selections["a"].faces.rows, selections["b"].faces.rows)
    assert 0 < known.sum() < 70
    for all_seven, three in zip(seen["a"], seen["b"], strict=True):
        assert np.array_equal(all_seven[known], three)
    assert selections["b"].account["not drawn for this test"] == 60
    assert sum(selections["b"].account.values()) + len(selections["b"].faces) == 210


def test_a_model_is_judged_in_pairs_with_its_clean_faces(faces: FaceSet) -> None:
    said = judge(read(by_brightness(), faces), choose(["gaussian-noise", "cover-mouth"]))
    clean, worst = said["clean"], said["spoilt"]["cover-mouth"][4]
    assert worst["accuracy"]["value"] < clean["accuracy"]["value"] - 0.2
    low, high = worst["accuracy"]["difference_interval"]
    assert low < worst["accuracy"]["difference"] < high < 0
    five = [each["accuracy"]["value"] for each in said["spoilt"]["cover-mouth"]]
    assert said["by_spoiling"]["cover-mouth"]["accuracy"]["value"] == pytest.approx(np.mean(five), abs=1e-5)
    assert worst["flips"] > said["spoilt"]["cover-mouth"][0]["flips"]


# Mean corruption


def reference(name: str, wrong: dict[str, list[int]], clean: int = 10, count: int = 100) -> Reference:
    """A model that makes as many mistakes, the first faces being the wrong ones."""
    rows = np.arange(count)
    spoilt = {key: np.stack([rows >= number for number in five]) for key, five in wrong.items()}
    amounts = {key: BY_NAME[key].amounts for key in wrong}
    return Reference(name, tuple(map(str, SEVEN)), SETTING, rows, rows >= clean, spoilt, amounts)


def test_mean_corruption_is_the_papers_sum_of_errors() -> None:
    one = reference("one", {"jpeg": [20, 30, 40, 50, 60], "mask": [10, 20, 30, 40, 50]}, clean=20)
    two = reference("two", {"jpeg": [20, 20, 20, 20, 20], "mask": [15, 15, 15, 15, 15]}, clean=10)
    said = corruption(one, two)
    assert said["by_spoiling"]["jpeg"]["ce"]["value"] == pytest.approx(200 / 100)
    assert said["mce"]["value"] == pytest.approx((200 / 100 + 150 / 75) / 2)
    assert said["relative_mce"]["value"] == pytest.approx(((200 - 100) / (100 - 50) + (150 - 100) / (75 - 50)) / 2)
    low, high = said["mce"]["interval"]
    assert low < said["mce"]["value"] < high
    assert corruption(two, two)["mce"] == {"value": 1, "interval": [1, 1]}


def test_a_ratio_to_nothing_is_left_out_and_named() -> None:
    two = reference("two", {"jpeg": [0] * 5, "mask": [10] * 5}, clean=10)
    said = corruption(reference("one", {"jpeg": [20] * 5, "mask": [20] * 5}), two)
    assert said["left_out"] == {"mce": ["jpeg"], "relative_mce": ["jpeg", "mask"]}
    assert said["by_spoiling"]["jpeg"]["ce"] is None
    assert said["relative_mce"] is None
    assert said["mce"]["value"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"emotions": ("happy", "sad")}, "other emotions"),
        ({"setting": {**SETTING, "seed": 1}}, "another seed"),
        ({"setting": {**SETTING, "data_sha256": "1"}}, "other data"),
        ({"rows": np.arange(1, 101)}, "other faces"),
        ({"amounts": {"jpeg": (1, 2, 3, 4, 5)}}, "other strengths of jpeg"),
    ],
)
def test_an_unfit_reference_gives_no_figure_but_a_reason(change: dict, why: str) -> None:
    one = reference("one", {"jpeg": [20] * 5})
    assert why in corruption(one, replace(one, **change))["why"]


def test_a_kept_reference_serves_a_part_of_its_faces(faces: FaceSet, tmp_path: Path) -> None:
    trial = Trial(Split.PUBLIC_TEST, 0, choose(["gaussian-noise", "mask"]))
    model = by_brightness()
    said = stress({"light": model}, faces, trial, provenance={"command": "mien stress"})
    (file,) = write_each(said, tmp_path)
    kept = read_reference(file)
    again = read(model, faces, ("gaussian-noise", "mask"))
    assert pack(kept) == pack(reference_of(again, trial.spoilings, SETTING))
    part = stress(
        {"light": model}, faces, replace(trial, faces=35), provenance={"command": "mien stress"}, reference=kept
    )
    assert part["models"][0]["corruption"]["mce"] == {"value": 1, "interval": [1, 1]}
    file.write_text(file.read_text()[:2000])
    with pytest.raises(DataError, match=r"is no stress\.json"):
        read_reference(file)


# Groups


def test_groups_of_chance_have_no_gap_and_real_ones_have(faces: FaceSet) -> None:
    answers = read(by_brightness(dark=62.0), faces)
    generator = np.random.default_rng(5)
    rows = faces.rows.tolist()
    top = faces.images[:, :4].float().mean(dim=(1, 2))
    columns = {
        "coin": {row: str(generator.choice(["a", "b", "c"])) for row in rows},
        "background": {row: "dark" if value < 62 else "light" for row, value in zip(rows, top.tolist(), strict=True)},
    }
    said = judge_groups(answers, Groups("x", columns))
    assert all(gap["p_corrected"] > 0.05 for gap in said["coin"]["gaps"].values())
    gap = said["background"]["gaps"]["accuracy"]
    assert (gap["largest"], gap["smallest"]) == ("light", "dark")
    assert gap["p_corrected"] < 0.05
    low, high = gap["interval"]
    assert 0 < low < gap["value"] < high
    assert any(alarm.startswith("background, accuracy") for alarm in alarms(said))
    assert sum(group["n"] for group in said["coin"]["groups"].values()) == 210


def test_the_mix_of_emotions_is_no_gap(faces: FaceSet) -> None:
    """Two groups of other emotions: their accuracies differ, but only as the emotions' own do."""
    plain = by_brightness()
    hard = replace(plain, answer=lambda crops: (plain.answer(crops)[0] * [1, 1, 1, 0, 0, 0, 0], None))

    def answer(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        probs = hard.answer(crops)[0] + 1e-9
        return (probs / probs.sum(1, keepdims=True)).astype(np.float32), None

    easy = {row: "few" if label < 3 else "many" for row, label in zip(faces.rows.tolist(), faces.labels, strict=True)}
    generator = np.random.default_rng(0)  # not all of an emotion are in one group, or nothing could be dealt anew
    mixed = {row: group if generator.random() < 0.8 else "few" for row, group in easy.items()}
    gap = judge_groups(read(replace(plain, answer=answer), faces), Groups("x", {"mix": mixed}))["mix"]["gaps"]
    assert gap["accuracy"]["value"] > 0.2
    assert gap["accuracy"]["p"] > 0.05
    assert gap["accuracy"]["by_chance"] == pytest.approx(gap["accuracy"]["value"], abs=0.1)


def test_small_groups_and_missing_faces_are_named_and_not_judged(faces: FaceSet) -> None:
    rows = faces.split(Split.PUBLIC_TEST).rows.tolist()
    column = {row: "few" if at < 10 else "many" for at, row in enumerate(rows[:150])}
    said = judge_groups(read(by_brightness(), faces), Groups("x", {"kind": column}))["kind"]
    assert (said["small"], said["missing"], said["gaps"]) == ({"few": 10}, 60, {})
    assert list(said["groups"]) == ["many"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rwo,sex\n1,f\n", 'neither a column row nor file .did you mean "row"'),
        ("row\n1\n", "has the column row alone"),
        ("row,sex,sex\n1,f,f\n", "named twice"),
        ("row,sex\n1,f\n1,m\n", "row 1 .line 3.: the face '1' is named twice"),
        ("row,sex\nx,f\n", "row 'x' is no whole number"),
        ("row,sex\n1,f,f\n", "3 fields instead of 2"),
        ("row,sex\n99999,f\n", "none of its rows"),
        ("row,age\n" + "".join(f"{row},{row}\n" for row in range(30)), "30 groups"),
        ("file,sex\na.png,f\n", "counted by row"),
    ],
)
def test_a_wrong_table_of_groups_is_one_clear_line(text: str, says: str, faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(text)
    faces = replace(faces, source=str(ROOT / "fer2013.parquet"))
    if "by row" in says:
        (tmp_path / "fer2013.parquet").touch()
        faces = replace(faces, source=str(tmp_path / "fer2013.parquet"))
    with pytest.raises(DataError, match=says):
        read_groups(tmp_path / "groups.csv", faces)


def test_groups_that_are_not_utf8_are_refused(faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes("row,sex\n1,fémin\n2,fèmin\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"is not UTF-8 .byte 11.; save the table as UTF-8"):
        read_groups(tmp_path / "groups.csv", faces)


def test_rows_of_no_face_and_empty_cells_are_counted(faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("row;Sex;age\n1;f;\n2;;old\n99999;m;old\n")
    groups = read_groups(tmp_path / "groups.csv", faces)
    assert groups.columns == {"sex": {1: "f", 99999: "m"}, "age": {2: "old", 99999: "old"}}
    assert groups.strange == 1


# What is written


def test_the_file_and_the_page_say_what_was_found(faces: FaceSet, tmp_path: Path) -> None:
    halves = {row: "even" if row % 2 == 0 else "odd" for row in faces.rows.tolist()}
    models = {"light": by_brightness("light"), "<b>": by_brightness("<b>", SEVEN[:3])}
    trial = Trial(Split.PUBLIC_TEST, 0, choose(["jpeg", "glasses"]))
    said = stress(
        models, faces, trial, provenance={"command": "mien stress"}, groups=Groups("h.csv", {"half": halves}, 2)
    )
    write_json(said, tmp_path / "stress.json")
    assert json.loads((tmp_path / "stress.json").read_text()) == json.loads(json.dumps(said))
    kept = {path.name: json.loads(path.read_text()) for path in write_each(said, tmp_path / "kept")}
    assert set(kept) == {"light.json", "groups-light.json", "b.json", "groups-b.json"}
    assert "groups" not in kept["light.json"]["models"][0]
    assert kept["groups-light.json"]["models"][0]["groups"] == json.loads(json.dumps(said["models"][0]["groups"]))
    text = report(said)
    for each in (f"{said['models'][0]['clean']['accuracy']['value']:.1%}".replace("%", " %"), "2 rows of h.csv"):
        assert each in text
    assert "no mean corruption; light tells other emotions apart" in text
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "keep it on this computer" not in text.lower()
    assert text.count("<svg") == 2 + 2 * 2


def test_two_models_of_one_name_are_told_apart() -> None:
    models = [by_brightness("x"), by_brightness("x"), by_brightness("y")]
    assert list(name_models(["runs/x", "x.onnx", "y"], models)) == ["runs/x", "x.onnx", "y"]
    with pytest.raises(DataError, match="named twice"):
        name_models(["x", "x"], models[:2])


def test_the_tables_of_the_docs_are_fresh() -> None:
    text = (ROOT / "docs" / "robustness.md").read_text()
    assert filled(text, ROOT / "results" / "stress") == text, "run: python -m mien.lab.stress.tables"


def test_the_kept_figures_hold_together() -> None:
    files = sorted(path for path in (ROOT / "results" / "stress").glob("*.json") if not path.stem.startswith("groups"))
    assert (ROOT / "results" / "stress" / "mien-0.json") in files
    for file in files:
        said = json.loads(file.read_text())
        model, kept = said["models"][0], read_reference(file)
        assert kept.clean.mean() == pytest.approx(model["clean"]["accuracy"]["value"], abs=1e-6)
        for name, five in model["spoilt"].items():
            assert kept.spoilt[name].mean(axis=1) == pytest.approx([c["accuracy"]["value"] for c in five], abs=1e-6)
        assert {s["name"]: tuple(s["amounts"]) for s in said["spoilings"]} == {s.name: s.amounts for s in SPOILINGS}
