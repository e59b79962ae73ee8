"""Time, memory and the software environment, as benchmarks report them."""

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
    """Measure the median time of each call.

    The calls take turns, so that a computer that slows down slows all of them.

    Args:
        *calls: The functions to measure.
        seconds: The rounds go on for at least this long, in seconds.
        least: Smallest number of measured rounds.
        warm_up: Number of rounds before those that are measured.

    Returns:
        The median of each call in milliseconds.
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
    """Return the largest resident memory of this process so far, in MB; ``None`` where the system cannot report it."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: getrusage would include the memory of the process before it started this program
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(kib) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1e6  # macOS counts bytes


def environment(*packages: str) -> dict[str, str]:
    """Describe the computer and its software.

    Args:
        *packages: Names of distributions whose versions are added.

    Returns:
        Processor, cores, system, Python, and the version of each package (or ``"not installed"``).
    """
    facts = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in packages:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def processor() -> str:
    """Return the name of the processor, as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        return name or platform.machine()
    return platform.processor() or platform.machine()
