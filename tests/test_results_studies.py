"""How docs/results.md tells of studies: step by step, with voters, with milliseconds, and not every pair of many."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import write_results
from support.run_records import write


def study(family: str, axes: dict[str, list[str]], values: list[float]) -> dict[str, Any]:
    """A study on one axis whose steps bring ``values`` in turn, as `mien compare --keep` tells it."""
    (axis, names), *_ = axes.items()
    told = {
        "n": 100,
        "accuracy": 0.5,
        "balanced_accuracy": 0.4,
        "macro_f1": 0.3,
        "log_loss": 1.25,
        "interval": [0.45, 0.55],
    }
    confusions = [{"label": "fear", "read_as": "sad", "share": 0.3}]
    settings = [{"setting": [name], "models": ["m"], "figures": told, "confusions": confusions} for name in names]
    effects = [
        # told of the earlier over the later
        {"axis": axis, "first": one, "second": two, "within": None, "figure": figure, "value": -value}
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


def test_an_ablation_is_told_step_by_step_and_a_gain_is_a_gain(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    said = study("hybrid-ablation-narrow", {"parts": ["backbone", "attention", "branches"]}, [0.02, -0.005])
    (tmp_path / "studies" / "hybrid-ablation-narrow.json").write_text(json.dumps(said))
    page = write_results.page(tmp_path, cards=False)
    gain, loss = "| **+2.0** | +1.0 to +3.0 ", "| -0.5 | -1.5 to +0.5 "
    assert f"| + attention {gain * 3}|" in page
    assert f"| + branches {loss * 3}|" in page
    assert "One seed a step" in page
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
    for told in ("Milliseconds: of one face on one thread of Some Processor.", "| 1.23 | 0.50 | 1 |", "| – | – | 1 |"):
        assert told in page


def test_of_many_values_the_first_alone_is_held_against_the_others(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    few, many = ({"parts": ["one", "two", "three", "four", "five"][:count]} for count in (4, 5))
    assert "parts: three over four" in write_page_of(tmp_path, study("f", few, [0.02] * 3))
    page = write_page_of(tmp_path, study("f", many, [0.02] * 4))
    assert "parts: one over two" in page
    assert "One seed a setting" in page
    assert "Of more than 4 values, the first against each other one." in page
    assert "parts: three over four" not in page


def write_page_of(folder: Path, said: dict[str, Any]) -> str:
    (folder / "studies" / "f.json").write_text(json.dumps(said))
    return write_results.page(folder, cards=False)


def test_members_of_a_study_stand_in_it_and_among_the_costs_alone(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    told = study("f", {"parts": ["one", "two"]}, [0.02])
    (tmp_path / "studies" / "f.json").write_text(json.dumps(told))
    write(tmp_path, "alone", 0.6)
    write(tmp_path, "f/one", 0.5)
    before, costs = write_results.page(tmp_path, cards=False).split("## What each cost")
    assert "`alone`" in before
    assert "`f/one`" not in before
    assert "| `f/one` | 48 px | 1,234 |" in costs
    assert "| `f/one` | 009 |" not in costs
