"""BlazeFace short-range: a network that sees faces of 16 to 128 pixels, and the search that brings faces to that size.

The search is a pyramid from coarse to fine. The whole picture is looked at first, then larger versions of it, until the
smallest face asked for is wide enough to leave a trace. The network has only convolutions and runs on a level in one
piece, or in overlapping tiles where that is large: the features of a level are computed once, not once per tile. A face
that is plainly seen is taken; a faint trace is looked at again in a tile of its own, in which the face would have the
network's favourite size. So small faces cost a pyramid of half the size, and the doubtful ones are seen twice. At last
small faces are measured in a tile in which their key points come out best.

`benchmarks/detection.py` prints what the numbers below give.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._face import Box, Detection
from mien._session import open_session
from mien.bundled import BUNDLED
from mien.detect.candidates import Candidates, Floats, join, nothing
from mien.detect.suppress import SAME_FACE, inside_of, overlaps, suppress
from mien.detect.tiles import Pixels, Pyramid, Tile, cut, letterbox, split

MODEL = BUNDLED / "blazeface-short-range" / "model.onnx"
SIDE = 128  # pixels; the input the network was trained for
STRIDES = ((8, 2), (16, 6))  # pixels between the cells of a head, and anchors in each of its cells
MULTIPLE = 16  # pixels; sides of an input must be whole cells of the coarsest head

TRACE = 0.2  # score from which a candidate is looked at again
WIDE_TRACE, WIDE_TRACE_WIDTH = 0.25, 20.0  # the same for faces of so many pixels: they leave stronger traces
DOUBT = 0.5  # score from which this is so also for one that was seen as well as it will be
TRACE_SHARE = 0.7  # of the smallest face's width; a trace's own width is a guess
# Pixels of the finest level that the smallest face gets: half as wide, about every second leaves none.
TRACE_WIDTH = 16.0
PLAIN_WIDTH = 28.0  # pixels from which a face is seen as well as it will be
PLAIN_SCORE = 0.9  # score from which it needs no second look
SECOND_LOOK_WIDTH = 32.0  # pixels that a trace gets in its tile: here most small faces are found
LAST_LOOK_BELOW = 48.0  # pixels; what is larger was measured well enough
LAST_LOOK_WIDTH = 45.0  # pixels that a face gets in its tile: here its key points are most exact,
LAST_LOOK_SIDE = 96  # pixels; and a tile of 128 gives them no better
LEVEL_STEP = 2.7  # from one level to the next
LEVEL_SIDE, LEVEL_OVERLAP = 512, 96  # pixels; larger faces than the overlap are found one level before

NEAR_WIDTH = 60.0  # pixels that an expected face gets in its tile: here box and points tremble least in films
NEAR_SCORE = 0.5  # score from which a face that is expected is one

SMALLEST = 24  # pixels; smaller faces are too coarse to be read
SMALLEST_SHARE = 0.01  # of the picture's long side
CLOSE_SHARE = 0.08  # of the long side: a face so wide makes the picture a portrait or a video call,
CLOSE_OTHERS = 8  # unless it shows traces of more others than this,
SMALLEST_OF_CLOSE = 1 / 3  # and there, faces narrower than this share of it are background
FILLING_SHARES = (0.5, 0.6, 0.7)  # of the square that a picture gets whose face may fill it
FILLING_WIDTH = 0.5  # of the picture's short side; what is narrower does not fill it


class BlazeFace:
    """Finds faces with the bundled network. Calls are thread-safe."""

    name = "blazeface"

    def __init__(
        self, *, threshold: float, min_face: float | None, threads: int = 1, providers: Sequence[str] = ("cpu",)
    ) -> None:
        """The arguments are those of ``open_detector``."""
        self._threshold = threshold
        self._min_face = min_face
        self._network = Network(MODEL, threads=threads, providers=providers)

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """The faces of an RGB uint8 ``[H, W, 3]`` picture, largest first."""
        height, width = pixels.shape[:2]
        pyramid = Pyramid(Image.fromarray(pixels), coarse=LEVEL_STEP * SIDE / max(width, height))
        faces = self._search(pyramid)
        if len(faces) == 0:
            faces = self._search_filling(pyramid)
        return suppress(self._look_closely(pyramid, suppress(faces))).to_detections()

    def near(self, pixels: Pixels, box: Box) -> list[Detection]:
        """The faces around ``box``, where one of its size is expected, largest first: one look, a fraction of a search.

        The face may have moved by half of its width. Where its score lies below the threshold of a search, that a face
        was there before speaks for it.
        """
        center = np.array([(box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2])
        side = max(box.width, box.height) * SIDE / NEAR_WIDTH
        height, width = pixels.shape[:2]
        left, top = (int(v) for v in np.clip(center - side / 2, 0, (width, height)))
        right, bottom = (int(v) for v in np.clip(center + side / 2 + 1, 0, (width, height)))
        if right <= left or bottom <= top or side <= 0:
            return []
        corner = np.array([left, top])
        tile = cut(Pyramid(Image.fromarray(pixels[top:bottom, left:right])), center - corner, side, SIDE)
        found = suppress(self._network([tile], min(NEAR_SCORE, self._threshold)))
        return found.to_picture(scale=1, x=left, y=top).to_detections()

    def _search(self, pyramid: Pyramid) -> Candidates:
        plain = traces = nothing(points=6)
        long_side = max(pyramid.size)
        scale, widest = SIDE / long_side, SIDE
        while scale > 0:
            tiles = split(pyramid, scale, side=LEVEL_SIDE, overlap=LEVEL_OVERLAP, multiple=MULTIPLE)
            more = self._sort(self._network(tiles, self._lowest), scale, widest=widest)
            plain, traces = join([plain, more[0]]), join([traces.take(~surpassed(traces, scale)), more[1]])
            smallest = self._smallest(long_side, plain, traces)
            scale, widest = finer(scale, smallest), LEVEL_OVERLAP
        wanted = (traces.widths >= TRACE_SHARE * smallest) & ~inside_of(traces, plain)
        return join([plain, self._look(second_looks(pyramid, traces.take(wanted)))])

    def _look_closely(self, pyramid: Pyramid, faces: Candidates) -> Candidates:
        """The faces, with box and key points of the small ones measured once more in a tile each; their scores stay.

        Over 152 faces of 20 to 32 pixels, against YuNet's eyes, this takes the mean error of the roll from 8.8 to 6.9
        degrees; over 101 of 45 pixels and more, only from 7.9 to 7.7.
        """
        large, small = faces.take(faces.widths >= LAST_LOOK_BELOW), faces.take(faces.widths < LAST_LOOK_BELOW)
        sides = small.widths * LAST_LOOK_SIDE / LAST_LOOK_WIDTH
        looks = zip(small.centers, sides, strict=True)
        tiles = (cut(pyramid, center, float(side), LAST_LOOK_SIDE) for center, side in looks)
        found = enumerate(self._network.each(tiles, TRACE))
        return join([large, *(_measured(small.take(np.array([i])), again) for i, again in found)])

    def _search_filling(self, pyramid: Pyramid) -> Candidates:
        """A face that fills the picture, as in tight crops: the network wants some surroundings, if only black."""
        faces = self._look([letterbox(pyramid, SIDE, share=share) for share in FILLING_SHARES])
        return faces.take(faces.widths >= FILLING_WIDTH * min(pyramid.size))

    @property
    def _lowest(self) -> float:
        return min(TRACE, self._threshold)

    def _look(self, tiles: Iterable[Tile]) -> Candidates:
        return self._network(tiles, self._threshold)

    def _sort(self, found: Candidates, scale: float, *, widest: float) -> tuple[Candidates, Candidates]:
        """Faces plainly seen at this scale, and traces. What is wider than ``widest`` was found a level before."""
        widths = found.widths * scale
        plain = (found.scores >= max(self._threshold, PLAIN_SCORE)) & (widths >= PLAIN_WIDTH) & (widths <= widest)
        lowest = np.select([widths >= PLAIN_WIDTH, widths >= WIDE_TRACE_WIDTH], [DOUBT, WIDE_TRACE], self._lowest)
        return found.take(plain), found.take(~plain & (found.scores >= lowest) & (widths <= LEVEL_OVERLAP))

    def _smallest(self, long_side: int, plain: Candidates, traces: Candidates) -> float:
        """The width, in pixels, of the smallest face to look for."""
        if self._min_face is not None:
            return self._min_face
        certain = join([plain, traces.take(traces.scores >= PLAIN_SCORE)])
        closest = float(certain.widths.max()) if len(certain) else 0.0
        portrait = closest >= CLOSE_SHARE * long_side and _count_others(certain, traces) <= CLOSE_OTHERS
        return max(SMALLEST, SMALLEST_SHARE * long_side, SMALLEST_OF_CLOSE * closest if portrait else 0.0)


def _measured(face: Candidates, again: Candidates) -> Candidates:
    """One face as ``again`` shows it, if it does, with the score it had."""
    again = suppress(again)
    same, _ = overlaps(face.boxes[0], again.boxes)
    best = np.flatnonzero(same >= SAME_FACE)[:1]  # suppressed candidates come best first
    return Candidates(again.boxes[best], again.points[best], face.scores) if len(best) else face


def finer(scale: float, smallest: float) -> float:
    """The scale of the next level; 0 when this one is fine enough for faces of ``smallest`` pixels."""
    finest = TRACE_WIDTH / smallest
    if scale >= 0.8 * finest:  # a level that adds so little is not worth its time
        return 0
    return finest if finest <= 1.25 * LEVEL_STEP * scale else LEVEL_STEP * scale


def surpassed(traces: Candidates, scale: float) -> NDArray[np.bool_]:
    """Which traces a level at this scale says more about, because there their faces are seen well; sure ones stay."""
    widths = traces.widths * scale
    return (widths >= PLAIN_WIDTH) & (widths <= LEVEL_OVERLAP) & (traces.scores < PLAIN_SCORE)


def _count_others(certain: Candidates, traces: Candidates) -> int:
    """How many places have a trace of a face that is clearly smaller than the closest one."""
    smaller = traces.widths < certain.widths.max() / 1.5
    return len(suppress(traces.take(smaller & ~inside_of(traces, certain))))


def second_looks(pyramid: Pyramid, traces: Candidates) -> Iterator[Tile]:
    """Tiles in which the traces have the best size, strongest first; a tile serves its neighbours of like size too."""
    rest = traces.take(np.argsort(-traces.scores, kind="stable"))
    while len(rest) > 0:
        center, width = rest.centers[0], float(rest.widths[0])
        side = width * SIDE / SECOND_LOOK_WIDTH
        yield cut(pyramid, center, side, SIDE)
        near = np.abs(rest.centers - center).max(axis=1) < side / 4
        served = near & (rest.widths > width / 1.8) & (rest.widths < width * 1.8)
        served[0] = True
        rest = rest.take(~served)


class Network:
    """The bundled ONNX file as a function from tiles to candidates."""

    def __init__(self, path: Path, *, threads: int, providers: Sequence[str]) -> None:
        """Raises ``ModelError`` when the file or a provider is missing."""
        self._session = open_session(path, threads=threads, providers=providers)

    def __call__(self, tiles: Iterable[Tile], lowest: float) -> Candidates:
        """What scores at least ``lowest`` in any of the tiles, in pixels of the picture."""
        return join([nothing(points=6), *self.each(tiles, lowest)])

    def each(self, tiles: Iterable[Tile], lowest: float) -> Iterator[Candidates]:
        """The same, tile by tile."""
        for tile in tiles:  # several in one call take as long
            offsets, scores = self._session.run(["boxes", "scores"], {"image": tile.pixels[None]})
            candidates = decode(offsets[0], scores[0], tile.pixels.shape, lowest)
            yield candidates.to_picture(scale=tile.scale, x=tile.x, y=tile.y)


def decode(
    offsets: NDArray[np.float32], scores: NDArray[np.float32], shape: tuple[int, ...], lowest: float
) -> Candidates:
    """Answers for a tile of ``shape`` (h, w, ...), offsets ``[A, 16]``, scores ``[A]``, as candidates in its pixels."""
    chosen = np.flatnonzero(scores >= lowest)
    pairs = offsets[chosen].astype(np.float64).reshape(-1, 8, 2)
    anchors = anchor_centers(chosen, shape[0], shape[1])
    centers, halves = anchors + pairs[:, 0], np.abs(pairs[:, 1]) / 2
    boxes = np.concatenate([centers - halves, centers + halves], axis=1)
    return Candidates(boxes, anchors[:, None] + pairs[:, 2:], scores[chosen].astype(np.float64))


def anchor_centers(index: NDArray[np.int64], height: int, width: int) -> Floats:
    """Where the anchors of these numbers stand in an input, ``[K, 2]``: cell by cell in rows, the finest head first."""
    (fine, per_fine), (coarse, per_coarse) = STRIDES
    start = (height // fine) * (width // fine) * per_fine
    is_fine = index < start
    cells = np.where(is_fine, index // per_fine, (index - start) // per_coarse)
    strides = np.where(is_fine, fine, coarse)
    rows, columns = np.divmod(cells, width // strides)
    return np.stack([(columns + 0.5) * strides, (rows + 0.5) * strides], axis=1)
