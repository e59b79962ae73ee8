"""What documents claim stands beside what we measure: a table for each system, bold where ours is as good."""

import json
from pathlib import Path

import write_results
from support.run_records import write


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


def test_the_leak_stands_beside_the_claim_that_it_explains_and_nowhere_else(tmp_path: Path) -> None:
    write(tmp_path, "net", 0.5, document="001")
    write(tmp_path, "other", 0.5, document="002", figures={"accuracy": 0.6})
    judged = {"n": 9330, "accuracy": 66.84, "accuracy_interval": [65.43, 68.3]}
    run = {"size": 64, "epochs": 20}
    leak = {
        "runs": {"leaky": run | {"recipe": "net-leaky"}, "clean": run | {"recipe": "net"}},
        "leaky": {"all": judged, "with a relative": judged, "without": judged | {"accuracy": 60.64}},
        "clean": {"PublicTest, all": judged | {"accuracy": 61.02}},
    }
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "leak.json").write_text(json.dumps(leak))
    page = write_results.page(tmp_path, cards=False)
    first, second = page.split("### Document 001: `net`")[1].split("### Document 002: `other`")
    assert "`net-leaky`, from random weights at 64 px for 20 epochs, reads 66.8 % (65.4 to 68.3) of its 9,330" in first
    assert "60.6 % (65.4 to 68.3) of those without" in first
    assert "reads 61.0 % (65.4 to 68.3) of PublicTest" in first
    assert "leaky" not in second
