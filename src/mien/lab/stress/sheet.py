"""One face under every spoiling and strength: what the words and numbers look like."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np
from PIL import Image

from mien.lab.page import picture
from mien.lab.stress.draw import Images, generators
from mien.lab.stress.spoilings import STRENGTHS, Spoiling

_SHOWN = 96  # pixels a side


def example_face() -> Images:
    """NASA's portrait of Eileen Collins (public domain), cut as FER-2013 frames faces: uint8 ``[48, 48]``.

    It is the face that mien cuts from `examples/astronaut.png`.
    """
    with files("mien.lab.stress").joinpath("face.png").open("rb") as stream, Image.open(stream) as face:
        return np.asarray(face.convert("L"))


def sheet(spoilings: Sequence[Spoiling], *, seed: int = 0) -> str:
    """The example face, clean and then at strengths 1 to 5 of every one of ``spoilings``, as a table of pictures."""
    face = example_face()
    head = "".join(f'<th scope="col">{text}</th>' for text in ("", "clean", *map(str, STRENGTHS)))
    rows = "".join(_row(spoiling, face, seed) for spoiling in spoilings)
    return (
        f'<div class="scroll" tabindex="0"><table class="sheet"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def spoilt_faces(spoiling: Spoiling, face: Images, seed: int) -> list[Images]:
    """``face`` uint8 ``[S, S]`` at strengths 1 to 5."""
    return [spoiling(face[None], strength, generators(seed, spoiling.name, [0]))[0] for strength in STRENGTHS]


def _row(spoiling: Spoiling, face: Images, seed: int) -> str:
    shown = "".join(
        f"<td>{_cell(image, spoiling.name)}<small>{amount:g}</small></td>"
        for image, amount in zip(spoilt_faces(spoiling, face, seed), spoiling.amounts, strict=True)
    )
    what = f"{escape(spoiling.name)}<small>{escape(spoiling.does)}; {escape(spoiling.unit)}</small>"
    return f'<tr><th scope="row">{what}</th><td>{_cell(face, "clean")}<small>–</small></td>{shown}</tr>'


def _cell(image: Images, alt: str) -> str:
    large = Image.fromarray(image).resize((_SHOWN, _SHOWN), Image.Resampling.NEAREST)
    return picture(np.asarray(large), alt=alt)
