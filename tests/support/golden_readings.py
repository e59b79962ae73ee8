"""The golden readings of tests/golden, their images, and the differences of other readings from them."""

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from support.paths import ROOT


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("write_golden", ROOT / "tools" / "write_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
GOLDEN: dict[str, dict[str, Any]] = {
    name: json.loads((ROOT / "tests" / "golden" / f"{name}.json").read_text("utf-8")) for name in TOOL.IMAGES
}


class Difference(NamedTuple):
    """The largest differences between two readings: of a probability, and of a side of a box in pixels."""

    probability: float = 0.0
    pixels: float = 0.0

    def max(self, other: "Difference") -> "Difference":
        """The larger of both, value by value."""
        return Difference(max(self.probability, other.probability), max(self.pixels, other.pixels))

    def __str__(self) -> str:
        return f"probabilities differ by {self.probability:.1e} at most, boxes by {self.pixels:.2f} pixels"


def golden_image(name: str) -> NDArray[np.uint8]:
    """A golden image, RGB uint8 [H, W, 3], checked against its sha256."""
    pixels: NDArray[np.uint8] = TOOL.IMAGES[name](TOOL.example())
    assert TOOL.digest(pixels) == GOLDEN[name]["sha256"], name
    return pixels


def differ(golden: Sequence[Mapping[str, Any]], faces: Sequence[Mapping[str, Any]]) -> Difference:
    """Compare faces ``{"box", "probs", "quality"}`` with the golden ones, each with the nearest."""
    assert len(faces) == len(golden)
    worst = Difference()
    rest = list(faces)
    for wanted in golden:
        near = min(rest, key=lambda face: math.dist(face["box"][:2], wanted["box"][:2]))
        rest.remove(near)
        assert list(near["probs"]) == list(wanted["probs"])
        probability = max(abs(near["probs"][emotion] - value) for emotion, value in wanted["probs"].items())
        quality = zip(near["quality"].values(), wanted["quality"].values(), strict=True)
        assert all(one == pytest.approx(other, rel=0.03, abs=0.03) for one, other in quality), near["quality"]
        pixels = max(abs(one - other) for one, other in zip(near["box"], wanted["box"], strict=True))
        worst = worst.max(Difference(probability, pixels))
    return worst
