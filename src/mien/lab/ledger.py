"""The ledger of looks at PrivateTest: which figures were computed, when, and why again.

A figure on PrivateTest can influence the next choice of the person who reads it. So figures are counted by *family*:
the recipes of one document and net, or those that name the same ``family``. A look is

- one training of one recipe; further seeds of the same training belong to the same look
- or one grid of the package, each of whose members is evaluated once for each seed, with its settings.

All figures of a look stay in the ledger, so nothing is selected within it in silence. The same weights or recorded
probabilities give the same figures: to evaluate them again is a repeat, which is counted and never refused. Any other
second look at a family needs a reason.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from mien._errors import DataError, RecipeError
from mien._format import percent
from mien.lab.data import FaceSet, Split
from mien.lab.data.faceset import file_sha256
from mien.lab.data.fer2013 import has_private_test
from mien.lab.files import CHECKOUT, load_arrays, load_json, locked_file, require_writable, save_json
from mien.lab.provenance import provenance
from mien.lab.recipe import Recipe, load, parse
from mien.lab.recipe.load import training_differences

_KINDS = {"family": str, "look": int, "recipe": str, "seed": str, "settings": str, "answers": list, "accuracy": dict}
_CURE = "restore it from the version control or a copy"

Look = dict[str, Any]


def default_ledger() -> Path:
    """Return the ledger of the checkout that holds this package; of an installed package, one in the home folder."""
    results = CHECKOUT / "results"
    return (results if results.is_dir() else Path.home() / ".mien") / "private-test-looks.json"


def is_private_test(faces: FaceSet, split: str) -> bool:
    """Return whether an evaluation reads the PrivateTest of FER-2013. Test splits of other sets are not counted.

    Args:
        faces: The whole data set.
        split: A split, or ``"all"``.

    Returns:
        Whether the split contains as many faces of every class as the official PrivateTest.
    """
    return split in (Split.PRIVATE_TEST, "all") and (faces.private_test or has_private_test(faces))


def family_of(recipe: Recipe) -> str:
    """Return the family of a recipe: its key ``family``, else its document and net.

    Args:
        recipe: The recipe.

    Returns:
        For example ``"003 attention-resnet"``, or ``"own mien"`` without a document.
    """
    net = recipe.net.name
    if net == "ensemble" and recipe.net.options.get("parts"):
        net = recipe.net.options["parts"][0]["name"]
    return recipe.family or f"{recipe.claim.document or 'own'} {net.replace('_', '-')}"


def digest_arrays(*arrays: ArrayLike, name: str = "") -> str:
    """Return the SHA-256 of arrays.

    Args:
        *arrays: The arrays, in a fixed order.
        name: Text that is part of what is hashed, such as the calibration of a net.

    Returns:
        64 hexadecimal digits.
    """
    found = hashlib.sha256(name.encode())
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digest_net(net: nn.Module, calibration: str) -> str:
    """Return the SHA-256 of the weights of a net with its calibration, which is part of its answers.

    Args:
        net: The net.
        calibration: Name of the calibration; empty without one.

    Returns:
        64 hexadecimal digits.
    """
    return digest_arrays(*(value.cpu() for _, value in sorted(net.state_dict().items())), name=calibration)


def with_views(digest: str, tta: str) -> str:
    """Return the digest of answers that are means over several views of each face.

    Args:
        digest: Digest of the answers for one view.
        tta: The test-time augmentation; ``"none"`` changes nothing.

    Returns:
        The digest.
    """
    return digest if tta == "none" else f"{digest}+{tta}"


@dataclass(frozen=True)
class Answers:
    """The answers of one model for PrivateTest.

    Attributes:
        recipe: Name of its recipe, or of a foreign model.
        digests: SHA-256 of its weights, file or recorded probabilities. Models that share one give the same answers.
        family: Its family; empty: that of the recipe in the ledger, else the recipe's name.
        seed: Seed of its training; empty where it is not known.
        settings: Hash of its recipe without name, seed and texts; empty where it is not known.
        accuracy: Which answers (``"fp32"``, ``"int8 flip"``) -> accuracy of all rows, 0..1; empty if not known.
        trained_on: SHA-256 of the data set of its training; empty where it is not known.
    """

    recipe: str
    digests: tuple[str, ...]
    family: str = ""
    seed: str = ""
    settings: str = ""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    trained_on: str = ""


def answers_of_recipe(recipe: Recipe, digests: Sequence[str], *, trained_on: str = "") -> Answers:
    """Return the answers of a training, without their accuracy.

    Args:
        recipe: Its recipe.
        digests: SHA-256 of its weights and of what was made of them.
        trained_on: SHA-256 of its data set; empty where it is not known.

    Returns:
        The answers.
    """
    settings = training_differences(recipe, Recipe(name="default", about=""))  # new keys of the schema change no hash
    hashed = digest_arrays(name=repr(sorted(settings.items())))[:12]
    return Answers(recipe.name, tuple(digests), family_of(recipe), str(recipe.seed), hashed, trained_on=trained_on)


def changed_answers(answers: Answers, change: str) -> Answers:
    """Return the answers of the same weights with other views of each face, or another calibration.

    Args:
        answers: The answers.
        change: Name of the views or the calibration; ``"none"`` changes nothing.

    Returns:
        The answers. They belong to no look at unchanged ones, also not as another seed.
    """
    digests = tuple(with_views(digest, change) for digest in answers.digests)
    settings = with_views(answers.settings, change) if answers.settings else ""
    return replace(answers, digests=digests, settings=settings)


def recorded_answers(folder: Path) -> Answers:
    """Return the answers that ``record_run`` wrote for PrivateTest, without their accuracy.

    Args:
        folder: The folder, with ``predictions.npz``, ``recipe.json`` and ``metrics.json``.

    Returns:
        The answers; without digests if PrivateTest was not evaluated.

    Raises:
        DataError: If a file is missing or damaged.
    """
    try:
        arrays = load_arrays(folder / "predictions.npz", "record the run again")
        digests = [digest_arrays(arrays["private_probs"].astype(np.float32))] if "private_probs" in arrays else []
        recipe, metrics = load_json(folder / "recipe.json"), load_json(folder / "metrics.json")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be read ({type(error).__name__}); record the run again") from error
    if (folder / "model.onnx").is_file():
        digests.append(file_sha256(folder / "model.onnx"))
    try:
        return answers_of_recipe(parse(recipe, where=str(folder)), digests, trained_on=metrics.get("data_sha256", ""))
    except RecipeError:  # of an older version
        return Answers(str(recipe["name"]), tuple(digests), seed=str(recipe["seed"]))


@dataclass(frozen=True)
class Ledger:
    """The ledger in a file.

    Attributes:
        path: The file; it need not exist.
        again: Why PrivateTest is looked at again; empty: a second look is refused.
    """

    path: Path = field(default_factory=default_ledger)
    again: str = ""

    def entries(self) -> list[Look]:
        """Return all entries, the first look first.

        Raises:
            DataError: If the file is damaged or no ledger.
        """
        try:
            found = load_json(self.path, _CURE)["looks"]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path}: is no ledger of looks ({type(error).__name__}); {_CURE}") from error
        if not isinstance(found, list) or not all(map(_is_entry, found)):
            raise DataError(f"{self.path}: is no ledger of looks; {_CURE}")
        return found

    def require(self, seen: Iterable[Answers]) -> None:
        """Check that answers may be looked at, before they are computed.

        Args:
            seen: The answers of one command.

        Raises:
            DataError: If a family was looked at before with other answers, and ``again`` gives no reason.
            OutputError: If the ledger cannot be written.
        """
        entries = self.entries()
        require_writable(self.path.parent)
        for answers in seen:
            if _find(answers, entries) is None:
                entries.append(self._allowed(answers, entries))

    def add(self, seen: Sequence[Answers], data_sha256: str) -> list[str]:
        """Write looks that have happened; those that happened before are counted as repeats.

        Args:
            seen: The answers with their accuracies.
            data_sha256: Hash of the data set.

        Returns:
            For each of ``seen``, a sentence on the looks at its family; empty where this was the only one.

        Raises:
            DataError: If the file is damaged, or another process has looked at a family since ``require``.
            OutputError: If it cannot be written.
        """
        with locked_file(self.path):
            entries, families = self.entries(), []
            for answers in seen:
                families.append(_family(answers, entries))
                if (known := _find(answers, entries)) is not None:
                    known["repeats"] = known.get("repeats", 0) + 1
                    known["answers"] = list(dict.fromkeys([*known["answers"], *answers.digests]))
                    continue
                source = provenance(data_sha256)
                entry = self._allowed(answers, entries) | {key: source[key] for key in ("date", "commit", "command")}
                is_first = all(each["look"] != entry["look"] for each in entries if each["family"] == entry["family"])
                entry |= {"data_sha256": data_sha256, "why": self.again if is_first and entry["look"] > 1 else ""}
                entries.append(entry)
            save_json(self.path, {"looks": entries})
        return [describe_looks(family, entries) for family in families]

    def _allowed(self, answers: Answers, entries: Sequence[Look]) -> Look:
        """The new entry of answers; raises ``DataError`` if it is a second look without a reason."""
        entry = _entry(answers, entries)
        before = [each for each in entries if each["family"] == entry["family"]]
        if before and all(each["look"] != entry["look"] for each in before) and not self.again:
            raise DataError(f"{_describe(before)}; choose on PublicTest, or say why it is looked at again")
        return entry


def count_looks(family: str, entries: Iterable[Look]) -> tuple[int, int]:
    """Count the looks at a family and the figures that were seen.

    Args:
        family: The family.
        entries: The entries of a ledger.

    Returns:
        Number of looks, and of different answers.
    """
    own = [entry for entry in entries if entry["family"] == family]
    return len({entry["look"] for entry in own}), len(own)


def describe_looks(family: str, entries: Iterable[Look]) -> str:
    """Describe the looks at a family in a sentence.

    Args:
        family: The family.
        entries: The entries of a ledger.

    Returns:
        The sentence; empty for fewer than two looks.
    """
    looks, figures = count_looks(family, entries)
    if looks < 2:
        return ""
    return (
        f"PrivateTest was looked at {looks} times for the family {family!r} ({figures} figures): its later choices "
        "may be led by earlier figures."
    )


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in _KINDS.items())


def _find(answers: Answers, entries: Iterable[Look]) -> Look | None:
    """The entry of the same answers."""
    return next((entry for entry in entries if not set(answers.digests).isdisjoint(entry["answers"])), None)


def _family(answers: Answers, entries: Sequence[Look]) -> str:
    known = _find(answers, entries)
    named = [entry["family"] for entry in entries if entry["recipe"] == answers.recipe]
    return (known and known["family"]) or answers.family or (named[-1] if named else answers.recipe)


def _entry(answers: Answers, entries: Sequence[Look]) -> Look:
    """A new entry, in the look that it belongs to: an earlier one of its family, or the next."""
    family = _family(answers, entries)
    looks: dict[int, list[Look]] = {}
    for entry in entries:
        if entry["family"] == family:
            looks.setdefault(entry["look"], []).append(entry)
    entry = {
        "family": family,
        "look": 0,
        "recipe": answers.recipe,
        "seed": answers.seed,
        "settings": answers.settings,
        "answers": list(answers.digests),
        "accuracy": dict(answers.accuracy),
        **({"trained_on": answers.trained_on} if answers.trained_on else {}),
    }
    # A member that was evaluated before opens a look: it is no first evaluation of a member that was added later.
    repeats = _times_seen(entry, looks.values())
    joined = [
        look
        for look, there in looks.items()
        if all(_belongs(answers, each) for each in there)
        and repeats == _times_seen(there[0], (each for number, each in looks.items() if number < look))
    ]
    return entry | {"look": joined[-1] if joined else max(looks, default=0) + 1}


def _times_seen(entry: Look, looks: Iterable[Sequence[Look]]) -> int:
    """The number of looks that have an entry of the same recipe, seed and views, whatever its weights."""

    def training(of: Look) -> tuple[str, str, str]:
        return of["recipe"], of["seed"], of["settings"].partition("+")[2]

    return sum(any(training(each) == training(entry) for each in there) for there in looks)


def _belongs(answers: Answers, entry: Look) -> bool:
    """Whether answers are another seed of the same training, or another member of the same grid."""
    if entry["recipe"] == answers.recipe:
        # Older entries have only the hash of the set that was evaluated, which is that of the training.
        data = {answers.trained_on, entry.get("trained_on") or entry.get("data_sha256", "")} - {""}
        is_same = bool(answers.settings) and entry["settings"] == answers.settings and len(data) < 2
        return is_same and bool(answers.seed) and entry["seed"] != answers.seed
    (grid, slash, _), (settings, _, views) = answers.recipe.rpartition("/"), answers.settings.partition("+")
    is_same = bool(slash) and entry["recipe"].rpartition("/")[0] == grid
    return is_same and entry["settings"].partition("+")[2] == views and _is_member(answers.recipe, settings)


def _is_member(recipe: str, settings: str) -> bool:
    """Whether a member of a grid is one of the package, with its settings: a name alone proves nothing."""
    try:
        return answers_of_recipe(load(recipe), ()).settings == settings
    except RecipeError:
        return False


def _describe(before: Sequence[Look]) -> str:
    """What was looked at in a family, for the message that refuses another look."""
    last = before[-1]
    looks = len({entry["look"] for entry in before})
    times = "once" if looks == 1 else f"{looks} times"
    seed = f", seed {last['seed']}" if last["seed"] else ""
    figure = f", accuracy {percent(next(iter(last['accuracy'].values())))}" if last["accuracy"] else ""
    when = f" on {last['date']}" if last.get("date") else " just now"
    return f"{last['family']}: PrivateTest was looked at {times}, last {last['recipe']}{seed}{when}{figure}"
