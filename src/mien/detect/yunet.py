"""YuNet: an optional detector, which is downloaded when it is first opened (MIT licence, Shiqi Yu and others).

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research, 2023. Its time depends only
on the size of the image. It is slower than BlazeFace for one face and faster for a crowd. It finds more turned and
masked faces. Its key points do not include the ears.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mien._download import RemoteFile, fetch
from mien._face import Detection, Pixels
from mien._session import open_session
from mien.detect.candidates import Candidates, join, suppress
from mien.detect.tiles import Pyramid, Tile, letterbox, split

_FILE = RemoteFile(
    name="face_detection_yunet_2023mar.onnx",
    url=(
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/"
        "models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
    ),
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    size=232589,
)
_SIDE = 640  # pixels; the size of the input is fixed
_STRIDES = (8, 16, 32)  # pixels between the cells of its three heads
_OVERLAP = 160  # pixels; larger faces are found in the whole image
_MIN_WIDTH = 12.0  # width of the smallest face in the input, in pixels
_MAX_ZOOM = 4.0  # with more, the face of a small image would be larger than those of the training
_SMALLEST = 24.0  # pixels of the image, as for BlazeFace
_SMALLEST_SHARE = 0.01  # of the image's long side


class YuNet:
    """Finds faces with YuNet. Calls are thread-safe.

    Args:
        threshold: Score from 0 to 1 from which a candidate is a face.
        min_face: Width in pixels of the smallest face; ``None`` for the default of ``open_detector``.
        max_faces: Largest number of faces, the most certain ones.
        threads: Threads of ONNX Runtime for one call; 0 uses all cores.
        providers: Execution providers of ONNX Runtime, first choice first.

    Raises:
        DownloadError: The file of the network cannot be downloaded.
    """

    name = "yunet"

    def __init__(
        self, *, threshold: float, min_face: float | None, max_faces: int, threads: int, providers: Sequence[str]
    ) -> None:
        self._threshold = threshold
        self._min_face, self._max_faces = min_face, max_faces
        self._session = open_session(fetch(_FILE), threads=threads, providers=providers)
        self._outputs = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES]

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Find the faces in an image.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``.

        Returns:
            The faces, largest first.
        """
        pyramid = Pyramid(pixels)
        long_side = max(pyramid.size)
        whole = letterbox(pyramid, _SIDE, share=min(1.0, _MAX_ZOOM * long_side / _SIDE))
        faces = self._find([whole])
        smallest = self._min_face or max(_SMALLEST, _SMALLEST_SHARE * long_side)
        if (scale := _MIN_WIDTH / smallest) > whole.scale:
            faces = join([faces, self._find(split(pyramid, scale, side=_SIDE, overlap=_OVERLAP, multiple=_SIDE))])
        return suppress(faces, limit=self._max_faces).to_detections()

    def _find(self, tiles: Iterable[Tile]) -> Candidates:
        found = []
        for tile in tiles:
            planes = tile.pixels[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)  # BGR, 0..255
            outputs = self._session.run(self._outputs, {"input": planes[None]})
            for index, stride in enumerate(_STRIDES):
                head = _decode_head([each[0] for each in outputs[index::3]], stride, self._threshold)
                found.append(head.to_image(scale=tile.scale, x=tile.x, y=tile.y))
        return join(found)


def _decode_head(outputs: Sequence[NDArray[np.float32]], stride: int, lowest: float) -> Candidates:
    """Turn the outputs of a head (``[A, 1]``, ``[A, 1]``, ``[A, 4]``, ``[A, 10]``) into candidates, in input pixels.

    The score is the geometric mean of the two probabilities. The mouth is the middle of its two corners.
    """
    classes, objects, boxes, points = outputs
    scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1)).astype(np.float64)
    chosen = np.flatnonzero(scores >= lowest)
    columns = _SIDE // stride
    cells = np.stack([chosen % columns, chosen // columns], axis=1).astype(np.float64)
    raw = boxes[chosen].astype(np.float64)
    centers, halves = (cells + raw[:, :2]) * stride, np.exp(raw[:, 2:]) * stride / 2
    five = (cells[:, None] + points[chosen].astype(np.float64).reshape(-1, 5, 2)) * stride
    mouth = five[:, 3:].mean(axis=1, keepdims=True)
    corners = np.concatenate([centers - halves, centers + halves], axis=1)
    return Candidates(corners, np.concatenate([five[:, :3], mouth], axis=1), scores[chosen])
