"""Two machines, here two addresses of one, train together; when one is lost, the other ends, and both resume."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mien.lab.train.run import load_final
from support.paths import ROOT
from support.short_runs import ONE_BLOCK_RECIPE
from support.synthetic_faces import cartoon_folder, cartoon_set
from support.tiny_recipe import same

pytestmark = [
    pytest.mark.release,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address on Linux alone"),
]
LINE = (
    "mien: another process of this training has ended or does not answer; start all of them again: the same commands "
    "resume after the last checkpoint"
)
# `mien` with a checkpoint after each epoch, on a machine that may lose its power in the second one.
PROGRAM = """
import os, signal, sys
from mien.__main__ import main
from mien.lab.train import loop
loop.SAVE_EVERY = 0
run_epoch = loop.run_epoch
def run_until_the_second(task, run, *more):
    if run.epoch == 1:
        for process in ([os.getppid()] if "TORCHELASTIC_RUN_ID" in os.environ else []) + [os.getpid()]:
            os.kill(process, signal.SIGKILL)
    return run_epoch(task, run, *more)
if os.environ.get("FATE") == "dies":
    loop.run_epoch = run_until_the_second
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces, a recipe and, in ``whole``, what two processes of one machine train."""
    folder = tmp_path_factory.mktemp("nodes")
    cartoon_folder(folder / "faces")
    (folder / "one.toml").write_text(f'name = "one"\n{ONE_BLOCK_RECIPE.replace("epochs = 2", "epochs = 3")}')
    (folder / "program.py").write_text(PROGRAM)
    words = [sys.executable, "program.py", *train("whole"), "--processes", "2"]
    subprocess.run(words, cwd=folder, env=environment(), check=True, capture_output=True)
    return folder


def train(out: str) -> list[str]:
    return ["train", "one.toml", "--data", "faces", "--device", "cpu", "--out", out]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"} | more


def free_port() -> str:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        return str(free.getsockname()[1])


def start(
    launcher: str, folder: Path, *, second: str = "lives", more: Sequence[str] = (), out: str = ""
) -> list["subprocess.Popen[str]"]:
    """Start the two machines; the second one lives or dies, and has more words."""
    port = free_port()
    jobs = []
    for node, fate in enumerate(("lives", second)):
        words = ["program.py", *train(out or launcher), "--nodes", "2", *(more if node else ())]
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": str(node)}
        if launcher == "torchrun":
            at = [
                "--rdzv-backend",
                "c10d",
                "--rdzv-endpoint",
                f"127.0.0.1:{port}",
                "--local-addr",
                f"127.0.0.{1 + node}",
                "--rdzv-conf",
                f"is_host={1 - node}",  # both addresses are of this machine: the lost one must not hold the store
            ]
            words = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *at, *words]
            variables = {}
        jobs.append(
            subprocess.Popen(
                [sys.executable, *words],
                cwd=folder,
                env=environment(FATE=fate, **variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return jobs


@pytest.mark.parametrize("launcher", ["torchrun", "environment"])
def test_a_lost_machine_ends_the_other_with_one_line_and_both_resume_to_the_same_bits(
    launcher: str, folder: Path
) -> None:
    first, second = start(launcher, folder, second="dies")
    _, errors = first.communicate()
    second.communicate()
    assert second.returncode == -signal.SIGKILL
    assert errors.count("mien: ") == errors.splitlines().count(LINE) == 1, errors
    assert "[rank" not in errors  # the traceback of a worker
    if launcher == "torchrun":  # which reports the worker, with its exit status, in its own words
        assert first.returncode == 1
        assert "exitcode  : 2" in errors
    else:
        assert first.returncode == 2
        assert "Traceback" not in errors
    assert (folder / launcher / "checkpoint.pt").exists()
    assert not (folder / launcher / "final.pt").exists()
    for job in start(launcher, folder):
        _, errors = job.communicate()
        assert job.returncode == 0, errors
        assert "epoch 1 " not in errors
    whole, resumed = (load_final(folder / name).net.state_dict() for name in ("whole", launcher))
    assert same(whole, resumed)


def test_a_machine_that_does_not_come_is_one_line(folder: Path) -> None:
    program = folder / "hasty.py"
    program.write_text(
        "import mien.lab.train.devices as devices\ndevices._ANSWER_SECONDS = 2.0\n"
        "from mien.__main__ import main\nmain()\n"
    )
    variables = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(), NODE_RANK="0")
    words = [sys.executable, "hasty.py", *train("alone"), "--nodes", "2"]
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == LINE
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        (["--seed", "1"], "mien: seed is 1 on this machine and the default on the first one; "),
        (["--data", "others"], "mien: SHA-256 of the faces is "),
    ],
)
def test_machines_that_were_started_with_other_words_do_not_train(
    more: list[str], cause: str, folder: Path, tmp_path: Path
) -> None:
    if not (folder / "others").exists():
        cartoon_folder(folder / "others", cartoon_set(per_split=(77, 0, 0)))
    first, second = start("environment", folder, out=str(tmp_path / "run"), more=more)
    _, errors = first.communicate()
    assert first.returncode == 2
    assert errors.splitlines()[-1] == LINE
    _, errors = second.communicate()
    assert second.returncode == 2
    assert errors.startswith(cause)
    assert errors.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_machine_that_waits_for_another_one_can_be_stopped(folder: Path, tmp_path: Path) -> None:
    port = free_port()
    words = [sys.executable, "program.py", *train(str(tmp_path / "run")), "--nodes", "2"]
    variables = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK="0")
    with subprocess.Popen(words, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True) as job:
        while job.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
                break  # it listens, so it waits
            time.sleep(0.1)
        job.send_signal(signal.SIGTERM)
        _, errors = job.communicate()
    assert job.returncode == 128 + signal.SIGTERM
    assert "stopped" in errors.splitlines()[-1]  # by the handler, if it came between two calls of C
    assert "Traceback" not in errors
