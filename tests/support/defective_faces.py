"""Data sets with planted defects, for the tests of the audit."""

from dataclasses import replace

import numpy as np
import torch

from mien.lab.data import FaceSet


def random_images(count: int, *, seed: int = 0, side: int = 48) -> np.ndarray:
    """Smooth random images: low frequencies as strong as in faces, so that correlations are spread widely."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.normal(size=(count, 1, 6, 6)))
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").squeeze(1).numpy()
    noisy = 128 + 40 * smooth + generator.normal(0, 8, (count, side, side))
    return noisy.clip(0, 255).astype(np.uint8)


def with_images(faces: FaceSet, images: np.ndarray) -> FaceSet:
    return replace(faces, images=torch.from_numpy(images))


def planted(faces: FaceSet) -> FaceSet:
    """Copies, contradictions, near copies, a mirrored one, blanks and a placeholder in known rows."""
    images, labels = faces.images.numpy().copy(), faces.labels.clone()
    images[200] = images[0]  # Training 0 is also in PublicTest
    labels[200] = labels[0]
    images[270] = images[1]  # Training 1 is also in PrivateTest, with another label
    labels[270] = (labels[1] + 1) % 7
    images[3] = images[2]  # within Training, another label
    labels[3] = (labels[2] + 1) % 7
    images[205] = (images[5] * 0.8 + 20).astype(np.uint8)  # Training 5 nearly in PublicTest
    images[7] = images[6][:, ::-1]  # mirrored
    images[8] = 0
    images[9] = 200
    images[9, 0, 0] = 190
    images[10] = 250
    images[10, 20:24, 5:40:3] = 0  # looks like letters
    return replace(faces, images=torch.from_numpy(images), labels=labels)
