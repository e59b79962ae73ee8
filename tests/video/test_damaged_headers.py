"""Videos with damaged headers: each ends with a result or one clear error, within bounded work and memory."""

import json
import os
import random
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

av = pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

from hostile_corpus import progressive_jpeg
from mien._errors import SourceError, TooLargeError
from mien.video import open_source
from support.annotated_videos import write_source_video
from support.paths import ROOT

CPU_SECONDS = 10  # for one video of 2 seconds; an intact one takes less than 0.2
MEMORY = 3 * 2**30  # bytes of address space beyond that of an idle process
# Reads videos from a folder until one breaks the limits, and prints a line of JSON before and after each.
READ_ALL = """
import json, resource, sys, time
from pathlib import Path
from mien import MienError
from mien.video import open_source
from mien.video.containers import import_av

import_av()
cpu_seconds, memory, *paths = sys.argv[1:]
used = 1024 * int(Path("/proc/self/statm").read_text().split()[0]) * 4
resource.setrlimit(resource.RLIMIT_AS, (used + int(memory),) * 2)
for path in paths:
    print(json.dumps(path), flush=True)
    start = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(start) + 1 + int(cpu_seconds), resource.RLIM_INFINITY))
    frames, error = 0, ""
    try:
        with open_source(path) as source:
            for frame in source:
                frames += 1
    except MienError as failure:
        error = str(failure)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps([frames, error, time.process_time() - start, peak]), flush=True)
"""


def header_of(data: bytes, name: str) -> tuple[int, int]:
    """First and last byte of what describes the streams: the box ``moov``, or all before the first cluster."""
    if name.endswith(".mp4"):
        start = data.index(b"moov") - 4
        return start, start + struct.unpack(">I", data[start : start + 4])[0]
    return 0, data.index(b"\x1f\x43\xb6\x75")


def mutate(data: bytes, within: tuple[int, int], generator: random.Random) -> bytes:
    """Change, remove or repeat a few bytes of the header."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4, 8))):
        place, kind = min(generator.randrange(*within), len(changed) - 1), generator.random()  # some are removed
        if kind < 0.4:
            changed[place] = generator.randrange(256)
        elif kind < 0.6:
            changed[place] ^= 1 << generator.randrange(8)
        elif kind < 0.9:
            value = generator.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000, 0xFFFF))
            changed[place : place + 4] = struct.pack(">I", value)
        elif kind < 0.95:
            del changed[place : place + generator.randrange(1, 16)]
        else:
            changed[place:place] = changed[place : place + generator.randrange(1, 64)]
    return bytes(changed)


def read_mutations(folder: Path, name: str, codec: str, seeds: range) -> list[tuple[int, str, float, int]]:
    """Read a mutation for each seed; returns its frames, its error, its CPU seconds and the peak memory in MiB."""
    data = write_source_video(folder / name, codec).read_bytes()
    within = header_of(data, name)
    paths = []
    for seed in seeds:
        paths.append(folder / f"{seed}-{name}")
        paths[-1].write_bytes(mutate(data, within, random.Random(seed)))
    child = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(CPU_SECONDS), str(MEMORY), *map(str, paths)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, f"{lines[-1]}: {child.returncode} {child.stderr[-2000:]}"
    results: list[tuple[int, str, float, int]] = [tuple(line) for line in lines[1::2]]
    for path, (frames, error, _, _) in zip(paths, results, strict=True):
        assert frames or error, path
        assert "\n" not in error
        assert not error or str(path) in error
    return results


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize(("name", "codec"), [("video.mp4", "aac"), ("video.mkv", "libopus")])
@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 3000), marks=pytest.mark.release)])
@pytest.mark.timeout(4000)
def test_a_damaged_header_is_an_error_or_a_result(tmp_path: Path, name: str, codec: str, seeds: range) -> None:
    results = read_mutations(tmp_path, name, codec, seeds)
    errors = sum(bool(error) for _, error, _, _ in results)
    slowest, peak = max(cpu for _, _, cpu, _ in results), max(memory for _, _, _, memory in results)
    print(f"\n{name}: {len(results)} files, {errors} errors, at most {slowest:.2f} s of CPU, peak {peak} MiB")
    assert 0 < errors < len(results)


def test_images_that_cost_much_are_refused_as_videos_and_in_videos(tmp_path: Path) -> None:
    """FFmpeg decodes an image file as a video of one frame, and JPEG frames of a video scan by scan."""
    data = progressive_jpeg(640, 600)
    (tmp_path / "image.jpg").write_bytes(data)
    with pytest.raises(TooLargeError, match="too many scans"):
        open_source(tmp_path / "image.jpg")
    with av.open(str(tmp_path / "video.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 640, 640, "yuvj420p"
        for number in range(3):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 5)
            packet.pts = packet.dts = number
            container.mux(packet)
    with open_source(tmp_path / "video.avi") as frames, pytest.raises(SourceError, match="3 are broken"):
        list(frames)
