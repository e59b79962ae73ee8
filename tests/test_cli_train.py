"""`mien train` and `mien export` as a user runs them: a whole small run, its resumption, and what goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faces import cartoon_set

TINY = ["net.options.stem=16", "net.options.widths=[16]", "net.options.depths=[1]", "net.options.strides=[2]"]


def mien(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mien", *words]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "mien-9"], "unknown recipe 'mien-9'; did you mean 'mien-0'?"),
        (["train", "mien-0", "optimise.epoch=3"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["train", "mien-0", "--data", "nowhere"], "nowhere"),
        (["export", "nowhere", "--out", "x"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_status_two(words: list[str], says: str, tmp_path: Path) -> None:
    done = mien(*words, cwd=tmp_path, MIEN_DATA="")
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_data_says_how_to_get_it(tmp_path: Path) -> None:
    done = mien("train", "mien-0", cwd=tmp_path, MIEN_DATA="")
    assert done.returncode == 2
    assert "MIEN_DATA" in done.stderr


def test_a_data_set_with_wrong_counts_is_refused(tmp_path: Path) -> None:
    faces = cartoon_set()
    usage = ["Training", "PublicTest", "PrivateTest"]
    from io import BytesIO

    from PIL import Image

    def png(pixels: object) -> bytes:
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "png")  # type: ignore[arg-type]
        return stream.getvalue()

    table = {
        "image": [png(image.numpy()) for image in faces.images],
        "label": pa.array(faces.labels.tolist(), pa.uint8()),
        "usage": [usage[i] for i in faces.usage.tolist()],
    }
    pq.write_table(pa.table(table), tmp_path / "small.parquet")
    done = mien("train", "mien-0", "--data", "small.parquet", cwd=tmp_path)
    assert done.returncode == 2
    assert "official=False" in done.stderr or "28,709" in done.stderr
