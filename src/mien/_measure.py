"""Time, memory and the machine: what every measured figure is stated with."""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def median_ms(*calls: Callable[[], object], seconds: float = 1.0, least: int = 5, warm_up: int = 2) -> list[float]:
    """The median time of each of ``calls`` in milliseconds.

    They take turns, so that a machine that slows down slows all of them; at least ``least`` rounds after ``warm_up``,
    and as many as fit into ``seconds``.
    """
    for _ in range(warm_up):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < least or time.perf_counter() < end:
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [1000 * statistics.median(taken) for taken in times]


def peak_memory_mb() -> float | None:
    """The most memory that this process has held at once, in MB; ``None`` where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; getrusage there would count what the process held before it became this program
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(kib) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1e6  # macOS counts bytes


def machine(*packages: str) -> dict[str, str]:
    """The machine in words: processor, cores, system, Python, and the versions of ``packages``."""
    said = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in packages:
        try:
            said[package] = version(package)
        except PackageNotFoundError:
            said[package] = "not installed"
    return said


def processor() -> str:
    """The processor's name as the system gives it."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        asked = subprocess.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return asked.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
