"""``mien distribute``: many images, read by many processes on this machine or a Ray cluster, into a folder."""

import sys
import time
from datetime import timedelta
from typing import Annotated

import typer

from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo
from mien.detect import MAX_FACES

_LINE_SECONDS = 60.0  # between two lines of progress in a log


def distribute_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folders, quoted globs, images, videos, lists (.txt, a name a line), tables (.parquet), and addresses "
            "of object stores (s3://bucket/folder, gs://, file://).",
        ),
    ],
    out: _options.NewFolderOption,
    resume: _options.ResumeOption = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help=_options.WORKERS_HELP, show_default="one for each CPU")
    ] = None,
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="CPUs, and threads, of each worker.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs of each worker, such as 0.25.")] = 0.0,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="A running Ray cluster, or auto. Default: Ray is started here."),
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Serve the dashboard of Ray, which needs its extra `default`.")
    ] = False,
    fps: _options.FpsOption = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of tables with the images, as bytes or names. Default: the only one that can be it."),
    ] = None,
    block_mb: Annotated[float, typer.Option(min=0.001, help="Megabytes of images in each partition.")] = 64.0,
    detector: _options.DetectorOption = "blazeface",
    max_faces: _options.MaxFacesOption = MAX_FACES,
    abstain: _options.AbstainOption = None,
    min_quality: _options.MinQualityOption = 0.0,
    device: _options.DeviceOption = "cpu",
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
) -> None:
    """Read the faces in many images with many processes, through Ray Data (the extra `ray`).

    --out is a new folder. It gets Parquet files with the rows of `mien predict --out FILE.parquet`, in the same order,
    and a manifest. Each file appears when it is complete. After Ctrl-C or kill -9, --resume reads the rest. An image
    that cannot be read, or that twice ends the process which reads it, has a row with the error. Videos are read with
    --fps alone. Their frames are named VIDEO#t=SECONDS, rows of tables TABLE#ROW. Exit status: 0 all images were read,
    1 some were not, 2 none was or an argument is wrong, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from mien._errors import require_number
    from mien.cluster import distribute

    require_number("--block-mb", block_mb, lowest=0.001, highest=1e9)
    reader = _options.open_reader(
        model,
        detector=detector,
        precision=precision,
        device=device,
        abstain=abstain,
        min_quality=min_quality,
        threads=cpus_per_worker,
        max_faces=max_faces,
    )
    with _Progress() as progress:
        done = distribute(
            sources,
            out,
            reader=reader,
            fps=fps,
            column=column,
            block_bytes=max(1, round(block_mb * 2**20)),
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            address=address,
            resume=resume,
            dashboard=dashboard,
            progress=progress,
        )
    counts = f"{done.images:,} images, {done.faces:,} faces, {done.failed:,} not read"
    left_out = f"; left out: {done.left_out}" if done.left_out else ""
    echo(f"{done.folder}: {counts}, in {done.partitions:,} partitions{left_out}")
    raise typer.Exit(0 if not done.failed else 1 if done.failed < done.images else 2)


class _Progress(TerminalProgress):
    """A bar in a terminal; in a log, a line each minute: images, rate, remaining time and errors."""

    def __init__(self) -> None:
        super().__init__(lines=False)
        self._start: tuple[float, int] | None = None  # the first report, and how many images were done then
        self._last = 0.0

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        self._start = self._start or (now, done)
        rate = (done - self._start[1]) / max(now - self._start[0], 1e-9)
        super().__call__(f"{stage}: {done:,} of {total:,}, {rate:,.1f}/s" if rate else stage, done, total)
        if stage.startswith("waiting") and not sys.stderr.isatty():
            echo(f"mien: {stage}", err=True)
        if rate and not sys.stderr.isatty() and now - self._last >= _LINE_SECONDS:
            self._last = now
            left = f", {timedelta(seconds=round((total - done) / rate))} left" if done < total else ""
            echo(f"mien: {stage}: {done:,} of {total:,} images, {rate:,.1f}/s{left}", err=True)
