"""Arguments and options that several commands share: each is defined, with its help text, once."""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien._errors import MienError
from mien._output import is_input, protect_files, require_replaceable

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.ledger import Ledger

ModelOption = Annotated[
    str, typer.Option(help="An embedded model (`mien models` lists them) or the path of an ONNX file.")
]
PrecisionOption = Annotated[str, typer.Option(help="Which file of an embedded model: int8 (small, fast) or fp32.")]
DetectorOption = Annotated[
    str, typer.Option(help="blazeface, yunet (downloaded once), or none: each image is one tight crop of a face.")
]
MaxFacesOption = Annotated[
    int, typer.Option(min=1, help="Faces read in an image at most, the most certain ones. It bounds the time.")
]
AbstainOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Below this probability the emotion is 'unsure'; 0: never. Default: as the model's card says, by size.",
        show_default=False,
    ),
]
MinQualityOption = Annotated[
    float,
    typer.Option(min=0, max=1, help="Leave out faces of lower quality: small, blurred, or turned away (0 to 1)."),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Cores to use; 0 uses all.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DATA_HELP = "FER-2013 in any of its forms, or a labelled folder or CSV; default: $MIEN_DATA."
DataOption = Annotated[Path | None, typer.Option(help=DATA_HELP)]
TrainingDataOption = Annotated[
    Path | None, typer.Option(help="The data set that the run was trained on; default: $MIEN_DATA.")
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        help="PublicTest, PrivateTest, Training or all; default: PublicTest, or all rows of a data set without splits."
    ),
]
LabelMapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="LABEL=EMOTION",
        help="The emotion that a label of the data means; LABEL= leaves its faces out; repeatable.",
    ),
]
SkipUnreadableOption = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and count them.")
]
TtaOption = Annotated[
    str,
    typer.Option(
        help="Test-time augmentation. none: each face as it is; flip: also mirrored; six: also larger and smaller; "
        "ten: five crops, each also mirrored."
    ),
]
KeepOption = Annotated[
    Path | None, typer.Option(help="Folder for the metrics without faces, as NAME.json of the model, split or family.")
]

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A shipped recipe (`mien recipes`), FAMILY, FAMILY/MEMBER or the path of a .toml file."
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes of the recipe: section.key=value, as in train.epochs=40."),
]
AcceleratorOption = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
TimeLimitOption = Annotated[float, typer.Option(help="Seconds after which to stop with a checkpoint; 0: no limit.")]

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, as `mien train` names it.")]
FinalTestOption = Annotated[
    bool,
    typer.Option("--final", help="Also evaluate PrivateTest: once for a family, when everything is chosen."),
]
AgainOption = Annotated[
    str, typer.Option(help="Why PrivateTest is looked at again, for a family of recipes that was looked at before.")
]
LedgerOption = Annotated[
    Path | None,
    typer.Option(help="File of the looks at PrivateTest; default: that of the checkout in results/, else in ~/.mien."),
]
CalibrationOption = Annotated[str, typer.Option(help="vector or temperature; default: what the recipe says.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace existing files that mien did not write; inputs never are.")
]


def open_ledger(path: Path | None, again: str) -> "Ledger":
    """Return the ledger of looks at PrivateTest that ``--ledger`` and ``--again`` describe.

    Args:
        path: The file; ``None``: the default one.
        again: Why PrivateTest is looked at again.
    """
    from mien.lab.ledger import Ledger

    return Ledger(path, again) if path else Ledger(again=again)


_OUTPUTS = ("out", "keep", "counts", "save", "ledger", "html", "video", "jsonl", "csv", "parquet")
_FOLDERS = ("out", "keep", "save")
_IMAGES = ("paths", "what", "source")  # their folders hold images to read; other files in them may be written


def protected(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--force`` to a command that writes, and protect files while it runs.

    Its outputs never replace an input, and without ``--force`` no file that mien did not write. The inputs are the
    existing files and folders that its other arguments and options name; ``expand_inputs`` adds images of folders.

    Args:
        command: The function of a command.

    Returns:
        The function to register; ``command`` itself where it writes no file.
    """
    signature = inspect.signature(command)
    if not set(signature.parameters) & set(_OUTPUTS):
        return command

    @wraps(command)
    def run(**params: Any) -> None:
        force = params["force"] if "force" in signature.parameters else params.pop("force")
        with protect_files(_named_files(params), force=force, cure=", or add --force"):
            for name in _OUTPUTS:
                if isinstance(path := params.get(name), Path):  # checked before the work
                    if name in _FOLDERS and path.is_file() and path.suffix != ".npz" and not is_input(path):
                        raise MienError(f"{path}: is a file; name a folder to write to")
                    require_replaceable(path)
            command(**params)

    option = inspect.Parameter("force", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=ForceOption)
    parameters = {**signature.parameters, "force": option}
    run.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | {"force": ForceOption}
    return run


def _named_files(params: dict[str, Any]) -> list[Path]:
    """The existing files and folders that arguments name as inputs, and the runs in these folders."""
    words = {"": os.environ.get("MIEN_DATA", "")} if "data" in params else {}
    found = []
    for name, value in {**params, **words}.items():
        for word in () if name in _OUTPUTS else value if isinstance(value, list | tuple) else [value]:
            for text in {word, word.partition("=")[2]} if isinstance(word, str) else {word}:  # KEY=VALUE of a recipe
                if isinstance(text, str | Path) and text and os.path.exists(text):  # noqa: PTH110 (Path raises errors)
                    found += [Path(text)] if name not in _IMAGES or Path(text).is_file() else []
    return [each for path in found for each in (path, *path.glob("seed-*"))]
