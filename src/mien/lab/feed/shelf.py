"""The faces of one recipe after another, read from disk once where recipes want the same ones."""

from pathlib import Path
from typing import Any

from mien.lab.data import FaceSet
from mien.lab.feed.sets import load_set
from mien.lab.recipe import Recipe


class Shelf:
    """``shelf(recipe)`` is ``load_set(path, recipe)``; the set that was read last is kept."""

    def __init__(self, path: Path | None) -> None:
        """``path`` as ``load_set`` takes it."""
        self._path = path
        self._key: Any = None
        self._faces: FaceSet | None = None

    def __call__(self, recipe: Recipe) -> FaceSet:
        """The faces at the path as ``recipe`` needs them. Raises what ``load_set`` raises."""
        data = recipe.data
        read = (data.classes, data.size, data.labels, data.votes, data.also, data.exclude_leaked)
        key = (*read, recipe.target.votes > 0)
        if self._faces is None or key != self._key:
            self._key, self._faces = key, load_set(self._path, recipe)
        return self._faces
