"""``mien benchmark`` and ``mien doctor``: how fast mien is on this machine, and whether it works here."""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Any

import typer

import mien
from mien._measure import environment
from mien._session import int8_kernel
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._terminal import TableConsole, new_table, print_json


def benchmark_command(
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Image with one face; default: a drawn one.")
    ] = None,
    model: _options.ModelOption = DEFAULT_MODEL,
    detector: _options.DetectorOption = "blazeface",
    device: _options.DeviceOption = "cpu",
    threads: _options.ThreadsOption = 1,
    seconds: Annotated[
        float,
        typer.Option(min=0, help="Time for each measurement, which has at least five runs; 0: one run, as a check."),
    ] = 1.0,
    as_json: _options.JsonOption = False,
) -> None:
    """Measure mien on this machine: start, crops, detector, whole images, memory.

    Only whole images use the cores of --threads; a crop always uses one.
    """
    from mien.commands._benchmark import measure

    setting: Any = {"model": model, "detector": detector, "threads": threads, "seconds": seconds}
    measurements = []
    for measurement in measure(image, providers=_options.providers_of(device), **setting):
        measurements.append(measurement)
        _show_progress(measurement.name)
    _show_progress("")
    machine = {"mien": mien.__version__, **environment("onnxruntime", "numpy", "pillow"), "int8 kernel": int8_kernel()}
    if as_json:
        values = {each.key: round(each.value, 4) for each in measurements}
        print_json({"machine": machine, "setting": setting | {"device": device}, "figures": values})
        return
    table, console = new_table(), TableConsole(highlight=False)
    table.add_column("what")
    table.add_column("median", justify="right", no_wrap=True)
    for each in measurements:
        digits = 3 if each.value < 10 else 1 if each.value < 1000 else 0
        table.add_row(each.name, f"{each.value:,.{digits}f} {each.unit}")
    console.print(table)
    console.print("; ".join(f"{key} {value}" for key, value in machine.items()), style="dim")
    console.print(f"model {model}; detector {detector}; threads for images {threads or 'all'}", style="dim")


def doctor_command(as_json: _options.JsonOption = False) -> None:
    """Check this installation: versions, extras, models with their hashes, and a reading by each. For bug reports."""
    from rich.markup import escape

    from mien._download import cache_folder
    from mien.commands._benchmark import check_models, providers_here

    facts: dict[str, Any] = {"mien": mien.__version__, **environment("numpy", "onnxruntime", "pillow")}
    facts |= {
        "int8 kernel": int8_kernel(),
        "providers": providers_here(),
        "installed in": str(Path(mien.__file__).parent),
        "cache": str(cache_folder()),
    }
    facts |= {name: value for name, value in sorted(os.environ.items()) if re.match("MIEN_|OMP_|ORT_", name)}
    if "MIEN_TOKEN" in facts:
        facts["MIEN_TOKEN"] = "set"
    extras = _extras()
    models = []
    for model in check_models():
        models.append(model)
        _show_progress(f"{model['model']} works")
    _show_progress("")
    if as_json:
        print_json({**facts, "extras": extras, "models": models})
        return
    table, console = new_table(), TableConsole(highlight=False)
    table.add_column("what", no_wrap=True)
    table.add_column("found")
    for name, value in facts.items():
        table.add_row(name, escape(value))
    for name, packages in extras.items():
        missing = [package for package, found in packages.items() if found is None]
        found = ", ".join(f"{package} {number}" for package, number in packages.items() if number is not None)
        rest = f"missing: {', '.join(missing)}" if missing else ""
        table.add_row(f"extra {name}", "; ".join(filter(None, (found, rest))))
    for model in models:
        name = f"{model['model']} {model['precision']}"
        took = f"{model['milliseconds']} ms a face"
        table.add_row(name, f"reads a drawn face as {model['reads']}, {took}; sha256 {model['sha256'][:16]}")
    console.print(table)
    console.print("mien works on this machine", style="dim")


def _extras() -> dict[str, dict[str, str | None]]:
    """The packages of each extra with their versions; ``None`` for one that is not installed."""
    try:
        lines = requires("mien") or []
    except PackageNotFoundError:  # mien is run from its source, without an installation
        return {}
    extras: dict[str, dict[str, str | None]] = {}
    for line in lines:
        extra = re.search("extra == ['\"]([\\w-]+)", line)
        package = re.match(r"[\w.-]+", line)
        if extra and package and extra[1] not in ("dev", "fuzz", "words"):
            try:
                extras.setdefault(extra[1], {})[package[0]] = version(package[0])
            except PackageNotFoundError:
                extras.setdefault(extra[1], {})[package[0]] = None
    return extras


def _show_progress(name: str) -> None:
    """Replace the line that shows the last measurement."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{name}", end="", file=sys.stderr, flush=True)
