"""docs/results.md is up to date, deterministic, and correct for invented results, claims and studies."""

import json
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import docs_results
import docs_tables
from mien.infer import bundled_models, find_model
from mien.lab.data.faceset import file_sha256
from mien.lab.files import load_json
from mien.lab.ledger import recorded_answers
from support.paths import ROOT

CLAIMED = {"accuracy": 0.9, "recall.sad": 0.5}


def figures(accuracy: float, n: int = 100) -> dict[str, Any]:
    """Metrics of ``n`` faces of two emotions."""
    each = {"happy": accuracy, "sad": 0.25}
    return {
        "n": n,
        "accuracy": accuracy,
        "interval": [accuracy - 0.05, accuracy + 0.05],
        "balanced_accuracy": 0.4,
        "macro_f1": 0.3,
        "log_loss": 1.25,
        "ece": 0.02,
        "intervals": {"accuracy": [accuracy - 0.05, accuracy + 0.05], "log_loss": [1.2, 1.29]},
        "recall": each,
        "precision": each,
        "confusion": [[round(accuracy * n), n - round(accuracy * n)], [75, 25]],
    }


MEMBER = "vgg-vs-resnet-reduced/vgg16-48-three-adam"


def write(root: Path, name: str, accuracy: float, *, seed: int = 0, split: str = "private", **claim: Any) -> None:
    """Write ``metrics.json`` of one run, evaluated on ``split``; ``claim`` changes its published claim."""
    place = root / name / f"seed-{seed}"
    place.mkdir(parents=True)
    by = {"all": figures(accuracy), "clean": figures(accuracy - 0.1, 90)}
    said = {"recipe": name, "seed": seed, "metrics": {split: {"fp32": by}}, "parameters": 1234, "macs": 5_600_000}
    said |= {"size": 48, "epochs": 3, "seconds": 60, "machine": "a machine", "commit": "abc", "evaluated_at": "def"}
    stated = {"document": "009", "variant": "own", "split": "its own", "metrics": CLAIMED} | claim
    (place / "metrics.json").write_text(json.dumps(said | {"claim": stated}))


def test_the_results_stay_small() -> None:
    """No drawings and no weights but those that recipes start from or learn from (docs/how-to/reproduce.md)."""
    listed = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split()]
    assert {path.suffix for path in files} <= {".json", ".jsonl", ".md", ".npz", ".pt", ".toml"}
    assert sum(path.stat().st_size for path in files) < 20e6


def valued_intervals(content: Any, where: str) -> Iterator[tuple[str, float, tuple[float, float]]]:
    """Every value of a JSON file that has an interval beside it, with its place."""
    for key, inner in content.items() if isinstance(content, dict) else enumerate(content):
        yield from valued_intervals(inner, f"{where}/{key}") if isinstance(inner, dict | list) else ()
    if not isinstance(content, dict):
        return
    for key, edges in content.get("intervals", {}).items():
        yield f"{where}/{key}", content[key], edges
    for key, edges in content.items():
        name = key.removesuffix("interval").removesuffix("_")
        names = [name] if name else ["value", "accuracy", "agreement", "share", "mean", "points"]
        values = [content[each] for each in names if isinstance(content.get(each), float | int)]
        if key.endswith("interval") and edges and len(values) == 1:
            yield f"{where}/{key}", values[0], edges


@pytest.mark.parametrize("folder", ["results", "src/mien/bundled"])
def test_no_value_is_outside_of_its_interval(folder: str) -> None:
    found, outside = 0, []
    for path in sorted((ROOT / folder).rglob("*.json")):
        for where, value, (low, high) in valued_intervals(json.loads(path.read_text("utf-8")), path.stem):
            found += 1
            if not low - 1e-4 <= value <= high + 1e-4:  # some files hold rounded edges
                outside.append((str(path), where, value, low, high))
    assert found > 100
    assert outside == []


def test_figures_come_from_the_files(tmp_path: Path) -> None:
    write(tmp_path, "alone", 0.5)
    page = docs_results.page(tmp_path, cards=False)
    assert "| `alone` | 009 | own | 2 | 100 | 50.0 % | 45.0 to 55.0 | 40.0 % | 40.0 % | 30.0 % | – → 1.250 |" in page
    assert "| `alone` | 48 px | 1,234 | 5.6 | 3 | 60 | – | a machine | abc | def |\n" in page
    assert page == docs_results.page(tmp_path, cards=False)


def test_seeds_become_mean_and_deviation(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.5, 0.52, 0.54)):
        write(tmp_path, "several", accuracy, seed=seed)
    page = docs_results.page(tmp_path, cards=False)
    assert "| 52.0 % ± 2.0 |" in page
    assert "standard deviation over seeds" in page
    assert "| 3 |" in page


def test_seeds_of_several_machines_and_commits_name_each_once(tmp_path: Path) -> None:
    for seed, (machine, commit) in enumerate((("one", "a" * 40), ("other", "b" * 40 + "+"), ("other", "b" * 40 + "+"))):
        write(tmp_path, "several", 0.5, seed=seed)
        path = tmp_path / "several" / f"seed-{seed}" / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": machine, "commit": commit}))
    page = docs_results.page(tmp_path, cards=False)
    assert f"| 60 60 60 | – | one; other | {'a' * 12} {'b' * 12}+ | def |" in page


def test_a_cross_validation_has_a_row_with_all_its_folds(tmp_path: Path) -> None:
    place = tmp_path / "net" / "folds-seed-0"
    place.mkdir(parents=True)
    found = {"folds": {"fp32": {"all": figures(0.6)}}}
    content = {"recipe": "net", "seed": 0, "metrics": found, "folds": [0.5, 0.7], "machine": "one core"}
    content |= {"train_precision": "32-true"}
    (place / "metrics.json").write_text(json.dumps(content))
    heads, rule, row = docs_tables.folds_section(tmp_path)[-1].split("\n")
    assert heads.count("|") == rule.count("|") == row.count("|")
    assert "| 60.0 % | 55.0 to 65.0 | – |" in row
    assert row.endswith("| 50.0 % 70.0 % | one core, fp32 |")


@pytest.mark.parametrize(("split", "heading"), [("public", "## PublicTest"), ("leaky", "## Leaky on purpose")])
def test_other_splits_stand_apart(tmp_path: Path, split: str, heading: str) -> None:
    write(tmp_path, "final", 0.6)
    write(tmp_path, "other", 0.7, split=split)
    page = docs_results.page(tmp_path, cards=False)
    private, rest = page.split(heading)
    assert "`other`" not in private
    assert "`other`" in rest


def test_changes_of_a_tuned_recipe_are_read_from_its_file(tmp_path: Path) -> None:
    from mien.lab.recipe import dump, load

    write(tmp_path, "conv4", 0.6)
    changed = dump(load("conv4", ["train.epochs=7"]))
    (tmp_path / "conv4" / "seed-0" / "recipe.json").write_text(json.dumps(changed))
    assert "- `conv4`: `train.epochs = 7`" in docs_results.page(tmp_path, cards=False)


def test_costs_name_the_runs_that_a_run_was_built_on(tmp_path: Path) -> None:
    from mien.lab.recipe import dump, load

    changes = [
        "net.weights=runs/first/seed-0",
        "target.teachers=['runs/wise.npz','results/old/seed-2']",
        "target.distillation=1",
    ]
    for name, recipe in (("later", load("mien-0", changes)), ("fetched", load("mien-0", ["net.weights=imagenet"]))):
        write(tmp_path, name, 0.6)
        (tmp_path / name / "seed-0" / "recipe.json").write_text(json.dumps(dump(recipe)))
    page = docs_results.page(tmp_path, cards=False)
    assert "| 60 | `first`, `wise`, `old` | a machine |" in page
    assert "| 60 | `imagenet` | a machine |" in page


def test_the_waiting_queue_is_on_the_page_of_the_project_only(tmp_path: Path) -> None:
    write(tmp_path, "alone", 0.5)
    assert "Still to be trained" in docs_results.page(tmp_path)
    assert "Still to be trained" not in docs_results.page(tmp_path, cards=False)


def test_explanations_are_shown_with_their_claims_and_tests(tmp_path: Path) -> None:
    (tmp_path / "explain").mkdir()
    (tmp_path / "explain" / "net.json").write_text(json.dumps(explanation()))
    page = docs_results.page(tmp_path, cards=False)
    assert "## Where `net` looks" in page
    assert "Maps by grad-cam at `features`, 8x8 places. 40 faces of PublicTest (50 rows)" in page
    assert "| prediction | faces | correct | eyes | mouth |" in page
    assert "| happy | 20 | 15 | 0.90 (0.70 to 1.10) | **1.60 (1.40 to 1.80)** |" in page
    assert "- Document 000, mouth for happy: Holds. More than chance: yes, 1.60 times chance" in page
    assert "insertion AUC: better than random maps (+0.100, +0.050 to +0.150)" in page
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
    areas = {"map": {"differences": {"random": {"difference": 0.1, "interval": [0.05, 0.15]}}}}
    return {
        "model": {"model": "net"},
        "method": "grad-cam",
        "layer": "features",
        "map_size": [8, 8],
        "faces": {"explained": 40, "split": "PublicTest", "total": 50, "drawn": "all", "left_out": {}}
        | {"correct": 30, "protocol": "the labels of the set"},
        "alignment": {"how": "none", "key_points_not_found": 0, "map_without_evidence": 0},
        "regions": {"area": {"eyes": 0.1, "mouth": 0.1, "rest": 0.8}},
        "attention": {"happy": {"faces": 20, "correct": 15, "regions": regions}},
        "claims": [claim],
        "faithfulness": {"deletion": areas, "insertion": areas},
        "randomisation": {"stages": [{"layers": ["head"], "correlation": 0.1, "interval": [0.0, 0.2]}]},
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
            | {"recipe": {"name": "quick", "tta": "flip"}, "reached": 1, "runs": [run(None, 100.0), run(9.0, 90.0)]}
        )
    )
    sharp = {"name": "quick", "tta": "six", "augment": {"interpolation": "bicubic"}}
    six = said | {"recipe": sharp, "reached": 0, "n": 1, "deviation_seconds": None, "runs": [run(None, 80.0)]}
    (folder / "wide.json").write_text(json.dumps(six))
    page = docs_results.page(tmp_path, cards=False)
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
    page = docs_results.page(tmp_path, cards=False)
    assert page.count("times as long here") == 1
    assert "The 2 int8 files of the table above took 1.50 times as long here" in page


@pytest.mark.parametrize("comparison", docs_tables.COMPARISONS, ids=lambda each: each.folder)
def test_accuracy_against_milliseconds_is_a_table_and_a_drawing(
    comparison: docs_tables.Comparison, tmp_path: Path
) -> None:
    said = {
        "split": "PrivateTest",
        "models": [compared("slow", 0.6, 2.5), compared("fast", 0.7, 0.4, precision="int8")],
        "common": {"n": 300, "emotions": ["happy", "sad"], "narrowed": True},
        "measured_on": {"processor": "a processor"},
        "provenance": {"command": "mien compare"},
    }
    path = tmp_path / comparison.folder / "PrivateTest.json"
    path.parent.mkdir()
    path.write_text(json.dumps(said))
    page = docs_results.page(tmp_path, cards=False)
    assert f"\n\n{comparison.heading}\n\n![{comparison.alt}]({comparison.plot})\n\n" in page
    assert "on the 300 faces of PrivateTest " in page
    assert "the classes that all models know (happy, sad)" in page
    assert "| `fast` | 70.0 % | 68.0 to 72.0 | – | 0.40 | 1.20 M |\n| `slow` | 60.0 % |" in page
    drawn = docs_results.draw(tmp_path, comparison)
    assert drawn is not None
    assert drawn == docs_results.draw(tmp_path, comparison)
    assert "prefers-color-scheme: dark" in drawn
    assert ">fast<" in drawn
    assert "#040404" not in drawn
    path.write_text(json.dumps(said | {"measured_on": None}))  # compared without its times
    assert docs_results.draw(tmp_path, comparison) is None
    assert "milliseconds" not in docs_results.page(tmp_path, cards=False)


def test_a_system_has_one_table_with_its_recipes_across(tmp_path: Path) -> None:
    write(tmp_path, "net", 0.5, variant="faithful")
    write(tmp_path, "net-narrow", 0.87, variant="tuned")
    write(tmp_path, "net-tuned", 0.96, variant="tuned")
    page = docs_results.page(tmp_path, cards=False)
    assert page.count("### Document 009: `net`") == 1
    assert "Claimed on: its own.\n" in page
    # The faithful one first, then the best.
    assert "| metric | claimed | `net` | `net-tuned` | `net-narrow` |" in page
    assert "| accuracy | 90.0 % | 50.0 % (45.0 to 55.0), worse | **96.0 %** (91.0 to 101.0), better | 87.0 % (" in page
    assert "| recall of sad | 50.0 % | 25.0 % (17.5 to 34.3), worse |" in page


def test_verdicts_have_their_looks_from_the_ledger_and_their_calibration() -> None:
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    tables = text.split("## Claimed and measured")[1].split("\n## ")[0].split("\n### ")[1:]
    assert len(tables) == 4
    entries, marked = docs_tables.LEDGER.entries(), 0
    for table in tables:
        heads, _, looks, calibration, *figures = (
            [cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines() if line.startswith("|")
        )
        for column, head in enumerate(heads[1:], 1):
            family = {entry["family"] for entry in entries if f"`{entry['recipe']}`" == head}
            count = len({entry["look"] for entry in entries if entry["family"] in family})
            assert looks[column].partition(" ")[0] == (str(count) if count else "–"), head
            assert calibration[column] in ("vector", "temperature") or "last epoch" in head
            verdicts = [row[column] for row in figures if len(row) == len(heads) and "), " in row[column]]
            assert {verdict.endswith(docs_tables.MARKED) for verdict in verdicts} == {count > 1}, head
            marked += count > 1
    assert marked > 5


def test_a_faithful_net_is_also_judged_as_its_document_trained_it(tmp_path: Path) -> None:
    write(tmp_path, "net", 0.5, variant="faithful")
    path = tmp_path / "net" / "seed-0"
    content = json.loads((path / "metrics.json").read_text())
    content["metrics"]["public"] = {"fp32": {"all": figures(0.6, 1000)}}
    (path / "metrics.json").write_text(json.dumps(content))
    (path / "recipe.json").write_text(json.dumps({"checkpoint": "best", "net": {}, "target": {}, "data": {}}))
    epochs = [{"epoch": n, "val_split": "public", "val_accuracy": value} for n, value in ((1, 0.7), (2, 0.4))]
    (path / "log.jsonl").write_text("\n".join(map(json.dumps, epochs)))
    page = docs_results.page(tmp_path, cards=False)
    assert "| metric | claimed | `net` | `net`, last epoch, PublicTest |" in page
    assert "| accuracy | 90.0 % | 50.0 % (45.0 to 55.0), worse | 40.0 % (37.0 to 43.1), worse |" in page
    assert "| recall of sad | 50.0 % | 25.0 % (17.5 to 34.3), worse | not recorded |" in page
    assert "not calibrated: 40.00 % of PublicTest (`log.jsonl`), where the document has 90.00 %" in page


def test_the_last_epoch_of_document_004_is_in_its_table() -> None:
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert "50.43 % of PublicTest (`log.jsonl`), where the document has 51.80 %" in text
    (row,) = docs_tables.read_rows(docs_tables.RESULTS / "conv4")
    assert row.last_epoch == pytest.approx(0.5043, abs=5e-5)


def test_variants_are_shown_with_the_same_calibration() -> None:
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    kept = load_json(docs_tables.RESULTS / "alike" / "PublicTest.json")
    assert {model["calibration"]["compared"] for model in kept["models"]} == {"vector"}
    section = text.split("## The same calibration for compared variants")[1].split("\n## ")[0]
    for model in kept["models"]:
        (row,) = [line for line in section.splitlines() if line.startswith(f"| `{model['name']}` |")]
        own, compared = model.get("own", {}).get("accuracy"), model["metrics"]["all"]["accuracy"]
        assert f"{100 * compared:.1f} %" in row
        assert own is None or f"| temperature → vector | {100 * own:.1f} % → {100 * compared:.1f} % |" in row


def test_of_log_loss_less_is_better_and_what_was_not_measured_is_not_comparable(tmp_path: Path) -> None:
    write(tmp_path, "worse", 0.5, document="001", metrics={"log_loss": 1.2, "recall.fear": 0.4})
    write(tmp_path, "better", 0.5, document="002", metrics={"log_loss": 1.3})
    page = docs_results.page(tmp_path, cards=False)
    assert "| log loss | 1.200 | 1.250 (1.200 to 1.290), within noise |" in page
    assert "| recall of fear | 40.0 % | not comparable |" in page
    assert "| log loss | 1.300 | **1.250** (1.200 to 1.290), better |" in page


def test_two_systems_of_one_document_stay_apart_and_runs_of_public_test_are_named(tmp_path: Path) -> None:
    write(tmp_path, "one", 0.5, metrics={"accuracy": 0.4})
    write(tmp_path, "two", 0.5, metrics={"accuracy": 0.6}, split="public")
    write(tmp_path, "none", 0.5, metrics={})
    write(tmp_path, "leak", 0.9, metrics={"accuracy": 0.7}, split="leaky")
    claims = docs_results.page(tmp_path, cards=False).split("## Claimed and measured")[1].split("## What")[0]
    assert "| metric | claimed | `one` |" in claims
    assert "| metric | claimed | `two`, PublicTest |" in claims
    assert "`none`" not in claims
    assert "`leak`" not in claims


@pytest.mark.parametrize(("split", "reason"), [("not said", "unknown"), ("it shares faces with training", "copies")])
def test_a_claim_of_another_split_is_called_not_comparable(tmp_path: Path, split: str, reason: str) -> None:
    write(tmp_path, "net", 0.5)
    path = tmp_path / "net" / "seed-0" / "metrics.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"claim": content["claim"] | {"split": split}}))
    (line,) = [line for line in docs_results.page(tmp_path, cards=False).splitlines() if line.startswith("Claimed on:")]
    assert "The claim is not comparable" in line
    assert reason in line


def test_without_claims_there_is_no_such_section(tmp_path: Path) -> None:
    write(tmp_path, "own", 0.5, metrics={})
    assert "Claimed" not in docs_results.page(tmp_path, cards=False)


def test_a_member_is_compared_with_that_of_the_faithful_family() -> None:
    (row,) = (row for row in docs_tables.read_rows(ROOT / "results") if row.name == MEMBER)
    assert docs_tables.published(MEMBER) == "vgg-vs-resnet/vgg16-48-three-adam"
    assert docs_tables.reduced_by(row) == "epochs 6.2"
    assert row.changed == "train.epochs = 8, train.patience = 1"


@pytest.mark.parametrize("clean", ["net", "net-reduced"])
def test_the_leak_is_shown_only_beside_the_claim_that_it_explains(clean: str, tmp_path: Path) -> None:
    write(tmp_path, "net", 0.5, document="001")
    write(tmp_path, "other", 0.5, document="002", metrics={"accuracy": 0.6})
    evaluated = {"n": 9330, "accuracy": 66.84, "accuracy_interval": [65.43, 68.3]}
    run = {"size": 64, "epochs": 20}
    leak = {
        "runs": {"leaky": run | {"recipe": "net-leaky"}, "clean": run | {"recipe": clean}},
        "leaky": {"all": evaluated, "with a relative": evaluated, "without": evaluated | {"accuracy": 60.64}},
        "clean": {"PublicTest, all": evaluated | {"accuracy": 61.02}},
    }
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "leak.json").write_text(json.dumps(leak))
    page = docs_results.page(tmp_path, cards=False)
    first, second = page.split("### Document 001: `net`")[1].split("### Document 002: `other`")
    assert "`net-leaky`, from random weights at 64 px for 20 epochs, has an accuracy of 66.8 % (65.4 to 68.3)" in first
    assert "66.8 % (65.4 to 68.3) on its 9,330 validation faces" in first
    assert "60.6 % (65.4 to 68.3) on those without" in first
    assert "has 61.0 % (65.4 to 68.3) on PublicTest" in first
    assert "leaky" not in second


def study(family: str, axes: dict[str, list[str]], values: list[float]) -> dict[str, Any]:
    """A study on one axis whose steps bring ``values`` in turn, as `mien compare --keep` tells it."""
    (axis, names), *_ = axes.items()
    metrics = {
        "n": 100,
        "accuracy": 0.5,
        "balanced_accuracy": 0.4,
        "macro_f1": 0.3,
        "log_loss": 1.25,
        "interval": [0.45, 0.55],
    }
    confusions = [{"label": "fear", "read_as": "sad", "share": 0.3}]
    settings = [{"setting": [name], "models": ["m"], "metrics": metrics, "confusions": confusions} for name in names]
    effects = [
        # by which the earlier exceeds the later
        {"axis": axis, "first": one, "second": two, "within": None, "metric": figure, "value": -value}
        | {"interval": [-value - 0.01, -value + 0.01], "p": 0.01, "matched": 1}
        for (one, two), value in zip(pairwise(names), values, strict=True)
        for figure in ("accuracy", "balanced_accuracy", "macro_f1")
    ]
    return {
        "family": family,
        "axes": axes,
        "split": "PrivateTest",
        "settings": settings,
        "missing": {"f/gan": "train"},
    } | {
        "effects_on_own_classes": effects,
        "effects_on_shared_faces": effects,
    }


def test_an_ablation_is_shown_step_by_step_with_signed_gains(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    said = study("hybrid-ablation-narrow", {"parts": ["backbone", "attention", "branches"]}, [0.02, -0.005])
    (tmp_path / "studies" / "hybrid-ablation-narrow.json").write_text(json.dumps(said))
    page = docs_results.page(tmp_path, cards=False)
    gain, loss = "| **+2.0** | +1.0 to +3.0 ", "| -0.5 | -1.5 to +0.5 "
    assert f"| + attention {gain * 3}|" in page
    assert f"| + branches {loss * 3}|" in page
    assert "One seed per step" in page
    assert "Not trained: f/gan." in page
    assert "| backbone | fear as sad 30.0 % |" in page


def test_a_study_of_faces_with_votes_tells_how_often_most_voters_are_agreed_with(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    said = study("f", {"parts": ["one", "two"]}, [0.02])
    assert "Voters:" not in write_page_of(tmp_path, said)
    said["settings"][0]["agrees_with_voters"], said["settings"][1]["agrees_with_voters"] = 0.75, None
    page = write_page_of(tmp_path, said)
    assert "Voters:" in page
    assert "| 75.0 % | 1 |" in page
    assert "| – | 1 |" in page


def test_a_study_that_was_timed_tells_milliseconds_and_of_which_machine(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    said = study("f", {"parts": ["one", "two"]}, [0.02]) | {"provenance": {"machine": "Some Processor, 2 cores"}}
    assert "illiseconds" not in write_page_of(tmp_path, said)
    said["settings"][0]["milliseconds"], said["settings"][1]["milliseconds"] = {"fp32": 1.234, "int8": 0.5}, {}
    page = write_page_of(tmp_path, said)
    for text in ("Milliseconds: of one face on one thread of Some Processor.", "| 1.23 | 0.50 | 1 |", "| – | – | 1 |"):
        assert text in page


def test_of_many_values_the_first_alone_is_held_against_the_others(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    few, many = ({"parts": ["one", "two", "three", "four", "five"][:count]} for count in (4, 5))
    assert "parts: three over four" in write_page_of(tmp_path, study("f", few, [0.02] * 3))
    page = write_page_of(tmp_path, study("f", many, [0.02] * 4))
    assert "parts: one over two" in page
    assert "One seed per setting" in page
    assert "Of more than 4 values, the first against each other one." in page
    assert "parts: three over four" not in page


def write_page_of(folder: Path, said: dict[str, Any]) -> str:
    (folder / "studies" / "f.json").write_text(json.dumps(said))
    return docs_results.page(folder, cards=False)


def test_members_of_a_study_stand_in_it_and_among_the_costs_alone(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    result = study("f", {"parts": ["one", "two"]}, [0.02])
    (tmp_path / "studies" / "f.json").write_text(json.dumps(result))
    write(tmp_path, "alone", 0.6)
    write(tmp_path, "f/one", 0.5)
    before, costs = docs_results.page(tmp_path, cards=False).split("## What each cost")
    assert "`alone`" in before
    assert "`f/one`" not in before
    assert "| `f/one` | 48 px | 1,234 |" in costs
    assert "| `f/one` | 009 |" not in costs


def test_every_recorded_figure_on_private_test_is_in_the_ledger() -> None:
    """An entry without a recorded figure is allowed: its weights were replaced, and the page lists it."""
    known = {digest for entry in docs_tables.LEDGER.entries() for digest in entry["answers"]}
    recorded = [path.parent for path in docs_tables.RESULTS.rglob("seed-*/metrics.json") if "private" in _splits(path)]
    assert len(recorded) > 40
    missing = [str(folder) for folder in recorded if known.isdisjoint(recorded_answers(folder).digests)]
    for name in bundled_models():
        missing += [name] if known.isdisjoint({file_sha256(find_model(name))}) else []
    assert missing == []


def _splits(path: Path) -> set[str]:
    return set(load_json(path)["metrics"])


def test_looks_are_in_the_tables() -> None:
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    (row,) = [
        line for line in text.splitlines() if line.startswith("| `attention-resnet-128` | 003 | tuned | 7 | 3,589")
    ]
    assert "| 70.2 %\N{DAGGER} |" in row
    assert row.endswith("| 6 |")
    assert "**" not in text.split("## Looks at PrivateTest")[0]  # bold is for what is at least as good as a claim
    entries = docs_tables.LEDGER.entries()
    accuracies = [entry["accuracy"]["fp32"] for entry in entries if entry["family"] == "003 attention-resnet"]
    assert [f"{value:.3f}" for value in accuracies] == ["0.634", "0.670", "0.678", "0.687", "0.702", "0.631"]
    for entry in entries:
        assert entry["why"] in text
