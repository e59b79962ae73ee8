"""A run on Ray has the rows of one process, however its processes end. All tests share one Ray on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import mien
from mien._errors import MienError, MissingExtraError, OutputError
from mien.cluster import run
from support.distributed import (
    DeadlyDetector,
    as_written,
    rows_of_one_process,
    workers_of_ray,
    write_images,
    written_rows,
)
from support.paths import ROOT

ray = pytest.importorskip("ray", reason="ray is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows"),
    pytest.mark.filterwarnings("default"),  # those of Ray are not ours
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray on this machine.

    The environment names a cluster, and a folder too deep for the names of sockets; Ray finds the memory full.
    """
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
            patch.setenv("RAY_memory_usage_threshold", "0.01")
            patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("x" * 90)))
            stack.enter_context(run._cluster(run._import_ray(), None, run._Needs(2, 1, 0), dashboard=False))
        yield


@pytest.fixture
def reader(tmp_path: Path) -> mien.Reader:
    (tmp_path / "notes").write_bytes(b"")
    return mien.Reader(detector=DeadlyDetector(tmp_path / "notes"))


def at_first(action: Callable[[], object]) -> Callable[..., None]:
    """A progress that does something when the first partition of this run is there, and so its workers."""
    waiting = [action]

    def progress(stage: str, *_: int) -> None:
        if stage.startswith("reading") and waiting:
            waiting.pop()()

    return progress


@pytest.mark.usefixtures("cluster")
def test_the_rows_are_those_of_one_process(reader: mien.Reader, tmp_path: Path) -> None:
    names = write_images(tmp_path / "in", 24, deadly=[7], bad=[3])
    reports: list[tuple[str, int, int]] = []
    done = mien.distribute(
        str(tmp_path / "in"),
        tmp_path / "out",
        reader=reader,
        block_bytes=6 * Path(names[0]).stat().st_size,
        progress=lambda *report: reports.append(report),
    )
    assert (done.images, done.failed, done.folder) == (24, 2, tmp_path / "out")
    assert 4 <= done.partitions == len(list((tmp_path / "out").glob("part-*.parquet")))
    assert reports[-1] == ("reading, 2 not read", 24, 24)
    expected = rows_of_one_process(mien.Reader(detector=DeadlyDetector(tmp_path / "notes", 0)), names)
    reason = "its process ended (signal 9) twice while it was read; look at the image by itself"
    expected[7] = dict.fromkeys(expected[7]) | {"source": names[7], "error": f"{names[7]}: {reason}"}
    assert written_rows(tmp_path / "out") == as_written(expected)
    with mien.Parquet(tmp_path / "one.parquet", emotions=reader.model.emotions) as table:
        table.add(reader.read(names[0]))
    assert parquet.read_schema(tmp_path / "one.parquet").equals(
        parquet.read_schema(tmp_path / "out" / "part-0000000.parquet"), check_metadata=False
    )
    again = mien.distribute([str(tmp_path / "in")], tmp_path / "out", reader=reader, block_bytes=1, resume=True)
    assert again == done


@pytest.mark.usefixtures("cluster")
def test_killed_workers_and_an_interrupted_driver_lose_nothing(reader: mien.Reader, tmp_path: Path) -> None:
    names = write_images(tmp_path / "in", 40)
    given: dict[str, Any] = {"reader": reader, "block_bytes": 4 * Path(names[0]).stat().st_size}
    killed: list[int] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    def kill() -> None:
        killed.extend(workers_of_ray(os.getpid()))
        for process in killed:
            os.kill(process, signal.SIGKILL)

    with pytest.raises(KeyboardInterrupt):
        mien.distribute(str(tmp_path / "in"), tmp_path / "out", **given, progress=at_first(interrupt))
    assert 1 <= len(list((tmp_path / "out").glob("part-*"))) < 10
    done = mien.distribute(str(tmp_path / "in"), tmp_path / "out", **given, resume=True, progress=at_first(kill))
    assert 1 <= len(killed) <= 2  # the second may not have started yet
    assert (done.images, done.failed) == (40, 0)
    assert written_rows(tmp_path / "out") == as_written(rows_of_one_process(reader, names))


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_free_cpus_is_waited_for_and_named(reader: mien.Reader, tmp_path: Path) -> None:
    import ray

    class Other:
        def ready(self) -> bool:
            return True

    others = [ray.remote(num_cpus=1)(Other).remote() for _ in range(2)]
    assert all(ray.get([other.ready.remote() for other in others]))
    while ray.available_resources().get("CPU", 0) > 0:
        time.sleep(0.05)
    stages: list[str] = []

    def progress(stage: str, *_: int) -> None:
        stages.append(stage)
        if stage.startswith("waiting"):
            for other in others:
                ray.kill(other)

    write_images(tmp_path / "in", 2)
    done = mien.distribute(str(tmp_path / "in"), tmp_path / "out", reader=reader, progress=progress)
    assert (done.images, done.failed) == (2, 0)
    assert stages[-2:] == ["waiting for free CPUs of the cluster", "reading"]


def test_folders_of_killed_drivers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of drivers at work, and not what has another name."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(run, "_LONGEST_PARENT", 1000)
    (tmp_path / "mien-other").mkdir()
    program = (
        "import os, signal\n"
        "from mien.cluster import run\n"
        "run._LONGEST_PARENT = 1000\n"
        "with run._temporary_folder() as folder:\n"
        "    open(os.path.join(folder, 'log'), 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    (stale,) = tmp_path.glob("mien-ray-*")
    with run._temporary_folder() as at_work:
        assert stale.exists()  # it may be of a driver that has just begun
        for folder in (stale, at_work):
            os.utime(folder, (0, 0))
        with run._temporary_folder() as folder:
            assert {str(path) for path in tmp_path.glob("mien-ray-*")} == {at_work, folder}
    assert [path.name for path in tmp_path.glob("mien-*")] == ["mien-other"]


@pytest.mark.usefixtures("cluster")
def test_what_does_not_fit_the_cluster_is_one_line(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    for needs, message in {
        ("workers", 99): "the cluster has 2 CPUs and 0 GPUs, too few for 99 workers of 1 CPUs and 0 GPUs; ask for",
        ("gpus_per_worker", 1): "too few for 1 workers of 1 CPUs and 1 GPUs; ask for fewer",
        ("address", "auto"): "Ray runs in this process already; leave address out to use it",
    }.items():
        with pytest.raises(MienError, match=message):
            mien.distribute(str(tmp_path / "in"), tmp_path / "out", resume=True, **dict([needs]))
    assert ray.is_initialized()


def test_sources_of_another_folder_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a", "b"):
        write_images(tmp_path / place / "photos", 1)
    monkeypatch.chdir(tmp_path / "a")
    given: dict[str, Any] = {"address": "127.0.0.1:1", "resume": True}
    for sources in ("photos", "./photos", tmp_path / "a" / "photos"):
        with pytest.raises(MienError, match="no Ray cluster answers"):  # after the plan
            mien.distribute(sources, tmp_path / "out", **given)
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(OutputError, match="is of another run \\(with other sources\\); name another folder"):
        mien.distribute("photos", tmp_path / "out", **given)


def test_clusters_that_cannot_be_joined_are_one_line(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    for address, message in {
        "127.0.0.1:1": "127.0.0.1:1: no Ray cluster answers (connection refused); check the address and the network",
        "nowhere": "nowhere: is no address of a Ray cluster; write host:port, such as 10.0.0.1:6379, or auto",
    }.items():
        with pytest.raises(MienError) as error:
            mien.distribute(str(tmp_path / "in"), tmp_path / "out", address=address, resume=True)
        assert str(error.value) == message


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "in", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'ray is not installed; run: pip install "mien\[ray\]"'):
        mien.distribute(str(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_images_and_folders_of_others_are_refused_before_ray_starts(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_bytes(b"")
    with pytest.raises(MienError, match="empty: no images in this folder"):
        mien.distribute(str(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(OutputError, match="other: has files that are not of such a run"):
        mien.distribute(str(tmp_path / "in"), tmp_path / "other")
    with pytest.raises(MienError, match="the reader cannot be sent to other processes"):
        mien.distribute(str(tmp_path / "in"), tmp_path / "out", reader=mien.Reader(detector=lambda _: []))
