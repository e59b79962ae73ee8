"""Images, tables and videos in an object store, a local S3 server, are those of a folder."""

import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mien
from mien._errors import MienError
from mien.cluster.plan import Plan
from support.distributed import rows_of_one_process, write_images
from support.paths import ROOT
from support.videos import times, write_video

pytestmark = [pytest.mark.release, pytest.mark.filterwarnings("default")]
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
import pyarrow.parquet as parquet

SERVER = ROOT / ".venv-s3" / "bin" / "moto_server"  # `make release-check` installs it beside the pinned packages


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server whose bucket ``faces`` has the files of ``tmp_path``: images, a table and a video."""
    from pyarrow import fs

    assert SERVER.exists(), "there is no S3 server; run: make .venv-s3"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    names = write_images(tmp_path / "in", 12, bad=[3])
    contents = [Path(name).read_bytes() for name in names]
    parquet.write_table(pyarrow.table({"image": contents}), tmp_path / "a.parquet", row_group_size=5)
    write_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 30, times(30, 10.0))
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen([SERVER, "-p", address.partition(":")[2]], stderr=subprocess.DEVNULL) as server:
        while not answers(address):
            assert server.poll() is None
        files = fs_of(f"http://{address}")
        files.create_dir("faces")
        fs.copy_files(str(tmp_path), "faces", destination_filesystem=files)
        with files.open_output_stream("faces/in/.hidden.png") as hidden:
            hidden.write(b"")
        yield f"http://{address}"
        server.kill()


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def ask_for_rights(server: str) -> None:
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", data=b"0", method="POST", headers=plain)
    urllib.request.urlopen(request).close()


def fs_of(server: str) -> Any:
    from pyarrow import fs

    return fs.S3FileSystem(endpoint_override=server, region="us-east-1", allow_bucket_creation=True)


def query(server: str) -> str:
    return f"endpoint_override={server}&region=us-east-1"


def test_objects_are_read_as_files(store: str, tmp_path: Path) -> None:
    reader = mien.Reader(detector="none")
    for what, options in {"in": {}, "in/*.png": {}, "a.parquet": {"block_bytes": 500}, "a.mp4": {"fps": 2.0}}.items():
        rows = rows_of_one_process(reader, [f"s3://faces/{what}?{query(store)}"], **options)
        expected = rows_of_one_process(reader, [str(tmp_path / what)], **options)
        for row in expected:
            row["source"] = row["source"].replace(f"{tmp_path}/", "s3://faces/")
            row["error"] = row["error"] and row["error"].replace(f"{tmp_path}/", "s3://faces/")
        assert len(rows) == {"a.mp4": 6}.get(what, 12)
        assert rows == expected
    (tmp_path / "list.txt").write_text(
        f"s3://faces/in/00000.png?{query(store)}\ns3://faces/in/none.png?{query(store)}\n"
    )
    found, missing = rows_of_one_process(reader, [str(tmp_path / "list.txt")])
    assert found["error"] is None
    assert missing["error"].endswith(": cannot be fetched (there is no such object); check name and rights")


def test_objects_of_any_name_are_read_and_those_that_vanish_are_rows(store: str) -> None:
    files = fs_of(store)
    content = files.open_input_stream("faces/in/00000.png").read()
    keys = sorted(["a b.png", "caf\u00e9 \u65e5.png", "what?.png", "q[1].png", "50%25.png", "a+b&c=d.png", "x#1.png"])
    for key in keys:
        with files.open_output_stream(f"faces/odd/{key}") as stream:
            stream.write(content)
    plan = list(Plan([f"s3://faces/odd?{query(store)}"], fps=None, column=None))
    reader = mien.Reader(detector="none")
    files.delete_file(f"faces/odd/{keys[0]}")
    images = (image for block in plan for _, image in block.open())
    first, *others = reader.read_many(images)
    assert [reading.source for reading in others] == [f"s3://faces/odd/{key}" for key in keys[1:]]
    assert [reading.error for reading in others] == [None] * 6
    gone = f"s3://faces/odd/{keys[0]}"
    assert first.error == f"{gone}: cannot be fetched (there is no such object); check name and rights"
    ask_for_rights(store)
    (block,) = plan
    for reading in reader.read_many(image for _, image in block.open()):
        assert "cannot be fetched (" in str(reading.error)
        assert "\n" not in str(reading.error)


def test_buckets_that_cannot_be_listed_are_one_line(store: str) -> None:
    with pytest.raises(MienError, match=r"^s3://none/in.*: there is no such object or folder; check its name$"):
        list(Plan([f"s3://none/in?{query(store)}"], fps=None, column=None))
    ask_for_rights(store)
    with pytest.raises(MienError, match=r"^s3://faces/in.*: cannot be listed .*; check name and rights$") as error:
        list(Plan([f"s3://faces/in?{query(store)}"], fps=None, column=None))
    assert "\n" not in str(error.value)
    with pytest.raises(MienError, match=r"^s3://faces/in.*: cannot be listed .*; check name and rights$"):
        list(Plan([f"s3://faces/in?{query('http://127.0.0.1:1')}"], fps=None, column=None))
