"""What documents claim stands beside what we measure: a table for each system, bold where ours is as good."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import write_results
from evidence import write


def test_a_system_has_one_table_with_its_recipes_across(tmp_path: Path) -> None:
    write(tmp_path, "net", 0.5, variant="faithful")
    write(tmp_path, "net-narrow", 0.85, variant="tuned")
    write(tmp_path, "net-tuned", 0.92, variant="tuned")
    page = write_results.page(tmp_path, cards=False)
    assert page.count("### Document 009: `net`") == 1
    assert "Claimed on: its own." in page
    # The faithful one first, then the best.
    assert "| figure | claimed | `net` | `net-tuned` | `net-narrow` |" in page
    assert "| accuracy | 90.0 % | 50.0 % | **92.0 %** | 85.0 % |" in page
    assert "| recall of sad | 50.0 % | 25.0 % | 25.0 % | 25.0 % |" in page


def test_of_log_loss_less_is_better_and_what_was_not_measured_has_a_dash(tmp_path: Path) -> None:
    write(tmp_path, "worse", 0.5, document="001", figures={"log_loss": 1.2, "recall.fear": 0.4})
    write(tmp_path, "better", 0.5, document="002", figures={"log_loss": 1.3})
    page = write_results.page(tmp_path, cards=False)
    assert "| log loss | 1.200 | 1.250 |" in page
    assert "| recall of fear | 40.0 % | – |" in page
    assert "| log loss | 1.300 | **1.250** |" in page


def test_two_systems_of_one_document_stay_apart_and_runs_of_public_test_are_named(tmp_path: Path) -> None:
    write(tmp_path, "one", 0.5, figures={"accuracy": 0.4})
    write(tmp_path, "two", 0.5, figures={"accuracy": 0.6}, split="public")
    write(tmp_path, "none", 0.5, figures={})
    write(tmp_path, "leak", 0.9, figures={"accuracy": 0.7}, split="leaky")
    claims = write_results.page(tmp_path, cards=False).split("## Claimed and measured")[1].split("## What")[0]
    assert "| figure | claimed | `one` |" in claims
    assert "| figure | claimed | `two`, PublicTest |" in claims
    assert "`none`" not in claims
    assert "`leak`" not in claims


def test_without_claims_there_is_no_such_section(tmp_path: Path) -> None:
    write(tmp_path, "own", 0.5, figures={})
    assert "Claimed" not in write_results.page(tmp_path, cards=False)
