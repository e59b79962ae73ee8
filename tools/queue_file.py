"""results/queue.toml: the trainings that the results still want, in order of worth, and which of them are done."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mien._errors import DataError
from mien.lab.overview import is_family
from mien.lab.recipe import load, members

ROOT = Path(__file__).resolve().parent.parent
QUEUE = ROOT / "results" / "queue.toml"
PLACES = ("core", "accelerator")


@dataclass(frozen=True)
class Wanted:
    """One training: ``member`` is what ``mien train`` takes, ``name`` that of its run and its results."""

    member: str
    name: str
    seed: int
    on: str  # one of PLACES
    minutes: float
    why: str
    final: bool = True  # judged on PrivateTest; not so a run that another one starts from, or that serves a choice

    @property
    def run(self) -> Path:
        """Its folder below ``runs``, or its results' below ``results``."""
        return Path(self.name, f"seed-{self.seed}")


def read_queue(path: Path = QUEUE) -> list[Wanted]:
    """The trainings in order, families as their members. Raises ``DataError`` naming the entry that is wrong."""
    try:
        entries = tomllib.loads(path.read_text("utf-8"))["run"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise DataError(f"{path}: no queue ({error}); it is a list of [[run]] tables") from error
    return [wanted for number, entry in enumerate(entries, start=1) for wanted in _expand(entry, f"{path} {number}")]


def _expand(entry: dict[str, object], where: str) -> list[Wanted]:
    recipe, seeds, on, minutes, why = (entry.get(key) for key in ("recipe", "seeds", "on", "minutes", "why"))
    final = bool(entry.get("final", True))
    if not (isinstance(recipe, str) and isinstance(seeds, list) and isinstance(minutes, int | float) and why):
        raise DataError(f"{where}: a run has recipe, seeds, on, minutes and why")
    if on not in PLACES:
        raise DataError(f"{where}: on is one of {', '.join(PLACES)}, not {on!r}")
    names = members(recipe) if is_family(recipe) else (recipe,)
    return [Wanted(name, load(name).name, seed, str(on), minutes, str(why), final) for seed in seeds for name in names]


def is_done(wanted: Wanted, results: Path) -> bool:
    """Whether its evidence is there, PrivateTest and all where it is final."""
    path = results / wanted.run / "metrics.json"
    return path.is_file() and ("private" if wanted.final else "public") in json.loads(path.read_text("utf-8"))["judged"]
