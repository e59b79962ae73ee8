"""Cost of the training loop: its images/s compared with a bare PyTorch loop, and its start-up time.

    python benchmarks/train_throughput.py ["RECIPE key=value ..." ...] --json results/train-throughput.json

The bare loop trains the same net with the same batch size and precision on one fixed batch in memory: forward, loss,
backward, step. Ours is an epoch of the recipe as `mien train` runs it, on enough faces for `--steps` steps: sampling,
augmentation, mixed targets, averaged weights, metrics. Both run in one process, in turns. Results are medians of the
rounds; `share` is our rate divided by that of the bare loop. `views_ms` and `average_ms` are the time that a step
spends on its batch and on the averaged weights. `start_seconds` is the time from the start of Python to the first step
of a training on all of FER-2013, `start_cpu_seconds` its CPU time. Peak memory of that process: `imports_mb` before it
reads the faces, `read_mb` after that, `peak_mb` at the first step. For comparison: `data_mb` (all faces once) and
`net_mb` (weights, their average, gradients and the optimiser's state). Run it on an idle machine.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien._errors import MienError
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, find_fer2013, load_fer2013
from mien.lab.data.weighting import class_weights
from mien.lab.provenance import provenance
from mien.lab.recipe import Recipe
from mien.lab.train.batches import batches
from mien.lab.train.devices import Devices
from mien.lab.train.loop import TrainingTask, prepare_training, train_epoch
from mien.lab.train.optim import build_optimizer
from mien.lab.train.run import Run, build_net, open_run

SMALL_ATTENTION = "attention-resnet data.size=48 net.options.stem=small train.batch_size=64"
RECIPES = ("mien-0", "conv4", SMALL_ATTENTION, "mobilenetv3-small")

START = """
import sys, tempfile
from pathlib import Path
from mien._measure import peak_memory_mb
from mien.lab import recipe as recipes
from mien.lab.data import find_fer2013, load_fer2013
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
def first(stage, done=0, total=0):
    print(imports, read, peak_memory_mb(), flush=True)
    raise SystemExit
imports = peak_memory_mb()
name, accelerator, data, *overrides = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    faces = load_fer2013(find_fer2013(Path(data) if data else None))
    read = peak_memory_mb()
    fit(recipes.load(name, overrides), faces, Path(folder), devices=Devices(accelerator), progress=first)
"""


def main() -> int:
    """Print one line a recipe and write the file; returns the exit status."""
    options = parse()
    try:
        faces = load_fer2013(find_fer2013(options.data))
        rows = [row(words.split(), faces, options) for words in options.recipes or RECIPES]
    except MienError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        found = {"rows": rows, "steps": options.steps, "rounds": options.rounds, "threads": torch.get_num_threads()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**found, "provenance": provenance(faces.sha256)}, indent=1) + "\n")
    return 0


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help='a recipe and its overrides: "conv4 data.size=32"')
    parser.add_argument("--data", type=Path, help="FER-2013; default: $MIEN_DATA")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--precision", help="instead of the recipes' own: 32-true or bf16-mixed (where the device has it)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="steps in a round")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def row(words: list[str], faces: FaceSet, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one recipe."""
    name, *overrides = words
    overrides += [f"train.precision={options.precision}"] if options.precision else []
    begin = start(name, overrides, options)
    recipe = recipes.load(name, overrides)
    batch = recipe.train.batch_size
    share = min(1.0, (options.steps + 0.5) * batch / 28_000)  # an epoch of so many steps
    recipe = recipes.load(name, [*overrides, f"data.fraction={share}"])
    with tempfile.TemporaryDirectory() as folder:
        found = measure(recipe, faces, Path(folder), options)
    data = sum(x.nbytes for x in (faces.images, faces.votes, faces.labels, faces.usage, faces.rows) if x is not None)
    begin |= {"data_mb": data / 1e6, "net_mb": net_mb(recipe)}
    measured = {
        "recipe": " ".join(words),
        "batch": batch,
        "precision": Devices(options.device).precision(recipe.train.precision),
        **found,
        **begin,
    }
    print("  ".join(f"{key} {x:.4g}" if isinstance(x, float) else f"{key} {x}" for key, x in measured.items()))
    return measured


def start(name: str, overrides: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Time until the first step of a training in its own process, and the peak memory."""
    begun, spent = time.perf_counter(), cpu_seconds()
    words = [sys.executable, "-c", START, name, options.device, str(options.data or ""), *overrides]
    printed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    taken = {"start_seconds": time.perf_counter() - begun, "start_cpu_seconds": cpu_seconds() - spent}
    return taken | dict(zip(("imports_mb", "read_mb", "peak_mb"), map(float, printed[-3:]), strict=True))


def cpu_seconds() -> float:
    """CPU seconds of the child processes that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def measure(recipe: Recipe, faces: FaceSet, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Images/s of both loops in turns, and the time of the parts of ours."""
    fabric = Devices(options.device).launch(recipe.train.precision)
    task = prepare_training(recipe, faces, fabric)
    run = open_run(recipe, folder, device=fabric.device, class_weights=class_weights(task.training, recipe.target))
    model, stepper = fabric.setup(run.objective, run.start_segment())
    bare = Bare(task)
    images = task.steps_per_epoch(recipe.train) * recipe.train.batch_size
    train_epoch(task, run, model, stepper)
    bare(1)
    ours, theirs = [], []
    for _ in range(options.rounds):
        theirs.append(images / seconds(lambda: bare(images // recipe.train.batch_size), fabric.device))
        ours.append(images / seconds(lambda: train_epoch(task, run, model, stepper), fabric.device))
    steps = images / recipe.train.batch_size
    views = seconds(lambda: list(batch_shapes(task, run)), fabric.device) / steps
    average = seconds(run.ema.update, fabric.device)
    return {
        "ours": statistics.median(ours),
        "bare": statistics.median(theirs),
        "share": statistics.median(ours) / statistics.median(theirs),
        "views_ms": 1000 * views,
        "average_ms": 1000 * average,
    }


def batch_shapes(task: TrainingTask, run: Run) -> Any:
    """Shapes of the augmented batches of one epoch."""
    generator = torch.Generator(task.fabric.device).manual_seed(0)
    for batch in batches(
        task.training,
        task.target,
        row_weights=task.row_weights,
        recipe=task.recipe,
        batch_size=run.segment.config.batch_size,
        teachers=task.teachers,
        generator=generator,
    ):
        yield batch.x.shape  # not the batch: an epoch of them takes too much memory


class Bare:
    """The least that trains: one batch, one net, one optimiser."""

    def __init__(self, task: TrainingTask) -> None:
        recipe, device = task.recipe, task.fabric.device
        self.net = build_net(recipe).to(device, memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(self.net, recipe.train)
        size, batch = recipe.data.size, recipe.train.batch_size
        self.x = torch.randn(batch, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)
        self.target = task.target[:batch]
        self.autocast = task.fabric.autocast

    def __call__(self, steps: int) -> None:
        """Train so many steps."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            with self.autocast():
                loss = nn.functional.cross_entropy(self.net(self.x), self.target)
            loss.backward()
            self.optimizer.step()


def net_mb(recipe: Recipe) -> float:
    """Weights, their average and gradients, and one or two numbers a weight for the optimiser."""
    copies = 3 + (1 if recipe.train.optimizer == "sgd" else 2)
    return copies * sum(p.nbytes for p in build_net(recipe).parameters()) / 1e6


def seconds(act: Any, device: torch.device) -> float:
    """How long ``act`` takes, to its end on the device."""
    begun = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
