"""Blocks of HTML reports: escaping, plots, and number formats."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien._errors import OutputError
from mien._format import interval, p_value, percent, percent_interval, points, points_interval, short_count
from mien._page import image_tag
from mien.lab.files import save_text
from mien.lab.html import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    ImageTile,
    _under_map,
    beside,
    details,
    facts,
    gallery,
    headline,
    new_plot,
    note,
    page,
    paragraph,
    plot,
    section,
    table,
)

EVIL = "<script>alert(\"1\")</script> & 'co'"


def drawing(label: str = "recall", color: str = INK) -> str:
    figure, axis = new_plot(3, 2)
    axis.plot([0, 1], [0, 1], color=color, label=label, marker="o", clip_on=True)
    axis.plot([0, 1], [1, 0], color=ACCENT)
    axis.legend()
    return plot(figure, alt=f"{label} <rises>", caption=f"{label} & more")


@pytest.mark.parametrize(
    "html",
    [
        paragraph(EVIL),
        note(EVIL),
        details(EVIL, paragraph(EVIL)),
        headline({EVIL: (EVIL, EVIL)}),
        facts({EVIL: EVIL}),
        table([EVIL], [[EVIL, EVIL]], caption=EVIL, wrap=True),
        section(EVIL, paragraph(EVIL)).html,
        gallery([ImageTile(np.zeros((4, 4), np.uint8), EVIL, np.ones((2, 2), np.float32))]),
        image_tag(Image.new("L", (4, 4)), EVIL),
        page(EVIL, [section(EVIL)], lead=EVIL, provenance={EVIL: EVIL}),
    ],
)
def test_every_text_argument_is_escaped(html: str) -> None:
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    for attribute in re.findall(r'(?:alt|id|aria-label)="([^"]*)"', html):
        assert "<" not in attribute


def test_a_page_loads_nothing_and_links_to_its_sections() -> None:
    sections = [section("What was found: 1 & 2", paragraph("yes")), section("How", beside("a", "b"))]
    text = page("A title", sections, lead="in short", provenance={"commit": "abc"}, faces=True)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert re.findall(r'href="#([\w-]+)">', text) == ["content", "what-was-found-1-2", "how"]
    for anchor in ("content", "what-was-found-1-2", "how"):
        assert text.count(f'id="{anchor}"') == 1
    assert "<dt>commit</dt><dd>abc</dd>" in text
    assert "do not publish" in text
    assert "do not publish" not in page("A title", sections, lead="", provenance={})
    assert "$" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_two_plots_on_a_page_share_no_id_and_their_references_are_valid() -> None:
    both = drawing(), drawing()
    names = [set(re.findall(r'\bid="([^"]+)"', one)) for one in both]
    assert all(names)
    assert not names[0] & names[1]
    for one, own in zip(both, names, strict=True):
        used = set(re.findall(r'href="#([^"]+)"', one)) | set(re.findall(r"url\(#([^)]+)\)", one))
        assert used
        assert used <= own


def test_a_plot_uses_the_colours_of_the_page_and_contains_text() -> None:
    html = drawing(color=MUTED)
    for stand_in in (INK, MUTED, LINE, ACCENT):
        assert stand_in not in html
    for variable in ("--ink", "--muted", "--line", "--accent"):
        assert f"var({variable})" in html
    assert ">recall</text>" in html
    assert 'role="img" aria-label="recall &lt;rises&gt;"' in html
    assert "<figcaption>recall &amp; more</figcaption>" in html
    assert "<?xml" not in html
    assert "<metadata" not in html


def test_a_table_has_shades_best_cells_and_row_names() -> None:
    html = table(
        ["model", "a", "b"], [["x", "1", None], ["y", 2, "3"]], shade=[[0.5, -0.2], [None, 1]], best=[[0, 0], [1, 0]]
    )
    assert '<td class="shade" style="--s:0.500">1</td><td class="shade opposite" style="--s:0.200">–</td>' in html
    assert '<td class="best">2</td><td class="shade" style="--s:1.000">3</td>' in html
    assert re.findall(r'<th scope="(\w+)">(\w+)</th>', html) == [
        ("col", "model"),
        ("col", "a"),
        ("col", "b"),
        ("row", "x"),
        ("row", "y"),
    ]
    assert "<caption>" not in html


def test_a_gallery_shows_faces_beside_their_maps() -> None:
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    html = gallery([ImageTile(face, "alone"), ImageTile(face, "seen", np.eye(3, dtype=np.float32))])
    assert html.count("<li>") == 2
    assert html.count("<img") == 3
    assert html.count("data:image/webp;base64,") == 3
    assert 'width="48" height="48" alt="seen"' in html
    assert 'width="96" height="96" alt="map"' in html
    assert "loading=" not in html


def test_only_positive_places_of_a_map_are_drawn() -> None:
    face = np.full((32, 32), 100, np.uint8)
    assert (np.asarray(_under_map(face, -np.ones((4, 4), np.float32))) == 100).all()
    corner = np.zeros((4, 4), np.float32)
    corner[0, 0], corner[3, 3] = 0.01, -5
    drawn = np.asarray(_under_map(face, corner))
    assert drawn[1, 1].min() > 150  # bright, however small its value: a map is scaled by its own maximum
    assert (drawn[-2, -2] == 100).all()
    np.testing.assert_array_equal(drawn, np.asarray(_under_map(np.repeat(face[..., None], 3, axis=2), corner)))


def test_a_page_with_a_file_name_that_is_not_utf8_is_written(tmp_path: Path) -> None:
    """File names that are not UTF-8 contain lone surrogates, which cannot be encoded."""
    save_text(tmp_path / "sub" / "page.html", paragraph("bad\udcff.png"))
    assert (tmp_path / "sub" / "page.html").read_text("utf-8") == "<p>bad\\udcff.png</p>"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        save_text(tmp_path / "file" / "page.html", "")


def test_numbers_are_formatted_alike_everywhere() -> None:
    assert percent(0.7053) == "70.5 %"
    assert percent(0.7053, 0) == "71 %"
    assert interval([0.4123, 0.4312]) == "0.412 to 0.431"
    assert interval([-0.1, 0.2], "+.2f") == "-0.10 to +0.20"
    assert percent_interval([0.69, 0.721]) == "69.0 to 72.1"
    assert points(-0.0123) == "-1.2"
    assert points_interval([-0.004, 0.028]) == "-0.4 to +2.8"
    assert [p_value(p) for p in (0.0, 0.00099, 0.001, 0.25)] == ["< 0.001", "< 0.001", "0.001", "0.250"]
    assert [short_count(n) for n in (12, 783_400, 1_560_000, 2.5e9)] == ["12", "783 k", "1.56 M", "2.5 G"]


def test_a_long_list_in_a_note_is_folded() -> None:
    assert note("Chosen here: one, two.") == '<p class="note">Chosen here: one, two.</p>'
    folded = note("Chosen here: " + ", ".join(f"model-{number}" for number in range(60)) + ".")
    assert folded.startswith('<details class="note"><summary>Chosen here: 60 in all</summary><p>model-0, ')
