"""Images a second of a recipe's augmentation and mixing, batch by batch as the training loop does them.

python benchmarks/augment_speed.py [RECIPE] [--batch 256] [--threads 1] [--device cpu]

Prints the median and the best of many batches of random pixels, and the time of each step. Run it on an idle machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mien.lab import recipe as recipes
from mien.lab.augment import AugmentConfig, augment, mix
from mien.lab.augment.geometry import draw_affine, oval, resample
from mien.lab.augment.photometric import degrade, erase, relight

REPEATS = 100
SIDE = 48  # pixels


def measure(work: Callable[[], object]) -> list[float]:
    """Seconds of each of ``REPEATS`` calls, after three that do not count."""
    seconds = []
    for i in range(REPEATS + 3):
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i >= 3:
            seconds.append(time.perf_counter() - begun)
    return seconds


def steps(images: Tensor, s: AugmentConfig, generator: torch.Generator) -> dict[str, Callable[[], object]]:
    """The steps of ``augment`` and ``mix``, each on its own input."""
    n, x = len(images), images.unsqueeze(1).float() / 255
    maps, target = draw_affine(n, s, generator), torch.full((n, 7), 1 / 7, device=images.device)
    return {
        "to float": lambda: images.unsqueeze(1).float().div_(255),
        "draw affine maps": lambda: draw_affine(n, s, generator),
        "resample": lambda: resample(x, maps, s.padding_mode),
        "brightness": lambda: relight(x.clone(), s, generator),
        "blur and noise": lambda: degrade(x.clone(), s, generator),
        "random erasing": lambda: erase(x.clone(), s, generator),
        "mix": lambda: mix(x, target, s, generator),
        "oval (not counted)": lambda: oval(maps, SIDE),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="mien-0")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    strengths = recipes.load(options.recipe).augment
    generator = torch.Generator(options.device).manual_seed(0)
    shape = (options.batch, SIDE, SIDE)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=options.device, generator=generator)
    target = torch.full((options.batch, 7), 1 / 7, device=options.device)
    seconds = measure(lambda: mix(augment(images, strengths, generator), target, strengths, generator))
    median, best = options.batch / statistics.median(seconds), options.batch / min(seconds)
    print(f"{options.recipe}: {median:,.0f} images/s median, {best:,.0f} best ({options.threads} threads)")
    for name, work in steps(images, strengths, generator).items():
        print(f"  {name:20} {1e3 * min(measure(work)):6.3f} ms a batch of {options.batch}")


if __name__ == "__main__":
    main()
