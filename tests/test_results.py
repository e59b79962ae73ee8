"""docs/results.md is what its files say: fresh, deterministic, and right on evidence that a test wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import write_results  # noqa: E402


def test_the_page_is_fresh() -> None:
    command = [sys.executable, "tools/write_results.py", "--check"]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def figures(accuracy: float, n: int = 100) -> dict[str, Any]:
    each = {"happy": accuracy, "sad": 0.25}
    return {
        "n": n,
        "accuracy": accuracy,
        "interval": [accuracy - 0.05, accuracy + 0.05],
        "balanced_accuracy": 0.4,
        "macro_f1": 0.3,
        "log_loss": 1.25,
        "ece": 0.02,
        "recall": each,
        "precision": each,
    }


def write(root: Path, name: str, accuracy: float, *, seed: int = 0, split: str = "private") -> None:
    place = root / name / f"seed-{seed}"
    place.mkdir(parents=True)
    by = {"all": figures(accuracy), "clean": figures(accuracy - 0.1, 90)}
    said = {"recipe": name, "seed": seed, "judged": {split: {"fp32": by}}, "parameters": 1234, "macs": 5_600_000}
    said |= {"size": 48, "epochs": 3, "seconds": 60, "machine": "a machine", "commit": "abc", "judged_at": "def"}
    claim = {"document": "009", "variant": "own", "split": "its own", "figures": {"accuracy": 0.9, "recall.sad": 0.5}}
    (place / "metrics.json").write_text(json.dumps(said | {"claim": claim}))


def test_figures_come_from_the_files(tmp_path: Path) -> None:
    write(tmp_path, "alone", 0.5)
    page = write_results.page(tmp_path, cards=False)
    assert "| `alone` | 009 | own | 2 | 100 | **50.0 %** | 45.0 to 55.0 | 40.0 % | 40.0 % | 30.0 % | 1.250 |" in page
    assert "| `alone` | 009 | own | accuracy | 90.0 % | 50.0 % | PrivateTest |" in page
    assert "| `alone` | 009 | own | recall of sad | 50.0 % | 25.0 % | PrivateTest |" in page
    assert "Document 009 measured on: its own." in page
    assert "| `alone` | 48 px | 1,234 | 5.6 | 3 | 60 | a machine | abc | def |" in page
    assert page == write_results.page(tmp_path, cards=False)


def test_seeds_become_mean_and_deviation(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.5, 0.52, 0.54)):
        write(tmp_path, "several", accuracy, seed=seed)
    page = write_results.page(tmp_path, cards=False)
    assert "**52.0 % ± 2.0**" in page
    assert "standard deviation over seeds" in page
    assert "| 3 |" in page


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
