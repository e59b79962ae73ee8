"""The ledger of looks at PrivateTest: what is a look, what is a repeat, what is refused, and that nothing is lost."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import CLASS_SETS
from mien._errors import DataError, OutputError
from mien.bundled import BUNDLED
from mien.lab.data import Split
from mien.lab.data.datasets import load_set, load_test_set
from mien.lab.data.faceset import file_sha256
from mien.lab.data.fer2013 import OFFICIAL_COUNTS, has_private_test
from mien.lab.files import save_json
from mien.lab.ledger import (
    Answers,
    Ledger,
    answers_of_recipe,
    changed_answers,
    count_looks,
    default_ledger,
    describe_looks,
    family_of,
    is_private_test,
)
from mien.lab.recipe import load
from support.fer2013_files import csv_rows, parquet_columns, write_csv, write_parquet
from support.paths import ROOT
from support.synthetic_faces import cartoon_set


def answers(recipe: str, digest: str, *changes: str) -> Answers:
    return replace(answers_of_recipe(load(recipe, changes), [digest]), accuracy={"fp32": 0.7})


def look(ledger: Ledger, *seen: Answers) -> list[str]:
    ledger.require(seen)
    return ledger.add(seen, "d" * 64)


def test_a_family_is_a_document_and_a_net_whatever_the_recipes_are_called() -> None:
    taught = [f"attention-resnet-{course}" for course in ("tuned", "taught", "longer", "live", "128")]
    assert {family_of(load(name)) for name in taught} == {"003 attention-resnet"}
    assert family_of(replace(load("attention-resnet-128"), name="renamed")) == "003 attention-resnet"
    assert family_of(load("hybrid-resnet50-taught")) == family_of(load("hybrid-ablation-narrow/milder"))
    grid = [load(f"vgg-vs-resnet-narrow/{member}-48-six-sgd") for member in ("vgg16", "resnet50")]
    assert {family_of(member) for member in grid} == {"002 vgg-vs-resnet"}
    assert family_of(load("mien-0")) == family_of(load("speedrun")) == "own mien"
    assert family_of(load("mien-0", ["family=trial"])) == "trial"


def test_a_second_look_needs_a_reason(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    assert look(ledger, answers("attention-resnet-tuned", "a")) == [""]
    with pytest.raises(DataError, match=r"once, last attention-resnet-tuned, seed 0 on .*, accuracy 70.0 %"):
        ledger.require([answers("attention-resnet-128", "b")])
    ledger.require([answers("conv4", "b")])  # another family
    assert len(ledger.entries()) == 1
    (note,) = look(replace(ledger, again="a course at 128 px"), answers("attention-resnet-128", "b"))
    assert "2 times for the family '003 attention-resnet' (2 figures)" in note
    first, second = ledger.entries()
    assert (first["look"], first["why"], second["look"], second["why"]) == (1, "", 2, "a course at 128 px")
    assert {"date", "commit", "command", "data_sha256", "seed", "accuracy"} <= second.keys()
    with pytest.raises(DataError, match="looked at 2 times, last attention-resnet-128"):
        ledger.require([answers("attention-resnet", "c")])


def test_the_same_answers_are_a_repeat_and_gather_their_files(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    look(ledger, answers("conv4", "weights"))
    look(ledger, replace(answers("conv4", "weights"), digests=("weights", "file")))
    look(ledger, Answers("renamed", ("file",)))
    (entry,) = ledger.entries()
    assert (entry["repeats"], entry["answers"], entry["recipe"]) == (2, ["weights", "file"], "conv4")
    assert describe_looks("004 conv4", [entry]) == ""


def test_seeds_of_one_training_and_members_of_a_grid_are_one_look(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    look(ledger, answers("conv4", "0"), answers("conv4", "1", "seed=1"))
    look(ledger, answers("conv4", "2", "seed=2"))
    assert count_looks("004 conv4", ledger.entries()) == (1, 3)
    for changed in (("seed=1",), ("seed=3", "train.lr=0.1")):  # the same seed, other weights; another training
        with pytest.raises(DataError, match="004 conv4: PrivateTest was looked at once"):
            ledger.require([answers("conv4", "3", *changed)])
    grid = [f"vgg-vs-resnet-narrow/vgg{depth}-48-{count}-sgd" for depth in (16, 19) for count in ("six", "three")]
    look(ledger, *(answers(member, member) for member in grid))
    assert count_looks("002 vgg-vs-resnet", ledger.entries()) == (1, 4)
    with pytest.raises(DataError, match="002 vgg-vs-resnet: PrivateTest was looked at once"):
        ledger.require([answers(grid[0], "without clipping")])
    again = replace(ledger, again="without clipping")
    look(again, answers(grid[0], "without clipping"))
    look(ledger, answers(grid[1], "the rest of the second grid"))
    assert count_looks("002 vgg-vs-resnet", ledger.entries()) == (2, 6)


def test_a_member_that_is_trained_again_does_not_join_the_look_at_one_that_was_added_later(tmp_path: Path) -> None:
    path = tmp_path / "looks.json"
    ledger, again = Ledger(path), Ledger(path, again="trained again from committed code")
    first, second, added = (f"hybrid-ablation-narrow/{member}" for member in ("backbone", "attention", "milder"))
    look(ledger, answers(first, "1"), answers(second, "2"), answers(added, "3"))
    entries = ledger.entries()
    entries[2] |= {"look": 2, "why": "a member that was added"}  # as it was counted when it was not yet in the package
    save_json(path, {"looks": entries})
    with pytest.raises(DataError, match="001 hybrid-resnet50: PrivateTest was looked at 2 times"):
        ledger.require([answers(first, "1 again")])
    look(again, answers(first, "1 again"))
    look(ledger, answers(added, "3 again"), answers(second, "2 again"))  # the same grid for the second time
    assert [(each["look"], each["why"]) for each in ledger.entries()[3:]] == [(3, again.again), (3, ""), (3, "")]


def test_a_name_a_seed_or_a_grid_hides_no_other_training(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    look(ledger, replace(answers("conv4", "0"), trained_on="d" * 64))
    with pytest.raises(DataError, match="004 conv4: PrivateTest was looked at once"):
        ledger.require([replace(answers("conv4", "1", "seed=1"), trained_on="e" * 64)])
    look(ledger, replace(answers("conv4", "1", "seed=1"), trained_on="d" * 64))
    tries = [replace(answers("lenet", f"try {n}", f"train.lr=0.0{n}"), recipe=f"try/{n}") for n in "123"]
    with pytest.raises(DataError, match="000 lenet: PrivateTest was looked at once, last try/1"):
        ledger.require(tries)
    one, two = (f"vgg-vs-resnet-narrow/vgg{depth}-48-six-sgd" for depth in (16, 19))
    look(ledger, answers(one, "one"))
    for other in (answers(two, "two", "train.lr=0.5"), changed_answers(answers(two, "two"), "flip")):
        with pytest.raises(DataError, match="002 vgg-vs-resnet: PrivateTest was looked at once"):
            ledger.require([other])
    look(ledger, answers(two, "two"))


def test_a_model_of_an_unknown_recipe_is_a_family_of_its_own_or_that_of_its_name(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    look(ledger, Answers("theirs", ("a",)))
    with pytest.raises(DataError, match="theirs: PrivateTest was looked at once, last theirs on "):
        ledger.require([Answers("theirs", ("b",))])
    look(ledger, replace(answers("conv4", "c"), recipe="pair"))
    with pytest.raises(DataError, match="004 conv4: "):
        ledger.require([Answers("pair", ("d",))])


def test_other_views_and_calibrations_are_no_further_seed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    look(ledger, answers("conv4", "0"))
    for change in ("flip", "vector"):
        with pytest.raises(DataError, match="004 conv4: PrivateTest was looked at once"):
            ledger.require([changed_answers(answers("conv4", "1", "seed=1"), change)])
    look(replace(ledger, again="flip"), changed_answers(answers("conv4", "0"), "flip"))
    look(ledger, changed_answers(answers("conv4", "1", "seed=1"), "flip"))
    assert changed_answers(answers("conv4", "0"), "none") == answers("conv4", "0")
    assert count_looks("004 conv4", ledger.entries()) == (2, 3)


def test_two_new_models_of_a_family_in_one_command_are_two_looks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="004 conv4: PrivateTest was looked at once, last conv4, seed 0 just now"):
        Ledger(tmp_path / "looks.json").require([answers("conv4", "a"), answers("conv4-tuned", "b")])


def test_looks_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.add([Answers(f"net {n}", (str(n),))], "d"), range(16)))
    assert sorted(entry["recipe"] for entry in ledger.entries()) == sorted(f"net {n}" for n in range(16))
    assert [path.name for path in tmp_path.iterdir()] == ["looks.json"]


def test_of_two_looks_at_the_same_time_the_second_is_refused(tmp_path: Path) -> None:
    ledger, one, two = Ledger(tmp_path / "looks.json"), answers("conv4", "a"), answers("conv4-tuned", "b")
    ledger.require([one])
    ledger.require([two])  # of another process, before the first has written its look
    ledger.add([one], "d")
    with pytest.raises(DataError, match="004 conv4: PrivateTest was looked at once, last conv4, seed 0"):
        ledger.add([two], "d")
    assert [entry["recipe"] for entry in ledger.entries()] == ["conv4"]


def test_a_damaged_ledger_and_a_full_disk_are_one_line_and_lose_nothing(
    tmp_path: Path, largest_file: Callable[[int], None]
) -> None:
    ledger = Ledger(tmp_path / "looks.json")
    look(ledger, answers("conv4", "a"))
    before = ledger.path.read_bytes()
    ledger.path.write_bytes(before.replace(b"conv4", b"conv5"))
    with pytest.raises(DataError, match=r"looks.json: damaged: its checksum is wrong; restore it"):
        ledger.add([answers("conv4", "b")], "d")
    for text in ("no JSON", "[]", '{"looks": 3}', '{"looks": [{"family": 3}]}'):
        ledger.path.write_text(text)
        with pytest.raises(DataError, match=r"looks.json: is no ledger of looks.*; restore it"):
            ledger.require([answers("conv4", "b")])
    ledger.path.write_bytes(before)
    largest_file(100)
    with pytest.raises(OutputError, match="cannot be written"):
        ledger.add([answers("lenet", "b")], "d")
    assert ledger.path.read_bytes() == before


def test_only_the_private_test_of_fer2013_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = cartoon_set()
    assert not is_private_test(faces, Split.PRIVATE_TEST)  # 70 faces of another set
    monkeypatch.setitem(OFFICIAL_COUNTS, Split.PRIVATE_TEST, (10,) * 7)
    assert is_private_test(faces, Split.PRIVATE_TEST)
    assert is_private_test(faces, "all")
    assert not is_private_test(faces, Split.PUBLIC_TEST)


def test_private_test_is_counted_in_eight_classes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OFFICIAL_COUNTS, Split.PRIVATE_TEST, (10,) * 7)
    faces = cartoon_set()
    faces.votes[-1] = torch.tensor([0, 0, 0, 0, 0, 0, 0, 10, 0, 0])  # by FER+ one of PrivateTest is contempt
    (tmp_path / "more" / "contempt").mkdir(parents=True)
    Image.fromarray(faces.images[0].numpy()).save(tmp_path / "more" / "contempt" / "a.png")
    table = write_parquet(tmp_path / "fer2013.parquet", parquet_columns(faces))
    joint = load_set(table, load("mien-plus", [f'data.extra=[{{path="{tmp_path / "more"}"}}]']))
    assert (len(joint.emotions), has_private_test(joint)) == (8, False)
    assert is_private_test(joint, Split.PRIVATE_TEST)
    table = write_csv(tmp_path / "part.csv", csv_rows(faces))  # not all of FER-2013: a set of one's own
    for classes in ("seven", "eight"):
        part = load_test_set(table, CLASS_SETS[classes])
        assert len(part.emotions) == len(CLASS_SETS[classes])
        assert is_private_test(part, Split.PRIVATE_TEST)


def test_the_default_is_in_the_checkout_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_ledger() == ROOT / "results" / "private-test-looks.json"
    monkeypatch.setattr("mien.lab.ledger.CHECKOUT", tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert default_ledger() == tmp_path / "home" / ".mien" / "private-test-looks.json"


def test_the_embedded_files_are_known_to_the_ledger() -> None:
    """Their figures are looks that have happened: to evaluate a file of the package again is a repeat."""
    known = {answer for look in Ledger().entries() for answer in look["answers"]}
    files = sorted(BUNDLED.glob("mien-*/*.onnx"))
    assert len(files) == 4
    assert {file_sha256(path) for path in files} <= known
