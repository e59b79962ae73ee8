"""Records of invented runs, in the form that `mien record` writes."""

import json
from pathlib import Path
from typing import Any

CLAIMED = {"accuracy": 0.9, "recall.sad": 0.5}


def figures(accuracy: float, n: int = 100) -> dict[str, Any]:
    """Metrics of ``n`` faces of two emotions."""
    each = {"happy": accuracy, "sad": 0.25}
    return {
        "n": n,
        "accuracy": accuracy,
        "interval": [accuracy - 0.05, accuracy + 0.05],
        "balanced_accuracy": 0.4,
        "macro_f1": 0.3,
        "log_loss": 1.25,
        "ece": 0.02,
        "recall": each,
        "precision": each,
    }


def write(root: Path, name: str, accuracy: float, *, seed: int = 0, split: str = "private", **claim: Any) -> None:
    """Write ``metrics.json`` of one run, evaluated on ``split``; ``claim`` changes its published claim."""
    place = root / name / f"seed-{seed}"
    place.mkdir(parents=True)
    by = {"all": figures(accuracy), "clean": figures(accuracy - 0.1, 90)}
    said = {"recipe": name, "seed": seed, "judged": {split: {"fp32": by}}, "parameters": 1234, "macs": 5_600_000}
    said |= {"size": 48, "epochs": 3, "seconds": 60, "machine": "a machine", "commit": "abc", "judged_at": "def"}
    stated = {"document": "009", "variant": "own", "split": "its own", "figures": CLAIMED} | claim
    (place / "metrics.json").write_text(json.dumps(said | {"claim": stated}))
