"""The embedded model: it reads the example, keeps its budgets, and its card says what the file does."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mien import Emotion, Reader
from mien.bundled import BUNDLED
from mien.infer import Classifier, find_model

CARD = json.loads((BUNDLED / "mien-0" / "card.json").read_text())


def test_the_example_is_happy(astronaut: NDArray[np.uint8]) -> None:
    (face,) = Reader().read(astronaut).faces
    assert face.emotion is Emotion.HAPPY
    assert face.confidence > 0.8
    assert face.maps.shape == (7, 6, 6)
    logits = face.maps.mean((1, 2))
    softmax = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(softmax, list(face.probs.values()), atol=1e-3)


def test_int8_and_fp32_agree_on_the_example(astronaut: NDArray[np.uint8]) -> None:
    int8, fp32 = (Reader(precision=p).read(astronaut).faces[0] for p in ("int8", "fp32"))
    assert max(abs(int8.probs[e] - fp32.probs[e]) for e in int8.probs) < 0.05


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_crop_alone_and_in_a_batch_reads_the_same(precision: str) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (64, 48, 48), dtype=np.uint8)
    classifier = Classifier(find_model("mien-0", precision=precision))
    together = classifier(crops)[0]
    alone = np.concatenate([classifier(crop[None])[0] for crop in crops])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_file_is_small() -> None:
    assert find_model("mien-0").stat().st_size <= 5e6


def test_the_card_keeps_what_was_asked_of_it() -> None:
    """The figures that the project set for its first model, as measured when it was exported."""
    assert CARD["accuracy"]["private"] >= 0.695
    assert CARD["accuracy"]["private_clean"] >= 0.69
    assert CARD["recall"]["fear"] >= 0.40
    assert CARD["ece"] <= 0.03
    public = {precision: figures["all"]["accuracy"] for precision, figures in CARD["judged"]["public"].items()}
    assert public["fp32"] - public["int8"] <= 0.003
    assert {"command", "commit", "data_sha256", "machine", "seed", "recipe"} <= CARD.keys()


def test_the_card_says_what_the_file_does(fer2013_parquet: Path) -> None:
    """PublicTest again, through the file that is shipped: PrivateTest is not touched by a test."""
    from mien.lab.data import Split, load_fer2013
    from mien.lab.judge.judge import judge

    faces = load_fer2013(fer2013_parquet)
    assert faces.sha256 == CARD["data_sha256"]
    figures = judge(Classifier(find_model("mien-0")), faces, "seven", Split.PUBLIC_TEST)
    said = CARD["judged"]["public"]["int8"]
    for part in ("all", "clean"):
        assert figures[part]["n"] == said[part]["n"]
        # Processors without VNNI round int8 sums another way.
        assert figures[part]["accuracy"] == pytest.approx(said[part]["accuracy"], abs=0.004)
        assert figures[part]["ece"] == pytest.approx(said[part]["ece"], abs=0.01)
