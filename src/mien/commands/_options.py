"""Arguments and options that several commands share: each is defined, with its help text, once."""

import inspect
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien._errors import MienError
from mien._output import is_device, is_input, protect_files, require_replaceable
from mien._suggest import require_known
from mien.bundled import BUNDLED

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.ledger import Ledger
    from mien.reader import Reader


def complete(*words: str) -> Callable[[str], list[str]]:
    """Let shells complete the known values of an option. A shell offers files where no value begins as it was typed.

    Args:
        *words: The values.

    Returns:
        What typer takes as ``autocompletion``.
    """
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]  # a name that typer knows


def complete_recipe(incomplete: str) -> list[str]:
    """Complete the name of a shipped recipe, without an import of torch.

    Args:
        incomplete: The first characters of a name.

    Returns:
        The names that begin with them.
    """
    files = (Path(__file__).parents[1] / "lab" / "recipes").glob("*.toml")
    return sorted(file.stem for file in files if file.stem.startswith(incomplete))


complete_model = complete(*sorted(folder.name for folder in BUNDLED.glob("mien-*")))
_OUT = typer.Option("--out", metavar="PATH", help="Where to write: a folder, or a file whose suffix is its format.")
OutOption = Annotated[Path | None, _OUT]
RequiredOutOption = Annotated[Path, _OUT]
NewFolderOption = Annotated[RequiredOutOption, "a new folder"]
OutsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--out", metavar="PATH", help="Where to write: a folder, or a file whose suffix is its format; repeatable."
    ),
]
FormatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format", metavar="FORMAT", help="Format of what has no suffix: standard output or a folder; repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace existing files that mien did not write; inputs never are.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Leave out what an earlier call has finished.")]
KeepOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Folder for the metrics without faces, as NAME.json of what they describe."),
]
FiguresOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Folder for all figures as PDF, SVG and PNG, and tables as LaTeX and Markdown."),
]

ModelOption = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="An embedded model (`mien models`) or an ONNX file; of commands of the lab also a run.",
        autocompletion=complete_model,
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="Which file of an embedded model: int8 (small, fast) or fp32.", autocompletion=complete("int8", "fp32")
    ),
]
Int8Option = Annotated[
    bool,
    typer.Option(help="Also quantise and evaluate the net; write its file, with `mien record` only if it is small."),
]
DetectorOption = Annotated[
    str,
    typer.Option(
        help="blazeface, yunet (downloaded once), or none: each image is one tight crop of a face.",
        autocompletion=complete("blazeface", "yunet", "none"),
    ),
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
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="cpu, cuda, mps (training) or coreml, openvino, directml (ONNX files); auto: the fastest one here.",
        autocompletion=complete("auto", "cpu", "cuda", "mps", "coreml", "openvino", "directml"),
    ),
]
WORKERS_HELP = "Processes that work at the same time."
FpsOption = Annotated[float | None, typer.Option(min=0.001, help="Read only so many frames a second.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Cores to use; 0: all.")]
LabThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=0, help="Cores to use; 0: all.", show_default="1 of ONNX files, else all")
]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.", show_default="that of the recipe, else 0"),
]
FacesOption = Annotated[
    int | None, typer.Option(min=0, help="Number of faces of the data set, drawn by class; 0: all.")
]

DATA_HELP = "FER-2013 in any of its forms, or a labelled folder or CSV."
DataOption = Annotated[Path | None, typer.Option(metavar="DATA", help=DATA_HELP, show_default="$MIEN_DATA")]
DatasOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="DATA", help=f"{DATA_HELP[:-1]}; repeatable.", show_default="$MIEN_DATA"),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        help="PublicTest, PrivateTest, Training or all.",
        show_default="PublicTest",
        autocompletion=complete("PublicTest", "PrivateTest", "Training", "all"),
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
        "ten: five crops, each also mirrored.",
        autocompletion=complete("none", "flip", "six", "ten"),
    ),
]

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A shipped recipe (`mien recipes`), FAMILY, FAMILY/MEMBER or the path of a .toml file.",
        autocompletion=complete_recipe,
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes of the recipe: section.key=value, as in train.epochs=40."),
]
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
    typer.Option(
        metavar="PATH",
        help="File of the looks at PrivateTest; default: that of the checkout in results/, else in ~/.mien.",
    ),
]
CalibrationOption = Annotated[
    str,
    typer.Option(
        help="vector or temperature; default: what the recipe says.", autocompletion=complete("vector", "temperature")
    ),
]


def open_ledger(path: Path | None, again: str) -> "Ledger":
    """Return the ledger of looks at PrivateTest that ``--ledger`` and ``--again`` describe.

    Args:
        path: The file; ``None``: the default one.
        again: Why PrivateTest is looked at again.
    """
    from mien.lab.ledger import Ledger

    return Ledger(path, again) if path else Ledger(again=again)


_OUTPUTS = ("out", "keep", "figures", "ledger")
_IMAGES = ("paths", "what", "sources")  # their folders hold images to read; other files in them may be written
STDOUT = Path("-")
_NO_FOLDERS = frozenset([".csv", ".html", ".json", ".jsonl", ".md", ".onnx", ".pdf", ".png", ".svg", ".txt"])
_TEXTS = ("csv", "jsonl", "json")  # formats that can go to standard output


def protected(command: Callable[..., None]) -> Callable[..., None]:
    """Protect files while a command that writes runs, and add ``--force`` unless it writes to a new folder.

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
    is_new = any(parameter.annotation is NewFolderOption for parameter in signature.parameters.values())

    @wraps(command)
    def run(**params: Any) -> None:
        force = params["force"] if "force" in signature.parameters else params.pop("force", False)
        with protect_files(_named_files(params), force=force, cure="" if is_new else ", or add --force"):
            for name in _OUTPUTS:
                path = params.get(name)
                if (
                    isinstance(path, Path)
                    and path.suffix != ".npz"
                    and (path.is_file() or (path.suffix.lower() in _NO_FOLDERS and not path.exists()))
                    and name != "ledger"
                    and not is_input(path)
                ):
                    raise MienError(f"{path}: is a file; name a folder to write to")
                for each in _each(path):
                    if each != STDOUT:
                        require_replaceable(each)  # before the work
            command(**params)

    if is_new:
        return run
    option = inspect.Parameter("force", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=ForceOption)
    others = [parameter for name, parameter in signature.parameters.items() if name != "force"]
    run.__signature__ = signature.replace(parameters=[*others, option])  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | {"force": ForceOption}
    return run


def _each(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [] if value is None else [value]


def _named_files(params: dict[str, Any]) -> list[Path]:
    """The existing files and folders that arguments name as inputs, and the runs in these folders."""
    words = {"": os.environ.get("MIEN_DATA", "")} if "data" in params else {}
    found = []
    for name, value in {**params, **words}.items():
        for word in () if name in _OUTPUTS else _each(value):
            for text in {word, word.partition("=")[2]} if isinstance(word, str) else {word}:  # KEY=VALUE of a recipe
                if isinstance(text, str | Path) and text and os.path.exists(text):  # noqa: PTH110 (Path raises errors)
                    found += [Path(text)] if name not in _IMAGES or Path(text).is_file() else []
    return [each for path in found for each in (path, *path.glob("seed-*"))]


def read_outputs(
    out: Sequence[Path] | None,
    formats: Sequence[str] | None,
    as_json: bool,
    known: Sequence[str],
    *,
    folders: bool = False,
) -> list[tuple[str, Path]]:
    """Return what a command writes, as ``--out``, ``--format`` and ``--json`` say.

    Args:
        out: The files and folders. The suffix of a file is its format.
        formats: The formats of what has no known suffix; without such a path, that of standard output.
        as_json: Whether JSON lines go to standard output.
        known: The formats that the command writes.
        folders: Whether a folder gets files of the formats, or else has the format ``""``.

    Returns:
        Pairs of format and path; that of standard output is ``STDOUT``.

    Raises:
        MienError: A format is unknown, two results have one place, or a format cannot go to standard output.
    """
    suffixes = ", ".join(f".{name}" for name in known)
    for name in formats or ():
        require_known("--format", name, known, MienError)
    pairs, left = list[tuple[str, Path]](), list(formats or ())
    for path in out or ():
        suffix = path.suffix.lower()[1:]
        if suffix in known and not path.is_dir():
            pairs.append((suffix, path))
        elif (
            path == STDOUT
            or ((suffix or is_device(path)) and formats and not path.is_dir())
            or (folders and not suffix)
        ):
            pairs += [(name, path) for name in formats or (["jsonl"] if path == STDOUT else ["csv"])]
            left = []
        elif (suffix and not path.is_dir()) or path.is_file() or is_device(path):
            cure = "add --format" if is_device(path) else f"name a file {suffixes}, or a folder"
            raise MienError(f"--out {path}: this suffix names no format; {cure}")
        else:
            pairs.append(("", path))
    pairs += [*((name, STDOUT) for name in left), *([("jsonl", STDOUT)] if as_json else [])]
    places = [os.path.realpath(path) for _, path in pairs]
    for index, (name, path) in enumerate(pairs):
        if path == STDOUT and name not in _TEXTS:
            raise MienError(f"{name} cannot go to standard output; name a file: --out FILE.{name}")
        if places[index] in places[:index] and not path.is_dir() and (path.exists() or path.suffix or path == STDOUT):
            place = "standard output" if path == STDOUT else f"--out {path}"
            raise MienError(f"{place}: two results cannot go there; name another file for one")
    return pairs


def read_time(text: str) -> float:
    """Return a time in seconds.

    Args:
        text: A number with its unit, ``ms``, ``s`` or ``min``; empty for 0.

    Returns:
        Seconds.

    Raises:
        MienError: It is no such time.
    """
    if not text:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min)", text.strip())
    seconds = float(found[1]) * {"ms": 0.001, "s": 1.0, "min": 60.0}[found[2]] if found else 0.0
    if seconds < 0.001:
        raise MienError(f"{text!r} is no time; write a number and its unit, such as 1s, 500ms or 2min")
    return seconds


def providers_of(device: str) -> tuple[str, ...]:
    """Return the execution providers of ONNX Runtime that ``--device`` means.

    Args:
        device: A name, several separated by commas (first choice first), or ``auto``.

    Returns:
        Keys of ``mien._session.PROVIDERS``.
    """
    if device != "auto":
        return tuple(name.strip() for name in device.split(","))
    import onnxruntime

    from mien._session import PROVIDERS

    here = onnxruntime.get_available_providers()
    fastest = [name for name in ("cuda", "directml", "coreml") if PROVIDERS[name] in here]
    return (*fastest, "cpu")


def open_reader(
    model: str, *, detector: str, precision: str, device: str, abstain: float | None, min_quality: float, **more: int
) -> "Reader":
    """Open the reader that the shared options describe.

    Args:
        model: The value of ``--model``.
        detector: The value of ``--detector``.
        precision: The value of ``--precision``.
        device: The value of ``--device``.
        abstain: The value of ``--abstain``; ``None``: as the card of the model says.
        min_quality: The value of ``--min-quality``.
        more: Arguments of ``Reader`` that not all commands have.
    """
    from mien.reader import Reader

    return Reader(
        model,
        detector=detector,
        precision=precision,
        providers=providers_of(device),
        abstain="card" if abstain is None else abstain,
        min_quality=min_quality,
        **more,
    )


def lab_runtime(device: str, threads: int | None) -> AbstractContextManager[None]:
    """Return the block in which the models of the lab run on a device, with a number of threads.

    Args:
        device: The value of ``--device``.
        threads: The value of ``--threads``; ``None``: one thread for ONNX files, those of torch as they are.
    """
    from mien.lab.inference import runtime

    return runtime(device, providers_of(device), threads)


def net_runtime(device: str, threads: int | None) -> AbstractContextManager[None]:
    """Return the block in which the net of a run is evaluated on a device, and the files made of it on the processor.

    Args:
        device: The value of ``--device``.
        threads: The value of ``--threads``; ``None``: one thread for ONNX files, those of torch as they are.

    Raises:
        MienError: Nets of torch do not run on the device.
    """
    from mien.lab.inference import NET_DEVICES, runtime

    if device not in NET_DEVICES:
        raise MienError(f"--device {device}: the net of a run is evaluated on one of {', '.join(NET_DEVICES)}")
    return runtime(device, ("cpu",), threads)
