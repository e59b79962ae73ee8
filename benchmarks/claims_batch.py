"""Accuracy of attention across the batch when test faces are sorted by class.

Three heads of equal size are trained on the frozen features of mien-0. The first one's attention runs over the faces
of its batch and is trained on shuffled batches. (PAtt-Lite's notebook gives its attention layer a tensor of that shape:
faces x values, without an axis of positions.) The second is the same, trained on batches of one class each. In the
third every face attends only to itself. Then each head predicts PublicTest face by face, in shuffled batches, and in
batches of faces sorted by class. A correct head has the same accuracy each time. A head that uses the other faces of
its batch learns the class from the order of the files.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from mien.lab.data import FaceSet, Split
from mien.lab.data.selection import training_rows
from mien.lab.inference import normalise
from mien.lab.models import Model, open_model
from mien.lab.predictions import resize_faces
from mien.lab.train.run import load_final

ROOT = Path(__file__).resolve().parent.parent
MIEN0 = ROOT / "results" / "mien-0"
WIDTH = 32  # values per face in the attention, as in PAtt-Lite
BATCH = 64
EPOCHS = 10
LEARNING_RATE = 1e-3  # of Adam
RESAMPLES = 2000

# name -> (attention runs across the batch, batches of the training hold one class each)
HEADS = {"attention": (True, False), "attention, trained on sorted batches": (True, True), "alone": (False, False)}
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Head(nn.Module):
    """Features ``[B, K]`` -> logits ``[B, C]``, through attention over the B faces, or of each face to itself."""

    def __init__(self, width: int, classes: int, *, across: bool) -> None:
        super().__init__()
        self.reduce, self.scale = nn.Linear(width, WIDTH), nn.Parameter(torch.ones(()))
        self.classify, self.across = nn.Linear(WIDTH, classes), across

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        y = functional.relu(self.reduce(x))
        if self.across:
            y = (self.scale * y @ y.T).softmax(dim=1) @ y
        logits: Tensor = self.classify(y)
        return logits


def measure(faces: FaceSet, *, seeds: int) -> dict[str, Any]:
    """Accuracies of the three heads and of the embedded mien-0 on PublicTest."""
    trained = load_final(MIEN0)
    training, public = training_rows(faces, trained.recipe), faces.split(Split.PUBLIC_TEST)
    pool = trained.net.features
    print(f"features of {len(training) + len(public):,} faces", file=sys.stderr, flush=True)
    x, x_public = (features(pool, part.images, trained.recipe.data.size) for part in (training, public))
    rows = {
        name: train_heads(x, training.labels, x_public, public.labels, across=across, by_class=by_class, seeds=seeds)
        for name, (across, by_class) in HEADS.items()
    }
    return {
        "features": "mien-0, frozen",
        "batch": BATCH,
        "epochs": EPOCHS,
        "width": WIDTH,
        "seeds": list(range(seeds)),
        "n": len(public),
        "n_training": len(training),
        "heads": rows,
        "mien-0": embedded(open_model("mien-0"), public),
    }


@torch.no_grad()
def features(net: nn.Module, images: Tensor, size: int) -> Tensor:
    """The pooled features of uint8 ``images`` ``[N, S, S]``, float32 ``[N, K]``."""
    parts = [net(normalise(part.unsqueeze(1).float() / 255, size)).mean((2, 3)) for part in torch.split(images, 512)]
    return torch.cat(parts)


def train_heads(
    x: Tensor, labels: Tensor, x_test: Tensor, truth: Tensor, *, across: bool, by_class: bool, seeds: int
) -> dict[str, Any]:
    """Train a head ``seeds`` times; returns its accuracy by order of the test faces, and the gain from sorting."""
    right: dict[str, list[Bools]] = {}
    for seed in range(seeds):
        print(f"head {seed + 1} of {seeds}", file=sys.stderr, flush=True)
        head = train(x, labels, across=across, by_class=by_class, seed=seed)
        for name, batches in arrangements(truth, seed=seed).items():
            right.setdefault(name, []).append((predict(head, x_test, batches) == truth).numpy())
    shares = {name: np.mean(each, axis=0) for name, each in right.items()}  # of the trainings, for every face
    together = batch_of(arrangements(truth, seed=0)["sorted"], len(truth))
    accuracy = {
        name: mean_and_interval(share, together if name == "sorted" else np.arange(len(truth)))
        for name, share in shares.items()
    }
    by_seed = {name: [round(100 * float(each.mean()), 2) for each in runs] for name, runs in right.items()}
    gain = mean_and_interval(shares["sorted"] - shares["shuffled"], together)
    return {"accuracy": accuracy, "by_seed": by_seed, "sorted_minus_shuffled": gain}


def train(x: Tensor, labels: Tensor, *, across: bool, by_class: bool, seed: int) -> Head:
    """Train a head on features ``x`` ``[N, K]``; returns it in eval mode."""
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    head = Head(x.shape[1], int(labels.max()) + 1, across=across)
    optimiser = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for rows in training_batches(labels, generator, by_class=by_class):
            optimiser.zero_grad()
            functional.cross_entropy(head(x[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return head.eval()


def training_batches(labels: Tensor, generator: Generator, *, by_class: bool) -> list[Tensor]:
    """The full batches of an epoch in random order; with ``by_class`` each holds one class."""
    order = torch.randperm(len(labels), generator=generator)
    groups = [order[labels[order] == label] for label in labels.unique()] if by_class else [order]
    batches = [part for group in groups for part in torch.split(group, BATCH) if len(part) == BATCH]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def arrangements(truth: Tensor, *, seed: int) -> dict[str, list[Tensor]]:
    """Orders of the test faces: one by one, in shuffled batches, in batches sorted by class as folders give them."""
    generator, n = Generator().manual_seed(1000 + seed), len(truth)
    return {
        "alone": list(torch.split(torch.arange(n), 1)),
        "shuffled": list(torch.split(torch.randperm(n, generator=generator), BATCH)),
        "sorted": list(torch.split(truth.argsort(stable=True), BATCH)),
    }


@torch.no_grad()
def predict(head: nn.Module, x: Tensor, batches: list[Tensor]) -> Tensor:
    """The class that ``head`` predicts for every row of ``x``, batch by batch, int64 ``[N]``."""
    guess = torch.empty(len(x), dtype=torch.long)
    for rows in batches:
        guess[rows] = head(x[rows]).argmax(1)
    return guess


def embedded(model: Model, public: FaceSet) -> dict[str, Any]:
    """The embedded model with the same orders: accuracy, and the largest difference of its probabilities."""
    crops, truth = resize_faces(public, model.size), public.labels
    probs: dict[str, NDArray[np.float32]] = {}
    for name, batches in arrangements(truth, seed=0).items():
        table = np.empty((len(truth), len(model.emotions)), np.float32)
        for rows in batches:
            table[rows.numpy()] = model(crops[rows.numpy()])[0]
        probs[name] = table
    first, labels = probs["alone"], truth.numpy()
    faces = np.arange(len(truth))
    return {
        "precision": model.about["precision"],
        "accuracy": {
            name: mean_and_interval(np.asarray(p.argmax(1) == labels, float), faces) for name, p in probs.items()
        },
        "largest_difference": max(float(np.abs(p - first).max()) for p in probs.values()),
        "predictions_that_differ": max(int((p.argmax(1) != first.argmax(1)).sum()) for p in probs.values()),
    }


def batch_of(batches: list[Tensor], count: int) -> Ints:
    """The number of the batch of each of ``count`` faces."""
    number = np.empty(count, np.int64)
    for i, rows in enumerate(batches):
        number[rows.numpy()] = i
    return number


def mean_and_interval(values: NDArray[np.floating[Any]], groups: Ints) -> dict[str, Any]:
    """Mean in points with its 95 % bootstrap interval over ``groups``; faces of one batch are drawn together."""
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups)
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(100 * means, [2.5, 97.5])
    return {"mean": round(100 * float(values.mean()), 2), "interval": [round(float(low), 2), round(float(high), 2)]}
