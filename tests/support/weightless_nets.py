"""Nets without stored weights, for counting parameters and operations."""

import torch

from mien.lab import nets


def on_paper(name: str, *, channels: int = 3, classes: int = 1000, **options) -> nets.Net:
    """The net without storage: its shapes, parameters and operations cost nothing to count."""
    with torch.device("meta"):
        return nets.build(name, channels=channels, classes=classes, **options).eval()
