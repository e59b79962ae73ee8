"""What attention across the batch makes of test faces that lie sorted by class.

On the frozen features of mien-0 three heads of equal size are trained: one whose attention runs over the faces of its
batch (the shape of tensor that PAtt-Lite's notebook gives to an attention layer: faces x values, without an axis of
places), on shuffled batches; the same on batches of one class each; and one where every face attends to itself alone.
Then each answers PublicTest face by face, in shuffled batches and in batches of faces sorted by class. A fair head has
one accuracy; one that looks at its neighbours reads the class off the order of the files.
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
WIDTH = 32  # values of a face in the attention, as PAtt-Lite has them
BATCH = 64
EPOCHS = 10
RATE = 1e-3  # of Adam
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
    """The figures of the three heads, and of mien-0 as it is shipped, on PublicTest."""
    trained = load_final(MIEN0)
    training, public = training_rows(faces, trained.recipe), faces.split(Split.PUBLIC_TEST)
    pool = trained.net.features
    print(f"features of {len(training) + len(public):,} faces", file=sys.stderr, flush=True)
    x, x_public = (features(pool, part.images, trained.recipe.data.size) for part in (training, public))
    rows = {
        name: figures(x, training.labels, x_public, public.labels, across=across, by_class=by_class, seeds=seeds)
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
        "mien-0": shipped(open_model("mien-0"), public),
    }


@torch.no_grad()
def features(net: nn.Module, images: Tensor, size: int) -> Tensor:
    """The pooled features of uint8 ``images`` ``[N, S, S]``, float32 ``[N, K]``."""
    parts = [net(normalise(part.unsqueeze(1).float() / 255, size)).mean((2, 3)) for part in torch.split(images, 512)]
    return torch.cat(parts)


def figures(
    x: Tensor, labels: Tensor, x_test: Tensor, truth: Tensor, *, across: bool, by_class: bool, seeds: int
) -> dict[str, Any]:
    """Train a head ``seeds`` times; accuracy in every arrangement of the test faces, and what sorting them adds."""
    right: dict[str, list[Bools]] = {}
    for seed in range(seeds):
        print(f"head {seed + 1} of {seeds}", file=sys.stderr, flush=True)
        head = train(x, labels, across=across, by_class=by_class, seed=seed)
        for name, batches in arrangements(truth, seed=seed).items():
            right.setdefault(name, []).append((answer(head, x_test, batches) == truth).numpy())
    shares = {name: np.mean(each, axis=0) for name, each in right.items()}  # of the trainings, for every face
    together = batch_of(arrangements(truth, seed=0)["sorted"], len(truth))
    said = {
        name: told(share, together if name == "sorted" else np.arange(len(truth))) for name, share in shares.items()
    }
    by_seed = {name: [round(100 * float(each.mean()), 2) for each in runs] for name, runs in right.items()}
    gain = told(shares["sorted"] - shares["shuffled"], together)
    return {"accuracy": said, "by_seed": by_seed, "sorted_minus_shuffled": gain}


def train(x: Tensor, labels: Tensor, *, across: bool, by_class: bool, seed: int) -> Head:
    """A head that has learned from features ``x`` ``[N, K]``, in eval mode."""
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    head = Head(x.shape[1], int(labels.max()) + 1, across=across)
    optimiser = torch.optim.Adam(head.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for rows in training_batches(labels, generator, by_class=by_class):
            optimiser.zero_grad()
            functional.cross_entropy(head(x[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return head.eval()


def training_batches(labels: Tensor, generator: Generator, *, by_class: bool) -> list[Tensor]:
    """The full batches of an epoch, in random order; ``by_class``: each of one class."""
    order = torch.randperm(len(labels), generator=generator)
    groups = [order[labels[order] == label] for label in labels.unique()] if by_class else [order]
    batches = [part for group in groups for part in torch.split(group, BATCH) if len(part) == BATCH]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def arrangements(truth: Tensor, *, seed: int) -> dict[str, list[Tensor]]:
    """How the test faces come: one by one, in shuffled batches, in batches sorted by class as from folders."""
    generator, n = Generator().manual_seed(1000 + seed), len(truth)
    return {
        "alone": list(torch.split(torch.arange(n), 1)),
        "shuffled": list(torch.split(torch.randperm(n, generator=generator), BATCH)),
        "sorted": list(torch.split(truth.argsort(stable=True), BATCH)),
    }


@torch.no_grad()
def answer(head: nn.Module, x: Tensor, batches: list[Tensor]) -> Tensor:
    """The class that ``head`` gives to every row of ``x``, asked batch by batch, int64 ``[N]``."""
    guess = torch.empty(len(x), dtype=torch.long)
    for rows in batches:
        guess[rows] = head(x[rows]).argmax(1)
    return guess


def shipped(model: Model, public: FaceSet) -> dict[str, Any]:
    """The embedded model in the same arrangements: its accuracy, and how far its probabilities differ."""
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
        "accuracy": {name: told(np.asarray(p.argmax(1) == labels, float), faces) for name, p in probs.items()},
        "largest_difference": max(float(np.abs(p - first).max()) for p in probs.values()),
        "answers_that_differ": max(int((p.argmax(1) != first.argmax(1)).sum()) for p in probs.values()),
    }


def batch_of(batches: list[Tensor], count: int) -> Ints:
    """For each of ``count`` faces the number of its batch."""
    number = np.empty(count, np.int64)
    for i, rows in enumerate(batches):
        number[rows.numpy()] = i
    return number


def told(values: NDArray[np.floating[Any]], groups: Ints) -> dict[str, Any]:
    """The mean in points, and its 95 % bootstrap interval over ``groups``: faces that share a batch stay together."""
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups)
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(100 * means, [2.5, 97.5])
    return {"mean": round(100 * float(values.mean()), 2), "interval": [round(float(low), 2), round(float(high), 2)]}
