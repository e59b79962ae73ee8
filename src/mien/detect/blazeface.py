"""BlazeFace short-range: a network that finds faces of 16 to 128 pixels, and a search over the scales of an image.

The search is an image pyramid from coarse to fine. It starts with the whole image and enlarges it until the smallest
face is wide enough to give a trace (a candidate with a low score). The network is fully convolutional: it runs on a
whole level, or on overlapping tiles of a large level. A candidate with a high score is accepted. A trace is evaluated
again in its own small tile, in which the face has the size that the network detects best. So the pyramid needs half the
size for small faces, and only uncertain faces are evaluated twice.

`benchmarks/detection.py` measures the effect of the constants below.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Detection, Pixels
from mien._session import open_session
from mien.bundled import BUNDLED
from mien.detect.candidates import SAME_FACE, Candidates, inside_of, join, overlaps, suppress
from mien.detect.tiles import Pyramid, Tile, cut, letterbox, split

MODEL = BUNDLED / "blazeface-short-range" / "model.onnx"
INPUT_SIDE = 128  # pixels; the input size of the training
_STRIDES = ((8, 2), (16, 6))  # pixels between the cells of a head, and anchors in each of its cells
_MULTIPLE = 16  # pixels; each side of an input must be a multiple of the coarsest cell

_TRACE = 0.1  # score from which a candidate is evaluated again
_CLEAR_TRACE = 0.2  # score from which a trace counts as another face
_WIDE_TRACE = 0.25  # the same for faces at least _WIDE_TRACE_WIDTH wide, which give stronger traces
_WIDE_TRACE_WIDTH = 20.0  # pixels
_DOUBT = 0.5  # the same for faces at least _PLAIN_WIDTH wide
_TRACE_SHARE = 0.7  # of the width of the smallest face, because the width of a trace is not exact
# Width of the smallest face in the finest level, in pixels: at half of it about every second face gives no trace.
TRACE_WIDTH = 16.0
_PLAIN_WIDTH = 28.0  # pixels; wider faces do not get better scores
_PLAIN_SCORE = 0.9  # score from which a face is accepted at once
_RETRY_SIDE = 64  # pixels of the tile of a trace: a quarter of the time of a tile of 128
_RETRY_WIDTH = 36.0  # width of a trace in its tile, in pixels, at which most small faces are found
_RETRY_GAIN = 0.25  # log-odds by which scores in this tile are lower than in one of 128 pixels
LEVEL_STEP = 2.7  # ratio of the scales of two levels
_LEVEL_SIDE, _LEVEL_OVERLAP = 704, 128  # pixels; faces wider than the overlap are found one level before
_BATCH_BYTES = 2**16  # of the pixels of tiles that the network gets at once: few, so that its maps stay in the cache

_NEAR_WIDTH = 60.0  # width of a tracked face in its tile, in pixels, at which box and points are most stable
_NEAR_SCORE = 0.5  # score from which a candidate at a tracked place is a face

_SMALLEST = 24  # pixels; smaller faces cannot be classified
_SMALLEST_SHARE = 0.01  # of the image's long side
_CLOSE_SHARE = 0.08  # of the long side: an image with a face this wide is a portrait or a video call,
_CLOSE_OTHERS = 8  # unless it has traces of more other faces than this;
_SMALLEST_OF_CLOSE = 1 / 3  # there, faces narrower than this share of the widest are background
_HALVED_WIDTH = 96.0  # pixels of a face in an image of half the size: twice those of its crop
_FILLING_SHARES = (0.5, 0.6, 0.7)  # of the side of a black square: scales for an image that one face may fill
_FILLING_WIDTH = 0.5  # of the image's short side; a narrower face does not fill the image


class BlazeFace:
    """Finds faces with the embedded network. Calls are thread-safe.

    Args:
        threshold: Score from 0 to 1 from which a candidate is a face.
        min_face: Width in pixels of the smallest face; ``None`` for the default of ``open_detector``.
        max_faces: Largest number of faces, the most certain ones.
        threads: Threads of ONNX Runtime for one call; 0 uses all cores.
        providers: Execution providers of ONNX Runtime, first choice first.
    """

    name = "blazeface"

    def __init__(
        self, *, threshold: float, min_face: float | None, max_faces: int, threads: int, providers: Sequence[str]
    ) -> None:
        self._threshold, self._lowest = threshold, min(_TRACE, threshold)
        self._min_face, self._max_faces = min_face, max_faces
        self._session = open_session(MODEL, threads=threads, providers=providers)

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Find the faces in an image.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``.

        Returns:
            The faces, largest first.
        """
        height, width = pixels.shape[:2]
        pyramid = Pyramid(pixels, coarse=LEVEL_STEP * INPUT_SIDE / max(width, height))
        faces = self._search(pyramid)
        if len(faces) == 0:  # one face may fill the image, as in a tight crop: the network needs a margin, here black
            tiles = [letterbox(pyramid, INPUT_SIDE, share=share) for share in _FILLING_SHARES]
            faces = self._find(tiles, self._threshold)
            faces = faces.take(faces.widths >= _FILLING_WIDTH * min(pyramid.size))
        return suppress(faces, limit=self._max_faces).to_detections()

    def close_faces(self, pixels: Pixels) -> list[Detection] | None:
        """Find the faces of a portrait or video call, in an image of half the size.

        Args:
            pixels: The image at half of its width and height, RGB uint8 ``[H, W, 3]``.

        Returns:
            The faces, largest first, in its pixels; ``None`` where smaller faces may be in the whole image, or a face
            is too small to be read in half of its pixels.
        """
        long_side = max(pixels.shape[:2])
        pyramid = Pyramid(pixels, coarse=LEVEL_STEP * INPUT_SIDE / long_side)
        found = self._search(pyramid, until=LEVEL_STEP * INPUT_SIDE / long_side, pixel=2)
        faces = suppress(found, limit=self._max_faces)
        is_enough = len(faces) > 0 and faces.widths.min() >= _HALVED_WIDTH
        return faces.to_detections() if is_enough and faces.widths.max() >= _CLOSE_SHARE * long_side else None

    def near(self, pixels: Pixels, box: Box) -> list[Detection]:
        """Find the faces near the expected place of a face, in one tile. It is much faster than a search.

        The face may have moved by half of its width. Its score may be below the threshold of a search, because a face
        was there before.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``.
            box: The expected place of the face, in pixels of the image.

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
        tile = cut(Pyramid(pixels[top:bottom, left:right]), center - corner, side, INPUT_SIDE)
        found = suppress(self._find([tile], min(_NEAR_SCORE, self._threshold)))
        return found.to_image(scale=1, x=left, y=top).to_detections()

    def _search(self, pyramid: Pyramid, *, until: float = np.inf, pixel: int = 1) -> Candidates:
        """Find the faces; none where a level finer than ``until`` is needed. ``pixel`` is 2 in a halved image."""
        faces = traces = Candidates.empty()
        long_side = max(pyramid.size)
        scale = INPUT_SIDE / long_side
        while scale > 0:
            tiles = split(pyramid, scale, side=_LEVEL_SIDE, overlap=_LEVEL_OVERLAP, multiple=_MULTIPLE)
            more = self._sort(self._find(tiles, self._lowest), scale)
            faces, traces = join([faces, more[0]]), join([traces.take(~is_superseded(traces, scale)), more[1]])
            smallest = self._smallest(long_side, faces, traces) if self._min_face is None else self._min_face / pixel
            scale = finer_scale(scale, smallest)
            if scale > 1.3 * until:
                return Candidates.empty()
        retried = traces.take((traces.widths >= _TRACE_SHARE * smallest) & ~inside_of(traces, faces))
        return join([faces, self._retry(pyramid, retried)])

    def _retry(self, pyramid: Pyramid, traces: Candidates) -> Candidates:
        """Evaluate each trace in a small tile of its own, which may show its neighbours too."""
        expected = suppress(traces, limit=self._max_faces)
        places = zip(expected.centers, expected.widths * _RETRY_SIDE / _RETRY_WIDTH, strict=True)
        tiles = (cut(pyramid, center, float(width), _RETRY_SIDE) for center, width in places)
        found, index = self._find_each(tiles, _with_gain(self._threshold, -_RETRY_GAIN))
        found = Candidates(found.boxes, found.points, _with_gain(found.scores, _RETRY_GAIN))
        is_expected = overlaps(expected.boxes[index], found.boxes)[0] >= SAME_FACE
        centered, others = found.take(is_expected), found.take(~is_expected)
        return join([centered, others.take(~inside_of(others, centered))])

    def _find(self, tiles: Iterable[Tile], lowest: float) -> Candidates:
        """Return the candidates of all tiles with a score of at least ``lowest``, in pixels of the image."""
        return self._find_each(tiles, lowest)[0]

    def _find_each(self, tiles: Iterable[Tile], lowest: float) -> tuple[Candidates, NDArray[np.intp]]:
        """Return the candidates of all tiles, and the index of the tile of each."""
        parts, index, start = [Candidates.empty()], [np.zeros(0, np.intp)], 0
        for batch in _batches(tiles):
            pixels = np.stack([tile.pixels for tile in batch])
            offsets, scores = self._session.run(["boxes", "scores"], {"image": pixels})
            candidates, which = decode_outputs(offsets, scores, pixels.shape[1:], lowest)
            places = np.array([(tile.x, tile.y, tile.scale) for tile in batch])[which]
            parts.append(candidates.to_image(scale=places[:, 2], x=places[:, 0], y=places[:, 1]))
            index.append(start + which)
            start += len(batch)
        return join(parts), np.concatenate(index)

    def _sort(self, found: Candidates, scale: float) -> tuple[Candidates, Candidates]:
        """Split candidates into faces and traces. Faces wider than the overlap were found one level before."""
        widths = found.widths * scale
        is_small = widths <= _LEVEL_OVERLAP
        plain = is_small & (widths >= _PLAIN_WIDTH) & (found.scores >= max(self._threshold, _PLAIN_SCORE))
        lowest = np.select([widths >= _PLAIN_WIDTH, widths >= _WIDE_TRACE_WIDTH], [_DOUBT, _WIDE_TRACE], self._lowest)
        return found.take(plain), found.take(~plain & is_small & (found.scores >= lowest))

    def _smallest(self, long_side: int, plain: Candidates, traces: Candidates) -> float:
        """Return the width of the smallest face to search for by default, in pixels."""
        smallest = max(_SMALLEST, _SMALLEST_SHARE * long_side)
        certain = join([plain, traces.take(traces.scores >= _PLAIN_SCORE)])
        closest = float(certain.widths.max()) if len(certain) else 0.0
        if closest < _CLOSE_SHARE * long_side:
            return smallest
        is_other = (traces.widths < closest / 1.5) & (traces.scores >= _CLEAR_TRACE) & ~inside_of(traces, certain)
        others = suppress(traces.take(is_other), limit=_CLOSE_OTHERS + 1)
        return max(smallest, _SMALLEST_OF_CLOSE * closest) if len(others) <= _CLOSE_OTHERS else smallest


def finer_scale(scale: float, smallest: float) -> float:
    """Return the scale of the next level of the search.

    Args:
        scale: Scale of the current level, pixels of the level per pixel of the image.
        smallest: Width of the smallest face, in pixels of the image.

    Returns:
        The next scale; 0 where the current level is fine enough.
    """
    finest = TRACE_WIDTH / smallest
    if scale >= 0.8 * finest:  # the next level would find too little for its time
        return 0
    return finest if finest <= 1.25 * LEVEL_STEP * scale else LEVEL_STEP * scale


def is_superseded(traces: Candidates, scale: float) -> NDArray[np.bool_]:
    """Find the traces whose faces a level detects better. Certain faces are not replaced.

    Args:
        traces: K traces of coarser levels, in pixels of the image.
        scale: Scale of the level, pixels of the level per pixel of the image.

    Returns:
        A mask ``[K]``.
    """
    widths = traces.widths * scale
    return (widths >= _PLAIN_WIDTH) & (widths <= _LEVEL_OVERLAP) & (traces.scores < _PLAIN_SCORE)


def _batches(tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
    """Group successive tiles of the same shape. A batch saves the time of calls, not of the network."""
    batch: list[Tile] = []
    for tile in tiles:
        if batch and (tile.pixels.shape != batch[0].pixels.shape or (len(batch) + 1) * tile.pixels.size > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(tile)
    if batch:
        yield batch


def _with_gain(score: Any, gain: float) -> Any:
    """Add to the log-odds of scores, which are above 0."""
    return 1 / (1 + (1 / score - 1) * np.exp(-gain))


def decode_outputs(
    offsets: NDArray[np.float32], scores: NDArray[np.float32], shape: tuple[int, ...], lowest: float
) -> tuple[Candidates, NDArray[np.intp]]:
    """Turn the outputs of the network for N tiles into candidates.

    Args:
        offsets: Offsets from the A anchors in pixels, ``[N, A, 16]``: centre, size, six key points.
        scores: Scores from 0 to 1, ``[N, A]``.
        shape: Shape of the tiles, ``(h, w, ...)``.
        lowest: Lowest score of a candidate.

    Returns:
        The candidates, in pixels of their tiles, and the index of the tile of each.
    """
    index, chosen = np.nonzero(scores >= lowest)
    pairs = offsets[index, chosen].astype(np.float64).reshape(-1, 8, 2)
    anchors = anchor_centers(chosen, shape[0], shape[1])
    centers, halves = anchors + pairs[:, 0], np.abs(pairs[:, 1]) / 2
    boxes = np.concatenate([centers - halves, centers + halves], axis=1)
    found = Candidates(boxes, anchors[:, None] + pairs[:, 2:], scores[index, chosen].astype(np.float64))
    return found, index


def anchor_centers(index: NDArray[np.int64], height: int, width: int) -> NDArray[np.float64]:
    """Return the centres of anchors. They are ordered by head (finest first), then by cell in rows.

    Args:
        index: Indices of K anchors, ``[K]``.
        height: Height of the input in pixels.
        width: Width of the input in pixels.

    Returns:
        Centres ``(x, y)`` in pixels, ``[K, 2]``.
    """
    (fine, per_fine), (coarse, per_coarse) = _STRIDES
    start = (height // fine) * (width // fine) * per_fine
    is_fine = index < start
    cells = np.where(is_fine, index // per_fine, (index - start) // per_coarse)
    strides = np.where(is_fine, fine, coarse)
    rows, columns = np.divmod(cells, width // strides)
    return np.stack([(columns + 0.5) * strides, (rows + 0.5) * strides], axis=1)
