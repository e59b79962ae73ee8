"""Compares temperature and vector scaling of a finished run by ten-fold cross-validation on PublicTest.

    python tools/compare_calibration.py runs/mien-0/seed-0 path/of/fer2013

The default calibration of the lab was chosen with it.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from mien.lab.data import Split, find_fer2013, load_fer2013, with_classes
from mien.lab.export.calibrate import fit_temperature, fit_vector
from mien.lab.inference import predict
from mien.lab.metrics import expected_calibration_error
from mien.lab.train.run import load_final

FOLDS = 10


def main() -> None:
    """Print log loss, calibration error and accuracy on held-out folds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    trained = load_final(arguments.run)
    faces = load_fer2013(find_fer2013(arguments.data)).split(Split.PUBLIC_TEST)
    public = with_classes(faces, trained.recipe.data.classes)
    logits = predict(trained.net, public.images, trained.recipe.data.size)
    folds = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0)) % FOLDS
    table = Table("calibration", "log loss", "ECE", "accuracy")
    for name, fit in (("temperature", fit_temperature), ("vector", fit_vector)):
        held_out = torch.empty_like(logits)
        for fold in range(FOLDS):
            inside = folds == fold
            held_out[inside] = fit(logits[~inside], public.labels[~inside])(logits[inside])
        loss = float(F.cross_entropy(held_out, public.labels))
        error = expected_calibration_error(held_out.softmax(1).numpy(), public.labels.numpy())
        right = float((held_out.argmax(1) == public.labels).float().mean())
        table.add_row(name, f"{loss:.4f}", f"{error:.4f}", f"{right:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
