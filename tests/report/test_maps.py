"""Images and page of saliency maps."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien.overlay import map_over_crop
from mien.reader import Reader
from mien.report.maps import (
    MAP_PAGE,
    SHEET_GAP,
    SHEET_MARGIN,
    SHEET_THUMB_WH,
    SHEET_TILE,
    MapReport,
    map_sheet,
    numbered_faces,
)


def test_the_sheet_shows_the_map_that_overlay_draws(astronaut: NDArray[np.uint8]) -> None:
    reading = Reader().read(astronaut, keep_pixels=True)
    sheet = map_sheet(reading)
    tile = map_over_crop(reading.faces[0], size=SHEET_TILE)
    top = 2 * SHEET_MARGIN + numbered_faces(reading, SHEET_THUMB_WH).height
    left = SHEET_MARGIN + SHEET_TILE + SHEET_GAP
    assert np.array_equal(sheet[top : top + SHEET_TILE, left : left + SHEET_TILE], tile)
    top_emotion = reading.faces[0].top
    assert map_sheet(reading, [top_emotion]).shape == sheet.shape  # no emotion is shown twice
    other = next(emotion for emotion in Emotion if emotion in reading.faces[0].probs and emotion != top_emotion)
    assert map_sheet(reading, [other]).shape[1] >= sheet.shape[1]


def test_a_report_of_an_exception_leaves_no_page(astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    reader = Reader()
    try:
        with MapReport(tmp_path, about=reader.describe()) as report:
            report.add(reader.read(astronaut, keep_pixels=True))
            raise KeyError
    except KeyError:
        pass
    assert [path.name for path in tmp_path.iterdir()] != []
    assert not (tmp_path / MAP_PAGE).exists()
