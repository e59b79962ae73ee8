"""Further sets beside the main one: all their faces are learned from, none is validated on."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from mien.lab.data.faces import FERPLUS_COLUMNS, FaceSet, Split, concatenate, split_index
from mien.lab.data.join_votes import list_sha256
from mien.lab.data.read_pictures import resize


def mix(main: FaceSet, others: Sequence[tuple[FaceSet, float]]) -> FaceSet:
    """``main`` and, as Training, every face of the other sets, each with the weight that comes with it.

    All sets have the same emotions. Faces of the others are resized to the main set's side; their rows are numbered on
    from the main set's; groups of different sets are different. The sha256 covers all sets, in their order.
    """
    sets = [main, *(other for other, _ in others)]
    has_votes = any(each.votes is not None for each in sets)
    has_groups = any(each.groups is not None for each in sets)
    mixed = []
    rows = groups = 0
    for each, weight in zip(sets, (1.0, *(weight for _, weight in others)), strict=True):
        further = each is not main
        filled = replace(
            each,
            images=resized(each.images, main.images.shape[-1]),
            votes=_votes(each) if has_votes else None,
            usage=torch.full_like(each.usage, split_index(Split.TRAINING)) if further else each.usage,
            rows=each.rows + rows,
            pixels_from_jpeg=_jpeg(each) if has_votes else None,
            groups=_grouped(each) + groups if has_groups else None,
            weights=torch.full((len(each),), weight),
            mixed_in=torch.full((len(each),), further),
        )
        rows = int(filled.rows.max()) + 1
        groups = int(filled.groups.max()) + 1 if filled.groups is not None else 0
        mixed.append(filled)
    return replace(
        concatenate(*mixed),
        sha256=list_sha256([(f"{number:04} {each.source}", each.sha256) for number, each in enumerate(sets)]),
        judged_sha256=main.sha256,
        source=" + ".join(each.source for each in sets),
        note="; ".join(filter(None, [_note(each, number) for number, each in enumerate(sets)])) or None,
    )


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 ``[N, S, S]`` at ``side`` pixels, as pictures are resized when they are read."""
    if images.shape[-1] == side:
        return images
    result = images.new_empty(len(images), side, side)
    for row, image in enumerate(images.numpy()):
        result[row] = torch.from_numpy(resize(Image.fromarray(image), side))
    return result


def _votes(faces: FaceSet) -> torch.Tensor:
    """Its votes, or none for any emotion: such a face keeps its label alone."""
    return faces.votes if faces.votes is not None else torch.zeros(len(faces), len(FERPLUS_COLUMNS), dtype=torch.uint8)


def _jpeg(faces: FaceSet) -> torch.Tensor:
    known = faces.pixels_from_jpeg
    return known if known is not None else torch.zeros(len(faces), dtype=torch.bool)


def _grouped(faces: FaceSet) -> torch.Tensor:
    return faces.groups if faces.groups is not None else torch.arange(len(faces))


def _note(faces: FaceSet, number: int) -> str:
    mixed = f"{len(faces):,} faces of {faces.source} mixed into Training" if number else ""
    return "; ".join(filter(None, (mixed, faces.note)))
