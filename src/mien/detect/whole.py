"""No detector at all: the picture is the face."""

from mien._face import Box, Detection
from mien.detect.tiles import Pixels


class Whole:
    """Answers the whole picture as one face without key points: for sets of pictures that are crops already."""

    name = "none"

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """One detection that covers the RGB uint8 ``[H, W, 3]`` picture, with score 1."""
        height, width = pixels.shape[:2]
        return [Detection(Box(0.0, 0.0, float(width), float(height)), 1.0, None)]
