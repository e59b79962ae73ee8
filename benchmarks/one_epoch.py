"""Does every recipe learn? One real epoch of each on a tenth of the training faces: its loss before and after.

    python benchmarks/one_epoch.py [RECIPE ...] [--data DATA] [--share 0.1] [--size PIXELS] [--resume] [--json FILE]

Without RECIPE it trains every recipe of mien and every member of every family, the cheapest first. The epoch is the
first one of the recipe's schedule, with its warm-up. `fell` is true if the recipe's loss over the same thousand or so
augmented training faces is lower after the epoch than before it. The mean losses of the first and the last quarter of
the steps are recorded, too, but do not decide: with weighted classes they vary by some hundredths from batch to batch,
about as much as the slowest nets learn in forty steps. The file is written after every recipe, so the benchmark can be
stopped; `--resume` skips recipes whose row has the same share and size and whose loss fell. A recipe that cannot run
(weights that cannot be downloaded, a teacher that was never trained) is listed with the reason. The exit status is 1
if a loss did not fall.

`--size` limits the side in pixels: at 224 px a ResNet-50 needs a quarter of an hour on two cores. Every row holds the
side that was used and the recipe's own. `--memory` limits the activations of a step: a batch that needs more is
computed in parts.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mien.lab.train.loop as loop
from mien._errors import MienError
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet
from mien.lab.data.datasets import load_set
from mien.lab.data.weighting import class_weights
from mien.lab.files import save_text
from mien.lab.provenance import provenance
from mien.lab.recipe import Recipe
from mien.lab.train.batches import batches
from mien.lab.train.devices import Devices
from mien.lab.train.logging import EpochRecord
from mien.lab.train.loop import prepare_training
from mien.lab.train.run import build_net, open_run
from mien.lab.train.schedule import build_schedule

ROOT = Path(__file__).resolve().parent.parent
# Bytes that autograd keeps for each output value of a layer: the value, the input of its norm and of its ReLU.
BYTES_A_VALUE = 4
# Faces for the loss before and after the epoch.
SAMPLED = 1024
Row = dict[str, Any]


class EpochOver(KeyboardInterrupt):
    """The first epoch is over; as at Ctrl-C, the training writes its checkpoint."""


def main() -> int:
    """Train, print and write one row a recipe; returns the exit status."""
    options = parse()
    try:
        return run(options)
    except MienError as error:
        print(error, file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Train with parsed options. Raises ``MienError`` for missing data and unknown recipes."""
    faces = load_set(options.data, recipes.load("conv4"))
    rows: list[Row] = json.loads(options.json.read_text())["rows"] if options.resume and options.json.is_file() else []
    chosen = [member for name in options.recipes or recipes.names() for member in members(name)]
    for name in sorted(chosen, key=lambda each: (pixels(each, options.size), chosen.index(each))):
        if any(same(row, name, options) for row in rows):
            continue
        row = measure(name, faces, options)
        rows = [each for each in rows if each["recipe"] != name] + [row]
        save_text(options.json, json.dumps({"what": __doc__.splitlines()[0], "rows": rows}, indent=1) + "\n")
        print(to_line(row), flush=True)
    mine = [row for row in rows if row["recipe"] in chosen]
    return 1 if any(row.get("fell") is False for row in mine) else 0


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="a recipe, a family or one member of it")
    parser.add_argument("--data", type=Path, help="FER-2013 in any of its forms; default: $MIEN_DATA")
    parser.add_argument("--share", type=float, default=0.1, help="of the training faces")
    parser.add_argument("--size", type=int, default=10_000, help="largest side in pixels that a net sees")
    parser.add_argument("--memory", type=float, default=4.0, help="GB that the activations of a step may take")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto")
    parser.add_argument("--resume", action="store_true", help="train only what the file does not hold yet")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "one-epoch.json")
    return parser.parse_args()


def members(name: str) -> tuple[str, ...]:
    """The members of a family; ``name`` itself for a recipe that is none, and for a member."""
    return (name,) if name.rpartition("/")[0] in recipes.names() else recipes.members(name)


def pixels(name: str, cap: int) -> int:
    """Pixels of a face as the net of recipe ``name`` sees it."""
    return min(recipes.load(name).data.size, cap) ** 2


def same(row: Row, name: str, options: argparse.Namespace) -> bool:
    """Whether ``row`` is what ``measure`` would do again."""
    size = min(recipes.load(name).data.size, options.size)
    return (row["recipe"], row["share"], row["size"]) == (name, options.share, size) and row.get("fell", False)


def measure(name: str, faces: FaceSet, options: argparse.Namespace) -> Row:
    """One epoch of recipe ``name``; if it cannot run, the row holds the reason."""
    whole = recipes.load(name)
    chosen = shorten(whole, share=options.share, size=options.size, memory=options.memory * 1e9)
    row: Row = {
        "recipe": name,
        "share": options.share,
        "size": chosen.data.size,
        "size_of_recipe": whole.data.size,
        "phase": whole.phases[0].name if whole.phases else "",
        "schedule_epochs": build_schedule(whole)[-1].last,
        "batch": chosen.train.batch_size,
        "parts_of_batch": chosen.train.accumulate_steps,
    }
    started = time.monotonic()
    try:
        own = load_set(options.data, chosen) if chosen.data.extra else faces
        row |= one_epoch(chosen, own, options.device)
    except MienError as error:
        row["error"] = str(error)
    origin = provenance(faces.sha256)
    kept = {key: origin[key] for key in ("commit", "data_sha256", "machine", "torch", "date")}
    return {**row, "seconds": round(time.monotonic() - started, 1), "threads": torch.get_num_threads(), **kept}


def shorten(recipe: Recipe, *, share: float, size: int, memory: float) -> Recipe:
    """The recipe on ``share`` of its faces, its batches in parts that fit into ``memory`` bytes."""
    data = replace(recipe.data, fraction=share * recipe.data.fraction, size=min(recipe.data.size, size))
    short = replace(recipe, data=data)
    needed = short.train.batch_size * BYTES_A_VALUE * values(short)
    parts = next(
        n for n in range(1, short.train.batch_size + 1) if short.train.batch_size % n == 0 and needed / n <= memory
    )
    return replace(short, train=replace(short.train, accumulate_steps=max(parts, short.train.accumulate_steps)))


def values(recipe: Recipe) -> int:
    """The number of output values of all layers of the recipe's net for one face."""
    with torch.device("meta"):
        net = build_net(replace(recipe, net=replace(recipe.net, weights=""))).eval()
    counted: list[int] = []

    def count(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        counted.append(output.numel() if isinstance(output, Tensor) else 0)

    for layer in net.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    net(torch.empty(1, 1, recipe.data.size, recipe.data.size, device="meta"))
    return sum(counted)


def one_epoch(recipe: Recipe, faces: FaceSet, accelerator: str) -> Row:
    """Train it; the losses before, in and after the epoch. Raises ``MienError``."""
    losses: list[float] = []
    epochs: list[EpochRecord] = []
    train_step = loop.train_step

    def recorded_step(*arguments: Any) -> Tensor:
        metrics = train_step(*arguments)
        losses.append(float(metrics[0]))
        return metrics

    def on_epoch(record: EpochRecord) -> None:
        epochs.append(record)
        raise EpochOver

    loop.train_step = recorded_step
    devices = Devices(accelerator)
    with tempfile.TemporaryDirectory() as folder:
        before = sampled_loss(recipe, faces, Path(folder), devices)
        with suppress(EpochOver):
            loop.fit(recipe, faces, Path(folder), devices=devices, on_epoch=on_epoch)
        loop.train_step = train_step
        after = sampled_loss(recipe, faces, Path(folder), devices)
    (epoch,) = epochs
    validated = {"val_accuracy": round(epoch.val_accuracy, 4), "val_log_loss": round(epoch.val_log_loss, 4)}
    return {**summarize(losses, before, after), **validated, "images_per_second": round(epoch.images_per_second, 1)}


@torch.no_grad()
def sampled_loss(recipe: Recipe, faces: FaceSet, folder: Path, devices: Devices) -> float:
    """The recipe's mean loss over the same ``SAMPLED`` augmented faces, by the net that ``folder`` holds."""
    fabric = devices.launch(recipe.train.precision)
    task = prepare_training(recipe, faces, fabric)
    weights = class_weights(task.training, recipe.target)
    # In training mode: after some forty steps the running means of batch norms are still those of other weights.
    run = open_run(recipe, folder, device=fabric.device, class_weights=weights, data_sha256=faces.sha256)
    objective = run.objective.train()
    torch.manual_seed(0)  # of dropout
    batch = recipe.train.batch_size // recipe.train.accumulate_steps
    generator = torch.Generator(fabric.device).manual_seed(0)
    samples = batches(
        task.training,
        task.target,
        row_weights=task.row_weights,
        recipe=recipe,
        batch_size=batch,
        teachers=task.teachers,
        generator=generator,
    )
    losses = []
    for sample in islice(samples, max(1, SAMPLED // batch)):  # made at full precision, as in training
        with fabric.autocast():
            losses.append(objective(*sample)[0].float())
    return float(torch.stack(losses).mean())


def summarize(losses: Sequence[float], before: float, after: float) -> Row:
    """Losses before, during and after the epoch."""
    quarter = max(1, len(losses) // 4)
    first, last = (sum(part) / quarter for part in (losses[:quarter], losses[-quarter:]))
    return {
        "steps": len(losses),
        "fell": after < before,
        "loss_before": round(before, 4),
        "loss_after": round(after, 4),
        "loss_first_quarter": round(first, 4),
        "loss_last_quarter": round(last, 4),
        "losses": [round(loss, 4) for loss in losses],
    }


def to_line(row: Row) -> str:
    """One line of text."""
    head = f"{row['recipe']:42s} {row['size']:3d} of {row['size_of_recipe']:3d} px {row['seconds']:6.0f} s  "
    if "error" in row:
        return head + row["error"]
    fell = "fell" if row["fell"] else "DID NOT FALL"
    quarters = f"quarters {row['loss_first_quarter']:.3f} -> {row['loss_last_quarter']:.3f}"
    return f"{head}{row['loss_before']:.3f} -> {row['loss_after']:.3f} {fell}  ({quarters})"


if __name__ == "__main__":
    sys.exit(main())
