"""BlazeFace short-range: a network that finds faces of 16 to 128 pixels, and a search over the scales of an image.

The search is an image pyramid from coarse to fine. It starts with the whole image and enlarges it until the smallest
wanted face is wide enough to give a trace (a candidate with a low score). The network is fully convolutional: it runs
on a whole level, or on overlapping tiles of a large level. A candidate with a high score is accepted. A trace is
evaluated again in its own tile, in which the face has the size that the network detects best. So the pyramid needs half
the size for small faces, and only uncertain faces are evaluated twice. Finally small faces are measured in a tile that
gives the most exact key points.

`benchmarks/detection.py` measures the effect of the constants below.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._face import Box, Detection, Pixels
from mien._session import open_session
from mien.bundled import BUNDLED
from mien.detect.candidates import Candidates, join, nothing
from mien.detect.suppress import SAME_FACE, inside_of, overlaps, suppress
from mien.detect.tiles import Pyramid, Tile, cut, letterbox, split

MODEL = BUNDLED / "blazeface-short-range" / "model.onnx"
INPUT_SIDE = 128  # pixels; the input the network was trained for
_STRIDES = ((8, 2), (16, 6))  # pixels between the cells of a head, and anchors in each of its cells
_MULTIPLE = 16  # pixels; sides of an input must be whole cells of the coarsest head

_TRACE = 0.2  # score from which a candidate is evaluated again
_WIDE_TRACE, _WIDE_TRACE_WIDTH = 0.25, 20.0  # the same for faces at least so wide (pixels): their traces are stronger
_DOUBT = 0.5  # the same for faces at least _PLAIN_WIDTH wide
_TRACE_SHARE = 0.7  # of the smallest face's width; the width of a trace is not exact
# Width of the smallest face in the finest level, in pixels: at half of it about every second face gives no trace.
TRACE_WIDTH = 16.0
_PLAIN_WIDTH = 28.0  # pixels; wider faces do not get better scores
_PLAIN_SCORE = 0.9  # score from which a face is accepted at once
_SECOND_LOOK_WIDTH = 32.0  # width of a trace in its tile, in pixels: with it most small faces are found
_LAST_LOOK_BELOW = 48.0  # pixels; wider faces are already exact enough
_LAST_LOOK_WIDTH = 45.0  # width of a face in its tile, in pixels: with it key points are most exact
_LAST_LOOK_SIDE = 96  # pixels; a tile of 128 is not more exact
LEVEL_STEP = 2.7  # ratio of the scales of two levels
_LEVEL_SIDE, _LEVEL_OVERLAP = 512, 96  # pixels; faces wider than the overlap are found one level before

_NEAR_WIDTH = 60.0  # width of a tracked face in its tile, in pixels: with it box and points are most stable
_NEAR_SCORE = 0.5  # score from which a candidate at a tracked place is a face

_SMALLEST = 24  # pixels; smaller faces cannot be classified
_SMALLEST_SHARE = 0.01  # of the image's long side
_CLOSE_SHARE = 0.08  # of the long side: an image with a face so wide is a portrait or a video call,
_CLOSE_OTHERS = 8  # unless it has traces of more other faces than this;
_SMALLEST_OF_CLOSE = 1 / 3  # there, faces narrower than this share of the widest are background
_FILLING_SHARES = (0.5, 0.6, 0.7)  # of the side of a black square: scales for an image that one face may fill
_FILLING_WIDTH = 0.5  # of the image's short side; a narrower face does not fill the image


class BlazeFace:
    """Finds faces with the bundled network. Calls are thread-safe.

    The arguments are those of ``open_detector``.
    """

    name = "blazeface"

    def __init__(
        self, *, threshold: float, min_face: float | None, threads: int = 1, providers: Sequence[str] = ("cpu",)
    ) -> None:
        self._threshold = threshold
        self._min_face = min_face
        self._network = _Network(MODEL, threads=threads, providers=providers)

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Find the faces in an image.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``.

        Returns:
            The faces, largest first.
        """
        height, width = pixels.shape[:2]
        pyramid = Pyramid(Image.fromarray(pixels), coarse=LEVEL_STEP * INPUT_SIDE / max(width, height))
        faces = self._search(pyramid)
        if len(faces) == 0:
            faces = self._search_filling(pyramid)
        return suppress(self._look_closely(pyramid, suppress(faces))).to_detections()

    def near(self, pixels: Pixels, box: Box) -> list[Detection]:
        """Find the faces around a box where a face of its size is expected: one tile, much faster than a search.

        The face may have moved by half of its width. Its score may be below the threshold of a search, because a face
        was there before.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``.
            box: The place of the expected face, in pixels of the image.

        Returns:
            The faces, largest first.
        """
        center = np.array([(box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2])
        side = max(box.width, box.height) * INPUT_SIDE / _NEAR_WIDTH
        height, width = pixels.shape[:2]
        left, top = (int(v) for v in np.clip(center - side / 2, 0, (width, height)))
        right, bottom = (int(v) for v in np.clip(center + side / 2 + 1, 0, (width, height)))
        if right <= left or bottom <= top or side <= 0:
            return []
        corner = np.array([left, top])
        tile = cut(Pyramid(Image.fromarray(pixels[top:bottom, left:right])), center - corner, side, INPUT_SIDE)
        found = suppress(self._network([tile], min(_NEAR_SCORE, self._threshold)))
        return found.to_image(scale=1, x=left, y=top).to_detections()

    def _search(self, pyramid: Pyramid) -> Candidates:
        plain = traces = nothing(points=6)
        long_side = max(pyramid.size)
        scale, widest = INPUT_SIDE / long_side, INPUT_SIDE
        while scale > 0:
            tiles = split(pyramid, scale, side=_LEVEL_SIDE, overlap=_LEVEL_OVERLAP, multiple=_MULTIPLE)
            more = self._sort(self._network(tiles, self._lowest), scale, widest=widest)
            plain, traces = join([plain, more[0]]), join([traces.take(~is_superseded(traces, scale)), more[1]])
            smallest = self._smallest(long_side, plain, traces)
            scale, widest = finer_scale(scale, smallest), _LEVEL_OVERLAP
        wanted = (traces.widths >= _TRACE_SHARE * smallest) & ~inside_of(traces, plain)
        return join([plain, self._look(_second_looks(pyramid, traces.take(wanted)))])

    def _look_closely(self, pyramid: Pyramid, faces: Candidates) -> Candidates:
        """Measure box and key points of small faces again, each in a tile; scores do not change.

        For 152 faces of 20 to 32 pixels, compared with YuNet's eyes, this reduces the mean error of the roll from 8.8
        to 6.9 degrees; for 101 faces of 45 pixels and more, only from 7.9 to 7.7.
        """
        large, small = faces.take(faces.widths >= _LAST_LOOK_BELOW), faces.take(faces.widths < _LAST_LOOK_BELOW)
        sides = small.widths * _LAST_LOOK_SIDE / _LAST_LOOK_WIDTH
        looks = zip(small.centers, sides, strict=True)
        tiles = (cut(pyramid, center, float(side), _LAST_LOOK_SIDE) for center, side in looks)
        found = enumerate(self._network.each(tiles, _TRACE))
        return join([large, *(_measured(small.take(np.array([i])), again) for i, again in found)])

    def _search_filling(self, pyramid: Pyramid) -> Candidates:
        """Find a face that fills the image, as in tight crops: the network needs a margin, which may be black."""
        faces = self._look([letterbox(pyramid, INPUT_SIDE, share=share) for share in _FILLING_SHARES])
        return faces.take(faces.widths >= _FILLING_WIDTH * min(pyramid.size))

    @property
    def _lowest(self) -> float:
        return min(_TRACE, self._threshold)

    def _look(self, tiles: Iterable[Tile]) -> Candidates:
        return self._network(tiles, self._threshold)

    def _sort(self, found: Candidates, scale: float, *, widest: float) -> tuple[Candidates, Candidates]:
        """Split candidates into faces and traces. Faces wider than ``widest`` were found one level before."""
        widths = found.widths * scale
        plain = (found.scores >= max(self._threshold, _PLAIN_SCORE)) & (widths >= _PLAIN_WIDTH) & (widths <= widest)
        lowest = np.select([widths >= _PLAIN_WIDTH, widths >= _WIDE_TRACE_WIDTH], [_DOUBT, _WIDE_TRACE], self._lowest)
        return found.take(plain), found.take(~plain & (found.scores >= lowest) & (widths <= _LEVEL_OVERLAP))

    def _smallest(self, long_side: int, plain: Candidates, traces: Candidates) -> float:
        """Return the width of the smallest face to search for, in pixels."""
        if self._min_face is not None:
            return self._min_face
        certain = join([plain, traces.take(traces.scores >= _PLAIN_SCORE)])
        closest = float(certain.widths.max()) if len(certain) else 0.0
        portrait = closest >= _CLOSE_SHARE * long_side and _count_others(certain, traces) <= _CLOSE_OTHERS
        return max(_SMALLEST, _SMALLEST_SHARE * long_side, _SMALLEST_OF_CLOSE * closest if portrait else 0.0)


def _measured(face: Candidates, again: Candidates) -> Candidates:
    """Return the face as ``again`` measures it, with its old score; the old face where ``again`` lacks it."""
    again = suppress(again)
    same, _ = overlaps(face.boxes[0], again.boxes)
    best = np.flatnonzero(same >= SAME_FACE)[:1]  # suppressed candidates come best first
    return Candidates(again.boxes[best], again.points[best], face.scores) if len(best) else face


def finer_scale(scale: float, smallest: float) -> float:
    """Return the scale of the next level; 0 where this one is fine enough for faces of ``smallest`` pixels."""
    finest = TRACE_WIDTH / smallest
    if scale >= 0.8 * finest:  # the next level would add too little for its time
        return 0
    return finest if finest <= 1.25 * LEVEL_STEP * scale else LEVEL_STEP * scale


def is_superseded(traces: Candidates, scale: float) -> NDArray[np.bool_]:
    """Whether a level at this scale detects the face of a trace better, ``[K]``; certain faces are not replaced."""
    widths = traces.widths * scale
    return (widths >= _PLAIN_WIDTH) & (widths <= _LEVEL_OVERLAP) & (traces.scores < _PLAIN_SCORE)


def _count_others(certain: Candidates, traces: Candidates) -> int:
    """Count the traces of faces that are clearly smaller than the largest one."""
    smaller = traces.widths < certain.widths.max() / 1.5
    return len(suppress(traces.take(smaller & ~inside_of(traces, certain))))


def _second_looks(pyramid: Pyramid, traces: Candidates) -> Iterator[Tile]:
    """Yield tiles in which traces have the best size, strongest first; a tile also covers similar neighbours."""
    rest = traces.take(np.argsort(-traces.scores, kind="stable"))
    while len(rest) > 0:
        center, width = rest.centers[0], float(rest.widths[0])
        side = width * INPUT_SIDE / _SECOND_LOOK_WIDTH
        yield cut(pyramid, center, side, INPUT_SIDE)
        near = np.abs(rest.centers - center).max(axis=1) < side / 4
        served = near & (rest.widths > width / 1.8) & (rest.widths < width * 1.8)
        served[0] = True
        rest = rest.take(~served)


class _Network:
    """The bundled network as a function from tiles to candidates."""

    def __init__(self, path: Path, *, threads: int, providers: Sequence[str]) -> None:
        self._session = open_session(path, threads=threads, providers=providers)

    def __call__(self, tiles: Iterable[Tile], lowest: float) -> Candidates:
        """Return the candidates of all tiles with a score of at least ``lowest``, in pixels of the image."""
        return join([nothing(points=6), *self.each(tiles, lowest)])

    def each(self, tiles: Iterable[Tile], lowest: float) -> Iterator[Candidates]:
        """Yield the candidates of each tile."""
        for tile in tiles:  # several tiles in one call are not faster
            offsets, scores = self._session.run(["boxes", "scores"], {"image": tile.pixels[None]})
            candidates = decode_outputs(offsets[0], scores[0], tile.pixels.shape, lowest)
            yield candidates.to_image(scale=tile.scale, x=tile.x, y=tile.y)


def decode_outputs(
    offsets: NDArray[np.float32], scores: NDArray[np.float32], shape: tuple[int, ...], lowest: float
) -> Candidates:
    """Turn offsets ``[A, 16]`` and scores ``[A]`` of a tile of ``shape`` (h, w, ...) into candidates in its pixels."""
    chosen = np.flatnonzero(scores >= lowest)
    pairs = offsets[chosen].astype(np.float64).reshape(-1, 8, 2)
    anchors = anchor_centers(chosen, shape[0], shape[1])
    centers, halves = anchors + pairs[:, 0], np.abs(pairs[:, 1]) / 2
    boxes = np.concatenate([centers - halves, centers + halves], axis=1)
    return Candidates(boxes, anchors[:, None] + pairs[:, 2:], scores[chosen].astype(np.float64))


def anchor_centers(index: NDArray[np.int64], height: int, width: int) -> NDArray[np.float64]:
    """Return the centres of anchors, ``[K, 2]``: ordered by head (finest first), then cell by cell in rows."""
    (fine, per_fine), (coarse, per_coarse) = _STRIDES
    start = (height // fine) * (width // fine) * per_fine
    is_fine = index < start
    cells = np.where(is_fine, index // per_fine, (index - start) // per_coarse)
    strides = np.where(is_fine, fine, coarse)
    rows, columns = np.divmod(cells, width // strides)
    return np.stack([(columns + 0.5) * strides, (rows + 0.5) * strides], axis=1)
