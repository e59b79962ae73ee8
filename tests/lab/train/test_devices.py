"""Several processes train the same weights as one, started by Fabric or by torchrun, on one CPU."""

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mien._errors import DeviceError
from mien.lab.recipe import Recipe, dump
from mien.lab.train.devices import Devices, computed_precision, is_first_process
from mien.lab.train.loop import fit
from mien.lab.train.run import load_final
from support.paths import TESTS
from support.short_runs import FAMILY
from support.synthetic_faces import cartoon_folder, cartoon_set
from support.tiny_recipe import same, tiny

# What the processes run: they start themselves again with the same words, as those of `mien train` do.
SCRIPT = """
import json, os, resource, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

at_first = faults()
from mien.commands import app
from mien._errors import RecipeError
from mien.lab.train.devices import Devices, is_first_process, keep_freed_memory
from mien.lab.train.loop import fit
from mien.lab.recipe import parse
from support.synthetic_faces import cartoon_folder, cartoon_set
faces = cartoon_set(per_split=(84, 28, 0))
for job in json.loads(sys.argv[2]):
    if "command" in job:
        os.chdir(job["folder"])
        app(job["command"], standalone_mode=False)
        faults()
        if is_first_process():
            least = min(faults() for _ in range(3))  # the kernel may take idle pages away
            print(json.dumps({"faults": [at_first, least], "supported": keep_freed_memory()}))
        continue
    recipe = parse(job["recipe"], where="job")
    try:
        done = fit(recipe, faces, Path(job["folder"]), devices=Devices("cpu", devices=job["devices"]),
                   time_limit=job.get("limit", 1e9), on_epoch=lambda r: print(json.dumps(r.to_dict()), flush=True))
    except RecipeError as error:
        print(error, file=sys.stderr)
"""


def launch(jobs: list[dict], *launcher: str) -> subprocess.CompletedProcess[str]:
    path = Path(jobs[0]["folder"]).parent / "script.py"
    path.write_text(SCRIPT)
    words = [sys.executable, *launcher, str(path), str(TESTS), json.dumps(jobs)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)


def job(recipe: Recipe, folder: Path, **more: object) -> dict:
    return {"recipe": dump(recipe), "folder": str(folder), "devices": 2, **more}


def apart(a: Path, b: Path) -> float:
    """The largest difference between the weights of two runs."""
    mine, theirs = load_final(a).net.state_dict(), load_final(b).net.state_dict()
    return max(float((mine[key].float() - theirs[key].float()).abs().max()) for key in mine)


# Without norms and dropout, whose statistics and draws are each process's own.
PLAIN = tiny(options={"norm": False, "dropout": 0.0}, train={"epochs": 2, "accumulate_steps": 2, "clip_grad": 1.0})
PHASES = tiny(phases=[{"freeze": ["features"], "train": {"epochs": 1}}, {"train": {"epochs": 2, "optimizer": "adamw"}}])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """One pair of processes that does it all, for starting one takes seconds."""
    (folder / "file").write_text("in the way")
    (folder / "family").mkdir()
    (folder / "family" / "pair.toml").write_text(FAMILY)
    cartoon_folder(folder / "family" / "faces")
    words = ["train", "pair.toml", "--data", "faces", "--device", "cpu", "--processes", "2", "--out", "both"]
    return launch(
        [
            job(PLAIN, folder / "plain"),
            job(PHASES, folder / "whole"),
            job(PHASES, folder / "parts", limit=1e-9),  # over before an epoch can start
            job(PHASES, folder / "parts", limit=0.01),  # or after the first one
            job(PHASES, folder / "parts"),
            {"command": [*words, "train.precision=32-true"], "folder": str(folder / "family")},
            job(tiny(train={"batch_size": 27}), folder / "odd"),
            job(PLAIN, folder / "file" / "run"),
        ]
    )


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    assert fit(PLAIN, cartoon_set(per_split=(84, 28, 0)), folder / "one", devices=Devices("cpu"))
    return folder / "one"


def test_two_processes_train_what_one_trains(done: subprocess.CompletedProcess[str], folder: Path, one: Path) -> None:
    assert apart(folder / "plain", one) < 1e-4, done.stderr
    single, double = load_final(one).history, load_final(folder / "plain").history
    for key in ("loss", "accuracy", "val_accuracy", "val_log_loss"):
        assert [getattr(r, key) for r in double] == pytest.approx([getattr(r, key) for r in single], abs=1e-3)


def test_only_the_first_process_prints(done: subprocess.CompletedProcess[str]) -> None:
    epochs = [json.loads(line)["epoch"] for line in done.stdout.splitlines() if '"epoch"' in line]
    assert epochs == [1, 2, 1, 2, 3, 1, 2, 3], done.stderr


def test_phases_in_two_processes_stop_in_time_and_resume_to_the_same_bits(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert (folder / "parts" / "final.pt").exists(), done.stderr
    whole, parts = load_final(folder / "whole").net, load_final(folder / "parts").net
    assert same(whole.state_dict(), parts.state_dict())


def test_mistakes_end_all_processes_with_one_message(done: subprocess.CompletedProcess[str]) -> None:
    assert "must be a multiple of 2: devices x accumulate_steps" in done.stderr
    assert done.returncode != 0
    assert done.stderr.count("OutputError: ") == 1  # once with its message, not as code of the traceback
    assert "cannot be written" in done.stderr


def test_a_command_with_two_processes_prints_and_writes_once(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.stdout.count(": finished") == 2, done.stderr
    assert done.stderr.count("epoch 1 ") == 2  # one for each member
    assert done.stderr.count("no validation split") == 1
    assert (folder / "family" / "both" / "slow" / "final.pt").is_file()
    assert (folder / "family" / "both" / "fast" / "final.pt").is_file()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of another system gives no such choice")
def test_memory_that_a_step_frees_is_reused(done: subprocess.CompletedProcess[str]) -> None:
    (found,) = (json.loads(line) for line in done.stdout.splitlines() if '"faults"' in line)
    if not found["supported"]:
        pytest.skip("this C library is not GNU's")
    before, after = found["faults"]
    assert after < before / 10


def test_torchrun_sets_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment that torchrun makes for the only process of a machine."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    names = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"}
    names |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert Devices("cpu", devices=2).launch("32-true").world_size == 1


@pytest.mark.release
def test_torchrun_trains_what_one_process_trains(folder: Path, one: Path) -> None:
    finished = launch(
        [job(PLAIN, folder / "torchrun", devices=1)],
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
    )
    assert finished.returncode == 0, finished.stderr
    assert apart(folder / "torchrun", one) < 1e-4


def test_missing_devices_are_named() -> None:
    for devices in (Devices("warp"), *([] if torch.cuda.is_available() else [Devices("cuda")])):
        with pytest.raises(DeviceError, match="cannot be used"):
            devices.launch("32-true")


@pytest.mark.parametrize(
    ("nodes", "variables", "words"),
    [
        (2, {"NODE_RANK": "2"}, "NODE_RANK is '2', but --nodes is 2"),
        (2, {"NODE_RANK": "-1"}, "must be from 0 to 1"),
        (2, {"NODE_RANK": "one"}, "NODE_RANK is 'one'"),
        (1, {"NODE_RANK": "1"}, "NODE_RANK is '1', but --nodes is 1"),
        (1, {"RANK": "3"}, "RANK is '3'"),
        (1, {"LOCAL_RANK": "1"}, "--processes is 1"),
        (2, {"NODE_RANK": "1"}, "nothing says where the first machine is"),
        (2, {"MASTER_ADDR": "127.0.0.1"}, "set MASTER_ADDR and MASTER_PORT"),
        (2, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "port"}, "set MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_wrong_numbers_of_machines_are_named_before_anything_is_waited_for(
    nodes: int, variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=words):
        Devices("cpu", nodes=nodes).launch("32-true")


def test_which_process_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_first_process()


@pytest.mark.parametrize(
    ("instructions", "computed"),
    [
        ({}, "32-true"),
        ({"avx512_f": True}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"bf16": True}, "bf16-mixed"),
    ],
)
def test_bf16_is_used_where_the_processor_has_it(
    instructions: dict[str, bool], computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert Devices("cpu").precision("bf16-mixed") == computed
    assert Devices("cpu").precision("32-true") == "32-true"
    assert Devices("cpu").launch("bf16-mixed").strategy.precision.precision == computed


def test_a_graphics_card_that_emulates_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert computed_precision("bf16-mixed", "cuda") == "32-true"
    assert computed_precision("bf16-mixed", "mps") == "bf16-mixed"


def test_without_bf16_a_training_is_that_in_fp32_to_the_bit_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    faces, nets = cartoon_set(per_split=(84, 28, 0)), []
    for precision in ("bf16-mixed", "32-true"):
        fit(tiny(train={"epochs": 1, "precision": precision}), faces, tmp_path / precision, devices=Devices("cpu"))
        found = load_final(tmp_path / precision)
        assert found.provenance["train_precision"] == "32-true"
        nets.append(found.net.state_dict())
    assert same(*nets)
