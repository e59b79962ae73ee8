"""Three ways to an accuracy that is too high, measured on FER-2013; docs/explanations/claims.md describes them.

    python benchmarks/claims.py epoch [--seeds 3] --json results/claims/epoch.json
    python benchmarks/claims.py batch [--seeds 5] --json results/claims/batch.json
    python benchmarks/claims.py leak LEAKY CLEAN --json results/claims/leak.json

`epoch`: the best epoch is chosen on the test set. `batch`: attention across the batch, with test faces sorted by class.
`leak`: the set is expanded first and split afterwards; LEAKY and CLEAN are finished runs of `attention-resnet-leaky`
and `attention-resnet` with the same overrides. None of them evaluates PrivateTest alone.
`--data` names FER-2013 (default: $MIEN_DATA).
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from mien._errors import MienError
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet
from mien.lab.data.datasets import load_set
from mien.lab.files import save_text
from mien.lab.provenance import provenance

ROOT = Path(__file__).resolve().parent.parent


def main(words: list[str] | None = None) -> int:
    """Run one demonstration and write its file; returns the exit status."""
    options = parse(sys.argv[1:] if words is None else words)
    try:
        faces = load_set(options.data, recipes.load("conv4"))
        results = measure(options, faces)
        text = json.dumps({**results, "provenance": run_provenance(faces, options)}, indent=1)
        if options.json:
            save_text(options.json, text + "\n")
    except MienError as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    return 0


def parse(words: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("epoch", "batch", "leak"):
        each = kinds.add_parser(kind)
        each.add_argument("--data", type=Path, help="FER-2013 in any of its forms; default: $MIEN_DATA")
        each.add_argument("--json", type=Path, help="file to write")
        if kind == "leak":
            each.add_argument("leaky", type=Path, help="finished run of attention-resnet-leaky")
            each.add_argument("clean", type=Path, help="finished run of attention-resnet, same overrides")
        else:
            each.add_argument("--seeds", type=int, default=3 if kind == "epoch" else 5, help="trainings")
        if kind == "epoch":
            each.add_argument(
                "--runs", type=Path, default=ROOT / "runs" / "claims-epochs", help="folder for predictions"
            )
    return parser.parse_args(words)


def measure(options: argparse.Namespace, faces: FaceSet) -> dict[str, Any]:
    """Run the chosen demonstration and return its results. Raises ``MienError``."""
    if options.kind == "leak":
        import claims_leak

        return claims_leak.measure(faces, options.leaky, options.clean)
    if options.kind == "batch":
        import claims_batch

        return claims_batch.measure(faces, seeds=options.seeds)
    import claims_epoch

    return claims_epoch.measure(faces, options.runs, seeds=options.seeds)


def run_provenance(faces: FaceSet, options: argparse.Namespace) -> dict[str, str]:
    """Provenance of the results, with the command that wrote them."""
    places = [str(options.leaky), str(options.clean)] if options.kind == "leak" else ["--seeds", str(options.seeds)]
    command = ["python", "benchmarks/claims.py", options.kind, *places, "--json", f"results/claims/{options.kind}.json"]
    return {**provenance(faces.sha256), "command": shlex.join(command), "threads": str(torch.get_num_threads())}


if __name__ == "__main__":
    sys.exit(main())
