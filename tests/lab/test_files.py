"""Files of the lab: paths in recipes, checksums, sets, locks, and disks that are full."""

import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien._checksum import KEY, is_damaged
from mien._errors import DataError, MienError, ModelError, OutputError
from mien.bundled import BUNDLED
from mien.infer import Classifier
from mien.lab import files
from mien.lab.files import (
    CHECKPOINT,
    PREVIOUS,
    file_name,
    file_set,
    find_input,
    load_arrays,
    load_checkpoint,
    load_json,
    load_state,
    output_folder,
    require_writable,
    save_arrays,
    save_checkpoint,
    save_json,
    save_state,
    save_text,
)
from mien.lab.train.logging import EpochRecord, read_log, write_log


def test_recorded_results_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = tmp_path / "checkout" / "results" / "run"
    recorded.mkdir(parents=True)
    monkeypatch.setattr(files, "CHECKOUT", tmp_path / "checkout")
    monkeypatch.chdir(tmp_path)
    assert find_input("results/run") == recorded
    assert find_input("results/other") == Path("results/other")


@pytest.mark.parametrize("name", ["runs/mine/seed-0", "faces.csv", "/data/results/run"])
def test_other_paths_are_used_as_given(name: str) -> None:
    assert find_input(name) == Path(name)


def test_the_home_folder_may_be_abbreviated() -> None:
    assert find_input("~/runs") == Path.home() / "runs"


def test_results_of_this_repository_are_found() -> None:
    assert find_input("results").samefile(Path(__file__).parents[2] / "results")


RECORDS = [EpochRecord(epoch=number, loss=1.5, accuracy=0.5, lr=0.1) for number in (1, 2)]
# Kind of file -> how it is written to a path, and read again.
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "final.pt": (lambda path: save_state(path, {"net": torch.arange(40.0), "epoch": 3}), load_state),
    "predictions.npz": (lambda path: save_arrays(path, {"a": np.arange(300)}), lambda path: load_arrays(path, "")),
    "metrics.json": (lambda path: save_json(path, {"accuracy": 0.71, "n": [1, 2]}), load_json),
    "log.jsonl": (lambda path: write_log(path.parent, RECORDS), lambda path: read_log(path.parent)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_flipped_bit_is_noticed(name: str, tmp_path: Path) -> None:
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    whole, flips = path.read_bytes(), random.Random(0)
    assert read(path)
    for _ in range(300):
        bit = flips.randrange(8 * len(whole))
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            read(path)


@pytest.mark.parametrize("save", [save_arrays, lambda path, arrays: np.savez_compressed(path, **arrays)])
def test_damaged_arrays_without_a_checksum_are_one_line(save: Callable[..., None], tmp_path: Path) -> None:
    path, changes = tmp_path / "x.npz", random.Random(0)
    save(path, {"a": np.random.default_rng(0).random(300)})
    whole = path.read_bytes().replace(b"mien-sha256", b"no checksum")
    for number in range(300):
        content = bytearray(whole)
        for _ in range(1 + number % 5):
            content[changes.randrange(len(whole))] = changes.randrange(256)
        path.write_bytes(content)
        with suppress(DataError):
            load_arrays(path, "write it again")


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    save_json(tmp_path / "x.json", {"a": float("nan"), "b": {"c": [1.5, float("inf")]}, "d": "NaN"})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["b"] == {"c": [1.5, None]}
    assert load_json(tmp_path / "x.json") == {"a": None, "b": {"c": [1.5, None]}, "d": "NaN"}


def test_innermost_lists_and_objects_of_json_are_on_one_line(tmp_path: Path) -> None:
    values = {
        "why": "again: [ {1,\n2} ] ",
        "flat": {"b": 1.5, "a": None},
        "deep": {"rows": [[1, 2], []], "none": {}, 7: ()},
        "\u00fc": [{"n": 1}, {"n": [True]}],
    }
    save_json(tmp_path / "x.json", values)
    assert load_json(tmp_path / "x.json") == json.loads(json.dumps(values))
    assert (tmp_path / "x.json").read_text().rpartition(',\n "checksum"')[0] == (
        '{\n "why": "again: [ {1,\\n2} ] ",\n "flat": {"b": 1.5, "a": null},\n'
        ' "deep": {\n  "rows": [\n   [1, 2],\n   []\n  ],\n  "none": {},\n  "7": []\n },\n'
        ' "\\u00fc": [\n  {"n": 1},\n  {\n   "n": [true]\n  }\n ]'
    )


def test_flipped_bits_of_an_embedded_model_are_noticed(tmp_path: Path) -> None:
    path, flips = tmp_path / "model.onnx", random.Random(0)
    whole = (BUNDLED / "mien-0" / "model.onnx").read_bytes()
    assert not is_damaged(whole)
    for number in range(40):
        # Of these, some are in the checksum itself.
        bit = flips.randrange(8 * len(whole)) if number % 4 else 8 * len(whole) - 1 - flips.randrange(8 * 100)
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        if number < 3:
            path.write_bytes(content)
            with pytest.raises(ModelError, match=r"model\.onnx: damaged: its checksum is wrong; install mien again"):
                Classifier(path)
        # The entry may lose its name, and the file then says that it has a checksum by its marks.
        assert is_damaged(bytes(content)), bit


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "old.pt")
    np.savez(tmp_path / "old.npz", a=np.arange(3))
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert load_state(tmp_path / "old.pt") == load_json(tmp_path / "old.json") == {"a": 1}
    assert load_arrays(tmp_path / "old.npz", "")["a"].tolist() == [0, 1, 2]


def test_other_programs_read_files_with_a_checksum(tmp_path: Path) -> None:
    for name, (write, _) in KINDS.items():
        write(tmp_path / name)
    assert torch.load(tmp_path / "final.pt", weights_only=True)["epoch"] == 3
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["a"].sum() == 299 * 150
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    assert KEY not in load_json(tmp_path / "metrics.json")


def test_a_damaged_checkpoint_falls_back_to_its_predecessor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CHECKPOINT, PREVIOUS])
    assert load_checkpoint(tmp_path, lambda _: None) == {"step": 3}
    assert not caplog.records
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-1])
    assert load_checkpoint(tmp_path, lambda _: None) == {"step": 2}
    assert "checkpoint.pt: damaged" in caplog.text
    assert "going on from the checkpoint before it" in caplog.text
    (tmp_path / CHECKPOINT).unlink()  # killed between the two renames
    assert load_checkpoint(tmp_path, lambda _: None) == {"step": 2}
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(DataError, match=r"checkpoint-previous\.pt: damaged"):
        load_checkpoint(tmp_path, lambda _: None)
    assert len(caplog.records) == 1
    assert load_checkpoint(tmp_path / "none", lambda _: None) is None


def hold(folder: Path, ready: Any) -> None:
    with output_folder(folder):
        save_text(folder / "result", "of the holder")
        ready.set()
        signal.pause()


def test_a_folder_is_locked_until_its_process_ends(tmp_path: Path) -> None:
    folder, context = tmp_path / "new" / "out", multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(folder, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(OutputError, match=f"out: process {holder.pid} writes here; wait for it"):
        output_folder(folder).__enter__()
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    (folder / ".mien-0123456789ab.part").write_text("half")
    (folder / ".mien-set.part").mkdir()
    with output_folder(folder):
        assert sorted(path.name for path in folder.iterdir()) == [".mien-lock", "result"]
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_folder_without_results_is_removed(tmp_path: Path) -> None:
    with pytest.raises(DataError), output_folder(tmp_path / "a" / "b"):
        raise DataError("no faces")
    require_writable(tmp_path / "a" / "b", None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").write_text("a file")
    for check in (require_writable, lambda folder: output_folder(folder).__enter__()):
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / "a" / "b")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), DataError("no")])
def test_a_set_of_files_is_replaced_as_a_whole_or_not_at_all(error: BaseException, tmp_path: Path) -> None:
    def write(text: str, error: BaseException | None = None) -> None:
        with file_set(tmp_path / "out") as draft:
            save_text(draft / "one", text)
            if error is not None:
                raise error
            save_text(draft / "sub" / "two", text)

    write("old")
    with pytest.raises((MienError, KeyboardInterrupt)) as raised:
        write("new", error)
    found = {path.name: path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"one": "old", "two": "old"}
    assert isinstance(error, OSError) == ("out: cannot be written (no space left on device)" in str(raised.value))
    write("new")
    assert {path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"new"}


def test_a_missing_input_is_not_a_fault_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), file_set(tmp_path / "out"):
        (tmp_path / "input").read_text()


def test_an_interrupted_write_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    save_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_text(tmp_path / "a", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_name_of_a_model_becomes_that_of_a_file() -> None:
    assert [file_name(text) for text in ("mien-0", "../../x", "a b/c", "..")] == ["mien-0", "x", "a-b-c", "model"]


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_cannot_be_read_is_not_called_damaged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, read = KINDS[name]
    write(tmp_path / name)

    def refuse(path: Path) -> bytes:  # access rights do not stop root, under whom tests may run
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert "cannot be read (permission denied); check its access rights" in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert "remove" not in str(caught.value)
