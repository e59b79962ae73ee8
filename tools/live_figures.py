"""The README's table of what films, the server and the page in the browser reach, from results/live/."""

import json
from pathlib import Path
from typing import Any

from markdown import table


def live(folder: Path) -> str:
    """The table, and where it was measured."""
    track, serve, browser = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("track", "serve", "browser")
    )
    rows = [*_track(track), *_serve(serve), *_browser(browser)]
    machine = track["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores; {browser['browser']}, {browser['runtime']}"
    commands = "`python benchmarks/track.py`, `serve_load.py`, `browser.py`"
    return f"{table(('what', 'measured'), rows)}\n\n{where}; read with `{track['model']}`; {commands}."


def _track(said: dict[str, Any]) -> list[tuple[str, str]]:
    parts = {part["part"]: part for part in said["speed"]}
    following = next(row for row in said["following"] if row["every"] == said["every"])
    growth = parts["reading only"]["memory_growth_mb"]
    film = f"film {said['size']}, one face"
    return [
        (f"{film}: followed and read", f"{parts['reading only']['frames_per_second']:.0f} frames/s"),
        (f"{film}: with the annotated copy", f"{parts['annotated film']['frames_per_second']:.0f} frames/s"),
        (f"growth of memory over {said['frames']:,} frames", f"{growth:+.1f} MB"),
        (
            "four faces that move, cross and leave: seen, changes of number",
            f"{following['found']:.1%}, {following['changes_of_number']}",
        ),
    ]


def _serve(said: dict[str, Any]) -> list[tuple[str, str]]:
    requests = sum(said["answers"]["statuses"].values())
    memory, overload = said["memory_mb"], said["overload"]
    width, height = said["picture"]["size_wh"]
    return [
        (
            f"server, {said['clients']} clients, JPEG {width}x{height}: share of the pipeline without HTTP",
            f"{said['throughput_share']['median']:.0%}",
        ),
        (
            f"{requests:,} requests: wrong answers, 99th percentile",
            f"{said['answers']['wrong']}, {_ms(said['answers'])}",
        ),
        ("memory along them", f"{memory['along'][0]:.0f} to {memory['along'][-1]:.0f} MB"),
        (f"overload, queue of {overload['queue']}: 99th percentile", _ms(overload)),
    ]


def _browser(said: dict[str, Any]) -> list[tuple[str, str]]:
    steps = said["steps"]["followed"]
    wide, high = said["camera"]["size_wh"]
    return [
        (f"page, camera {wide}x{high}, one face", f"{said['camera']['frames_per_second']:.0f} frames/s"),
        ("of it, a frame's own work", f"{steps['total']:.0f} ms"),
    ]


def _ms(said: dict[str, Any]) -> str:
    return f"{said['p99_ms']:.0f} ms"
