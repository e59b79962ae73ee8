"""``mien explain``: where a model looks, in pictures or over a whole data set."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from mien._errors import MienError
from mien.bundled import DEFAULT_MODEL

# As mien.lab.explain has them, which may not be there.
METHODS = ("map", "grad-cam", "grad-cam++", "hires-cam", "integrated-gradients")
BASELINES = ("blur", "mean")


def explain(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WHAT]...", help="Pictures, folders or quoted globs; with --data, the model."),
    ] = None,
    model: Annotated[
        str, typer.Option(help=f"An embedded model, an ONNX file, or the folder of a run; default: {DEFAULT_MODEL}.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(help="map (needs no torch); of a run also grad-cam, grad-cam++, hires-cam, integrated-gradients."),
    ] = "map",
    layer: Annotated[str, typer.Option(help="Module of a run's net whose places are shown.")] = "features",
    emotion: Annotated[
        list[str] | None,
        typer.Option(help="In pictures: also this emotion's map; may come several times; all shows every one."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A data set to explain the model on, instead of pictures.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="PublicTest, PrivateTest, Training or all; default: PublicTest, or all of a set without splits."
        ),
    ] = None,
    label_map: Annotated[
        list[str] | None, typer.Option("--map", metavar="LABEL=EMOTION", help="What a label of the data means.")
    ] = None,
    faces: Annotated[int, typer.Option(min=20, help="Faces of the data set at most, evenly from its classes.")] = 600,
    align: Annotated[bool, typer.Option(help="Lay faces on each other by eyes, nose and mouth.")] = True,
    baseline: Annotated[str, typer.Option(help="What removed pixels become: blur or mean.")] = "blur",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn faces and of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: reports/explain/...")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the figures of a data set here, too, as MODEL.json: they hold no face.")
    ] = None,
    precision: Annotated[str, typer.Option(help="The embedded model's file: int8 or fp32.")] = "int8",
    detector: Annotated[
        str, typer.Option(help="In pictures: blazeface, yunet, or none: each is one face.")
    ] = "blazeface",
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 1,
) -> None:
    """Show where a model looks: in WHAT, a face and its maps; with --data, mean maps, attention by region and tests.

    Of pictures it writes NAME.maps.mien.png each, and explanation.html; of a data set explanation.json and report.html,
    which shows faces of the set and is yours to keep.
    """
    for option, word, known in (("method", method, METHODS), ("baseline", baseline, BASELINES)):
        if word not in known:
            raise MienError(f"unknown {option} {word!r}{_nearest(word, known)} (there are: {', '.join(known)})")
    where = Path("reports") / "explain"
    if data is not None:
        from mien.commands.explain_set import SetWish, explain_set

        if emotion:
            raise MienError("--emotion is for pictures; a data set is explained for every emotion that it is read as")
        name = _model_of(what or [], model)
        folder = out or where / f"{_word(name)}-{method}"
        explain_set(
            SetWish(name, data, split, folder, method, layer, faces, align, baseline, seed, precision, threads, keep),
            label_map or [],
        )
        return
    if not what:
        raise MienError("name pictures to explain, or a data set with --data")
    if split or label_map or keep:
        option = "--split" if split else "--map" if label_map else "--keep"
        raise MienError(f"{option} is for a data set; name one with --data, or leave it out")
    from mien.commands.explain_pictures import PictureWish, explain_pictures

    wish = PictureWish(
        model or DEFAULT_MODEL, out or where / "pictures", method, layer, emotion or [], precision, detector, threads
    )
    raise typer.Exit(explain_pictures(what, wish))


def _nearest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _model_of(what: Sequence[str], model: str) -> str:
    if len(what) + bool(model) > 1:
        raise MienError("with --data, name one model: mien explain MODEL --data SET")
    return next(iter(what), model) or DEFAULT_MODEL


def _word(name: str) -> str:
    """The name of a model as a part of a file's name; of a run the recipe's, too."""
    path = Path(name)
    parts = (
        [path.parent.name, path.name] if path.name.startswith("seed-") else [path.stem if path.is_file() else path.name]
    )
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts)).strip("-.") or "model"
