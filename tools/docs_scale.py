"""Tables of docs/scale.md from results/distribute.json and cores.json: what was measured, and what follows."""

from collections.abc import Mapping
from typing import Any

from docs_tables import table
from mien.cluster.plan import BLOCK_BYTES, BLOCK_IMAGES

_MANY = {"a million": 10**6, "a billion": 10**9}
_BOUND = "No time is shorter than what the blocks of 64 MB cost the driver."
_CORES = {"a million": (2, 16, 64), "a billion": (64, 1000)}


def sizes(measured: Mapping[str, Any]) -> list[str]:
    """The sizes of images that were measured."""
    return [name for name, value in measured.items() if isinstance(value, dict) and "images" in value]


def parts(measured: Mapping[str, Any], cores: Mapping[str, Any]) -> dict[str, str]:
    """The generated parts of the page, of results/distribute.json and results/cores.json."""
    machine, driver = measured["machine"], measured["driver"]
    where = (
        f"Commit {measured['commit'][:12]}; {machine['processor']}, {machine['cores']} cores; "
        f"Python {machine['python']}, onnxruntime {machine['onnxruntime']}, ray {machine['ray']}."
    )
    return {
        "cost": f"{cost_table(measured)}\n\n{where}",
        "driver": f"{driver_table(driver)}\n\n{limit(measured)}",
        "many": f"{many_table(measured)}\n\n{_BOUND}",
        "cores": cores_table(cores),
    }


def cores_table(measured: Mapping[str, Any]) -> str:
    """What a worker on each of two cores does beside one core."""
    rows = []
    for size in sizes(measured):
        one, many = measured[size]["one"], measured[size]["many"]
        rows.append(
            (
                size,
                f"{one['cpu_ms']:.1f} ms",
                f"{many['cpu_ms']:.1f} ms",
                f"{many['main_ms']:.2f} ms",
                f"{measured[size]['ratio_on_idle_cores']:.2f}",
                f"{measured[size]['ratio']:.2f}",
                f"{100 * many['of_others']:.0f} %",
            )
        )
    head = (
        "images",
        "CPU time, one core",
        "two workers",
        "of it the main process",
        "rate, idle cores",
        "measured",
        "other programs",
    )
    return f"{table(head, rows)}\n\nCommit {measured['commit'][:12]}; {measured['machine']['processor']}."


def cost_table(measured: Mapping[str, Any]) -> str:
    """What one process, one worker and two workers took."""
    rows = []
    for run, fixed in measured["fixed"].items():
        cells = f"{fixed['cpu_s']:.1f} s", f"{fixed['wall_s']:.1f} s", f"{fixed['memory_mb']:,} MB"
        rows.append(("two images" if run.startswith("2") else "one image", _named(run), *cells))
    for size in sizes(measured):
        for run in measured["fixed"]:
            one = measured[size][run]
            cells = (
                f"{one['cpu_ms_of_an_image']:.1f} ms",
                f"{one['wall_ms_of_an_image']:.1f} ms",
                f"{one['memory_mb']:,} MB",
            )
            rows.append((f"each more, {size}", _named(run), *cells))
    return table(("images", "run", "CPU time", "time", "memory"), rows)


def _named(run: str) -> str:
    return "`mien predict`" if run == "one process" else run


def driver_table(driver: Mapping[str, float]) -> str:
    """What the driver took alone."""
    rows = [
        (
            "a block of one small image, two workers",
            f"{driver['block_cpu_ms']:.1f} ms of CPU time, with the reading of the image",
        ),
        (
            "a partition of 150 kB: written, flushed, renamed, named in the manifest",
            f"{driver['partition_written_ms']:.1f} ms",
        ),
        (
            "the plan of a million names in a list",
            f"{driver['million_names_s']:.1f} s, {driver['million_names_mb']:,} MB",
        ),
    ]
    return table(("the driver", "measured"), rows)


def limit(measured: Mapping[str, Any]) -> str:
    """How many workers one driver serves, by calculation."""
    overhead = _overhead(measured)
    counts = {size: _images_of_block(measured[size]) for size in (sizes(measured)[0], sizes(measured)[-1])}
    took = {size: count * measured[size]["1 worker"]["cpu_ms_of_an_image"] for size, count in counts.items()}
    blocks = " and ".join(f"{took[size] / 1000:.0f} s ({count:,} of {size})" for size, count in counts.items())
    workers = " and ".join(f"{float(f'{each / overhead:.2g}'):,.0f}" for each in took.values())
    return (
        f"So a block costs about {overhead:.0f} ms beside its images. A block of 64 MB has at most {BLOCK_IMAGES:,} "
        f"images, one of `--block-mb 1024` 16 times as many. Blocks of 64 MB take a worker {blocks}. If the driver had "
        f"to do all of the {overhead:.0f} ms, it would keep {workers} workers busy."
    )


def _overhead(measured: Mapping[str, Any]) -> float:
    """Milliseconds that a block costs beside its images."""
    small = measured[sizes(measured)[0]]["1 worker"]["cpu_ms_of_an_image"]
    return float(measured["driver"]["block_cpu_ms"] - small)


def _images_of_block(one: Mapping[str, Any]) -> int:
    return min(BLOCK_IMAGES, BLOCK_BYTES // int(one["bytes_of_an_image"]))


def many_table(measured: Mapping[str, Any]) -> str:
    """What many images take, calculated from the measured figures."""
    rows = []
    for size in sizes(measured):
        one = measured[size]
        milliseconds = one["1 worker"]["cpu_ms_of_an_image"]
        for name, count in _MANY.items():
            hours = count * milliseconds / 3.6e6
            driver = count / _images_of_block(one) * _overhead(measured) / 3.6e6
            times = ", ".join(f"{_time(max(driver, hours / cores))} on {cores:,}" for cores in _CORES[name])
            rows.append(
                (
                    f"{name}, {size}",
                    f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}",
                    times,
                    _bytes(count * one["bytes_of_an_image"]),
                    _bytes(count * one["bytes_of_a_reading"]),
                )
            )
    return table(("images", "core hours", "time on cores", "bytes read", "bytes written"), rows)


def _time(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.0f} {unit}" if count >= 10 * size else f"{count / size:.1f} {unit}"
    return f"{count:,.0f} bytes"
