"""Long videos: the memory stays flat, and no frame is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

from support.paths import ROOT
from support.videos import head_of, walk

FRAMES = 20_000
GROWTH = 40  # MiB between the first quarter and the end
# Tracks a video into all outputs, and prints the resident memory in MiB every 1000 frames.
TRACK = """
import sys
from pathlib import Path
from mien.reader import Reader
from mien.video import Tracker, open_source
from mien.video.outputs import TrackOutputs

source, folder = sys.argv[1], Path(sys.argv[2])
paths = {kind: folder / f"out.{kind}" for kind in ("jsonl", "csv", "parquet", "html", "mp4")}
reader = Reader()
tracker = Tracker(reader)
with open_source(source) as frames, TrackOutputs(frames, reader, **paths) as outputs:
    for frame in frames:
        outputs.add(tracker.step(frame.pixels, frame.seconds), frame.pixels)
        if frame.index % 1000 == 999:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(pages * 4096 // 2**20, flush=True)
"""


def write_long_video(path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """A face that walks through the image and leaves it, again and again, with silence."""
    scene = walk(head_of(astronaut, 96), [(4 * i, 20) for i in range(70)], size_wh=(224, 128))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, width=224, height=128, options={"preset": "ultrafast"})
        audio = container.add_stream("aac", 48_000, layout="mono")
        silence = np.zeros((1, 1920), np.float32)
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(scene[index % len(scene)], format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
            sound = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
            sound.sample_rate, sound.pts = 48_000, 1920 * index
            container.mux(audio.encode(sound))
        container.mux(stream.encode())
        container.mux(audio.encode())
    return path


@pytest.mark.release
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory as Linux reports it")
def test_the_memory_of_twenty_thousand_frames_is_flat(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    source = write_long_video(tmp_path / "long.mp4", astronaut)
    done = subprocess.run(
        [sys.executable, "-c", TRACK, str(source), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    memory = [int(line) for line in done.stdout.split()]
    print(f"\nresident memory in MiB every 1000 frames: {memory}")
    assert len(memory) == FRAMES // 1000
    assert max(memory) - memory[FRAMES // 4000 - 1] < GROWTH
    with (tmp_path / "out.jsonl").open() as lines:
        assert [json.loads(line)["frame"] for line in lines] == list(range(FRAMES))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == FRAMES
        assert float(container.streams.audio[0].duration * container.streams.audio[0].time_base) == pytest.approx(
            FRAMES / 25, abs=0.1
        )
