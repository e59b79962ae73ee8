"""docs/results.md is what its files say: fresh, deterministic, and right on evidence that a test wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import results_pace
import write_results
from support.paths import ROOT
from support.run_records import write


def test_the_page_is_fresh() -> None:
    command = [sys.executable, "tools/write_results.py", "--check"]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def test_figures_come_from_the_files(tmp_path: Path) -> None:
    write(tmp_path, "alone", 0.5)
    page = write_results.page(tmp_path, cards=False)
    assert "| `alone` | 009 | own | 2 | 100 | **50.0 %** | 45.0 to 55.0 | 40.0 % | 40.0 % | 30.0 % | 1.250 |" in page
    assert "| `alone` | 48 px | 1,234 | 5.6 | 3 | 60 | – | a machine | abc | def | [curves](../" in page
    assert page == write_results.page(tmp_path, cards=False)


def test_seeds_become_mean_and_deviation(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.5, 0.52, 0.54)):
        write(tmp_path, "several", accuracy, seed=seed)
    page = write_results.page(tmp_path, cards=False)
    assert "**52.0 % ± 2.0**" in page
    assert "standard deviation over seeds" in page
    assert "| 3 |" in page


def test_seeds_of_several_machines_and_commits_name_each_once(tmp_path: Path) -> None:
    for seed, (machine, commit) in enumerate((("one", "a" * 40), ("other", "b" * 40 + "+"), ("other", "b" * 40 + "+"))):
        write(tmp_path, "several", 0.5, seed=seed)
        path = tmp_path / "several" / f"seed-{seed}" / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": machine, "commit": commit}))
    page = write_results.page(tmp_path, cards=False)
    assert f"| 60 60 60 | – | one; other | {'a' * 12} {'b' * 12}+ | def |" in page


@pytest.mark.parametrize(("split", "heading"), [("public", "## PublicTest"), ("leaky", "## Leaky on purpose")])
def test_other_splits_stand_apart(tmp_path: Path, split: str, heading: str) -> None:
    write(tmp_path, "final", 0.6)
    write(tmp_path, "other", 0.7, split=split)
    page = write_results.page(tmp_path, cards=False)
    private, rest = page.split(heading)
    assert "`other`" not in private
    assert "`other`" in rest


def test_what_a_tuned_recipe_changes_is_told_from_its_file(tmp_path: Path) -> None:
    from mien.lab.recipe import dump, load

    write(tmp_path, "conv4", 0.6)
    changed = dump(load("conv4", ["optimise.epochs=7"]))
    (tmp_path / "conv4" / "seed-0" / "recipe.json").write_text(json.dumps(changed))
    assert "- `conv4`: `optimise.epochs = 7`" in write_results.page(tmp_path, cards=False)


def test_costs_name_the_runs_that_a_run_was_built_on(tmp_path: Path) -> None:
    from mien.lab.recipe import dump, load

    changes = [
        "net.weights=runs/first/seed-0",
        "target.teachers=['runs/wise.npz','results/old/seed-2']",
        "target.teach=1",
    ]
    for name, recipe in (("later", load("mien-0", changes)), ("fetched", load("mien-0", ["net.weights=imagenet"]))):
        write(tmp_path, name, 0.6)
        (tmp_path / name / "seed-0" / "recipe.json").write_text(json.dumps(dump(recipe)))
    page = write_results.page(tmp_path, cards=False)
    assert "| 60 | `first`, `wise`, `old` | a machine |" in page
    assert "| 60 | – | a machine |" in page


def test_what_is_left_to_train_stands_on_the_page_of_the_project_alone(tmp_path: Path) -> None:
    write(tmp_path, "alone", 0.5)
    assert "Still to be trained" in write_results.page(tmp_path)
    assert "Still to be trained" not in write_results.page(tmp_path, cards=False)


def test_where_a_network_looks_is_told_with_its_claims_and_tests(tmp_path: Path) -> None:
    (tmp_path / "explain").mkdir()
    (tmp_path / "explain" / "net.json").write_text(json.dumps(explanation()))
    page = write_results.page(tmp_path, cards=False)
    assert "## Where `net` looks" in page
    assert "Maps by grad-cam at `features`, 8x8 places. 40 faces of PublicTest (50 rows)" in page
    assert "| read as | faces | rightly | eyes | mouth |" in page
    assert "| happy | 20 | 15 | 0.90 (0.70–1.10) | **1.60 (1.40–1.80)** |" in page
    assert "- Document 000, mouth for happy: Holds. More than chance: yes, 1.60 times chance" in page
    assert "insertion: better than random maps as coarse (+0.100, +0.050 to +0.150)" in page
    assert "`mien explain net` at commit `abc`, a machine." in page


def explanation() -> dict[str, Any]:
    """What `mien explain --keep` writes, of a net that looks at mouths."""
    regions = {
        region: {"relative": value, "relative_interval": [value - 0.2, value + 0.2]}
        for region, value in (("eyes", 0.9), ("mouth", 1.6))
    }
    claim = {"document": "000", "emotion": "happy", "region": "mouth", "verdict": "holds", "rival": "nose"}
    claim |= dict.fromkeys(("more_than_chance", "more_than_any_other_region", "more_than_for_other_emotions"), True)
    claim |= {"relative": 1.6, "relative_interval": [1.4, 1.8], "over_rival": 0.9, "over_rival_interval": [0.5, 1.3]}
    claim |= {"over_other_emotions": 0.05, "over_other_emotions_interval": [0.02, 0.08]}
    areas = {"map": {"less": {"random": {"difference": 0.1, "interval": [0.05, 0.15]}}}}
    return {
        "model": {"model": "net"},
        "method": "grad-cam",
        "layer": "features",
        "map": [8, 8],
        "faces": {"explained": 40, "split": "PublicTest", "total": 50, "drawn": "all", "left_out": {}}
        | {"read_rightly": 30, "protocol": "the labels of the set"},
        "alignment": {"how": "none", "key_points_not_found": 0, "map_without_evidence": 0},
        "regions": {"area": {"eyes": 0.1, "mouth": 0.1, "rest": 0.8}},
        "attention": {"happy": {"faces": 20, "right": 15, "regions": regions}},
        "claims": [claim],
        "faithfulness": {"deletion": areas, "insertion": areas},
        "sanity": {"stages": [{"layers": ["head"], "correlation": 0.1, "interval": [0.0, 0.2]}]},
        "provenance": {"command": "mien explain net", "commit": "abc", "machine": "a machine"},
    }


def compared(name: str, accuracy: float, ms: float, *, precision: str = "fp32") -> dict[str, Any]:
    """A model as `mien compare --keep` tells of it."""
    timing = {"precision": precision, "batch": 1, "ms_a_face": {"ms": ms, "median": ms, "slowest": ms}}
    common = {"accuracy": accuracy, "interval": [accuracy - 0.02, accuracy + 0.02]}
    return {"name": name, "precision": precision, "parameters": 1_200_000, "common": common} | {
        "cost": {"timings": [timing]}
    }


def test_the_race_tells_of_every_machine_and_of_runs_that_did_not_get_there(tmp_path: Path) -> None:
    def run(seconds: float | None, at_50: float | None, commit: str = "abc") -> dict[str, Any]:
        return {"seconds": seconds, "accuracy": 0.69, "on_the_way": {"50 %": at_50}, "commit": commit}

    folder = tmp_path / "speedrun"
    folder.mkdir()
    said = {"recipe": {"name": "quick"}, "machine": "a machine", "target": 0.7, "n": 2}
    (folder / "fast.json").write_text(
        json.dumps(
            said
            | {"reached": 2, "deviation_seconds": 70.7}
            | {"runs": [run(1200.0, 100.0), run(1300.0, 200.0, commit="def")]}
        )
    )
    (folder / "slow.json").write_text(
        json.dumps(
            said
            | {"recipe": {"name": "quick", "views": "flip"}, "reached": 1, "runs": [run(None, 100.0), run(9.0, 90.0)]}
        )
    )
    sharp = {"name": "quick", "views": "six", "augment": {"resample": "bicubic"}}
    six = said | {"recipe": sharp, "reached": 0, "n": 1, "deviation_seconds": None, "runs": [run(None, 80.0)]}
    (folder / "wide.json").write_text(json.dumps(six))
    page = write_results.page(tmp_path, cards=False)
    assert "| `quick` | a machine | six views | bicubic | 70 % | 80 | – | 0 of 1 | 69.0 % | abc |" in page
    assert "| `quick` | a machine | faces | bilinear | 70 % | 150 | 1,250 ± 71 | 2 of 2 | 69.0 % | abc def |" in page
    assert "| faces and mirror images | bilinear | 70 % | 95 | – | 1 of 2 | 69.0 % | abc |" in page


def test_times_of_two_days_are_set_beside_each_other(tmp_path: Path) -> None:
    for folder, factor in (("comparison", 1.0), ("agreed", 1.5)):
        models = [
            compared("a", 0.6, 2.0 * factor, precision="int8"),
            compared("b", 0.7, 0.4 * factor, precision="int8"),
        ]
        said = {
            "split": "PrivateTest",
            "models": [*models, compared("c", 0.8, 9.0)],
            "common": {"n": 300, "emotions": ["happy", "sad"], "narrowed": False},
            "measured_on": {"processor": f"of {folder}", "system": "Linux"},
            "provenance": {"command": "mien compare"},
        }
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "PrivateTest.json").write_text(json.dumps(said))
    page = write_results.page(tmp_path, cards=False)
    assert page.count("times as long here") == 1
    assert "The 2 int8 files of the table above took 1.50 times as long here" in page


@pytest.mark.parametrize("ground", results_pace.GROUNDS, ids=lambda ground: ground.folder)
def test_accuracy_against_milliseconds_is_a_table_and_a_drawing(ground: results_pace.Ground, tmp_path: Path) -> None:
    said = {
        "split": "PrivateTest",
        "models": [compared("slow", 0.6, 2.5), compared("fast", 0.7, 0.4, precision="int8")],
        "common": {"n": 300, "emotions": ["happy", "sad"], "narrowed": True},
        "measured_on": {"processor": "a processor"},
        "provenance": {"command": "mien compare"},
    }
    path = tmp_path / ground.folder / "PrivateTest.json"
    path.parent.mkdir()
    path.write_text(json.dumps(said))
    page = write_results.page(tmp_path, cards=False)
    assert f"\n\n{ground.heading}\n\n![{ground.alt}]({ground.drawing})\n\n" in page
    assert "on the 300 faces of PrivateTest " in page
    assert "the classes that all models know (happy, sad)" in page
    assert "| `fast` | **70.0 %** | 68.0 to 72.0 | – | 0.40 | 1.20 M |\n| `slow` | **60.0 %** |" in page
    drawn = results_pace.draw(tmp_path, ground)
    assert drawn is not None
    assert drawn == results_pace.draw(tmp_path, ground)
    assert "prefers-color-scheme: dark" in drawn
    assert ">fast<" in drawn
    assert "#040404" not in drawn
    path.write_text(json.dumps(said | {"measured_on": None}))  # compared without its times
    assert results_pace.draw(tmp_path, ground) is None
    assert "milliseconds" not in write_results.page(tmp_path, cards=False)
