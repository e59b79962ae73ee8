"""Names of files in text that people, terminals and spreadsheets read."""

import json
import sys
import unicodedata

import pytest

from mien import MienError
from mien._format import csv_cell, printable
from mien._page import escape


def test_what_controls_a_terminal_is_escaped_and_all_else_is_kept() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        kept = printable(character) == character
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in (
            ["LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"]
        ):
            assert not kept, hex(code)
            assert json.loads(f'"{printable(character)}"') == character
        elif unicodedata.category(character) not in ("Cf", "Cn"):
            assert kept, hex(code)
    assert printable("\N{FAMILY}\u200d\N{HEAVY BLACK HEART}") == "\N{FAMILY}\u200d\N{HEAVY BLACK HEART}"


@pytest.mark.parametrize("start", list("=+-@\uff1d\uff0b\uff0d\uff20"))
def test_no_cell_begins_a_formula(start: str) -> None:
    assert csv_cell(f"{start}1.png") == f"'{start}1.png"
    assert csv_cell(f"a;{start}1.png") == f"a;'{start}1.png"
    assert csv_cell(f"a{start}1.png") == f"a{start}1.png"


def test_other_cells_are_unchanged() -> None:
    assert [csv_cell(value) for value in (-0.5, 3, None, "photo.png")] == [-0.5, 3, None, "photo.png"]
    assert csv_cell("\t=1\r") == "\\t=1\\r"


def test_messages_and_pages_are_safe() -> None:
    assert str(MienError("a\nb\x1b: no such file")) == "a\\nb\\u001b: no such file"
    assert escape("<b>\x1b\n\u202e") == "&lt;b&gt;\\u001b\n\\u202e"
