"""Nets of `$MIEN_NETS`: trained, joined, exported and refused by their files."""

import json
from pathlib import Path

import pytest
import torch

import mien
from mien._errors import DataError, RecipeError
from mien.lab import nets
from mien.lab.ensemble import combine_runs
from mien.lab.export.release import export_model
from mien.lab.recipe import Recipe
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from mien.lab.train.run import is_finished, load_final
from support.cli import mien_here
from support.short_runs import short
from support.synthetic_faces import cartoon_set

BLOCKS = """
from torch import nn

def block(inputs, width):
    return nn.Sequential(nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
"""

NET = """
from torch import nn

from mien.lab.nets import Net, PooledHead

from ._blocks import block

def build(channels, classes, width=16):
    head = PooledHead(width, classes)
    nn.init.constant_(head.linear.bias, -2.0)
    return Net(nn.Sequential(block(channels, width), block(width, width)), head)
"""


ORIGIN = {"commit": "c", "machine": "abacus", "torch": "2", "command": "mien train"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "_blocks.py").write_text(BLOCKS)
    (folder / "two-blocks.py").write_text(NET)
    monkeypatch.setenv("MIEN_NETS", str(folder))
    return folder


def recipe(*overrides: str) -> Recipe:
    return short('net.name="two-blocks"', "net.options={width=24}", "train.epochs=1", *overrides)


@pytest.mark.usefixtures("folder")
def test_its_options_and_initial_weights_are_those_of_its_file() -> None:
    assert nets.options("two_blocks") == ("width",)
    assert nets.default("two-blocks", "width") == 16
    net = nets.build("two-blocks", channels=1, classes=7, width=24)
    assert net(torch.zeros(2, 1, 48, 48)).shape == (2, 7)
    assert (net.head.linear.bias == -2).all()


def test_a_file_that_changed_is_read_again_in_one_process(folder: Path) -> None:
    first = nets.build("two-blocks", channels=1, classes=7)
    (folder / "_blocks.py").write_text(BLOCKS.replace("3, stride=2, padding=1", "5, stride=2, padding=2"))
    second = nets.build("two-blocks", channels=1, classes=7)
    assert [net.features[0][0].kernel_size for net in (first, second)] == [(3, 3), (5, 5)]


@pytest.mark.usefixtures("fast_exports")
def test_it_is_trained_joined_and_exported_like_others(folder: Path, tmp_path: Path) -> None:
    faces = cartoon_set(per_split=(35, 14, 7))
    runs = [tmp_path / "0", tmp_path / "1"]
    for seed, run in enumerate(runs):
        fit(
            recipe(f"seed={seed}"),
            faces,
            run,
            devices=Devices("cpu"),
            provenance=ORIGIN | {"data_sha256": faces.sha256},
        )
    assert is_finished(runs[0], recipe(), faces.sha256)
    combine_runs(runs, tmp_path / "pair", name="pair")
    combine_runs([tmp_path / "pair", runs[0]], tmp_path / "nested", name="nested")
    export_model(load_final(tmp_path / "pair"), faces, tmp_path / "model")

    (folder / "_blocks.py").write_text(BLOCKS.replace("nn.ReLU()", "nn.ELU()"))  # weights of the same shapes
    assert not is_finished(runs[0], recipe(), faces.sha256)
    for run in (*runs, tmp_path / "pair", tmp_path / "nested"):
        with pytest.raises(DataError, match=r"was trained with another version of _blocks\.py; restore that version"):
            load_final(run)
    with pytest.raises(DataError, match=r"holds a run with another content of _blocks\.py"):
        fit(recipe("seed=0"), faces, runs[0], devices=Devices("cpu"))
    image, model = mien.example(), tmp_path / "model" / "model.onnx"
    done = mien_here("predict", str(image), "--detector", "none", "--model", str(model), "--json", cwd=tmp_path)
    assert len(json.loads(done.stdout)["faces"]) == 1  # the file needs no code


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import torch\nimport nothing_of_this_name", r"bad\.py, line 2: ModuleNotFoundError: No module named"),
        ("def build(channels, classes)\n    pass", r"bad\.py, line 1: SyntaxError: expected ':'"),
        ("from ._blocks import blocks", r"bad\.py, line 1: ImportError: cannot import name 'blocks'"),
        ("width = 3", r"bad\.py has no function build\(channels, classes, \*, \.\.\.\) that returns a Net"),
        ("def build(channels): pass", r"bad\.py: TypeError: build\(\) takes 1 positional argument but 2 were given"),
        ("def build(channels, classes): return channels", r"bad\.py: TypeError: build returns int, not mien\.lab"),
        ("def build(channels, classes):\n    return block", r"bad\.py, line 2: NameError: name 'block' is not defined"),
    ],
)
def test_what_its_file_does_wrong_is_one_line_with_its_place(folder: Path, text: str, says: str) -> None:
    (folder / "bad.py").write_text(text)
    with pytest.raises(RecipeError, match=says):
        nets.build("bad", channels=1, classes=7)


def test_a_net_that_looks_at_the_other_faces_of_its_batch_is_not_trained(folder: Path, tmp_path: Path) -> None:
    (folder / "two-blocks.py").write_text(f"""{NET}

class Compared(nn.Sequential):
    def forward(self, x):
        x = super().forward(x)
        return x - x.mean(0, keepdim=True)

def build(channels, classes, width=16):
    return Net(Compared(block(channels, width)), PooledHead(width, classes))
""")
    with pytest.raises(RecipeError, match="depend on the other faces of its batch, also in evaluation mode"):
        fit(recipe(), cartoon_set(per_split=(35, 14, 7)), tmp_path / "run", devices=Devices("cpu"))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_wrong_names_and_folders_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="has no option 'widht'; did you mean 'width'"):
        nets.build("two-blocks", channels=1, classes=7, widht=3)
    with pytest.raises(RecipeError, match="did you mean 'two_blocks'"):
        nets.build("two-block", channels=1, classes=7)
    (folder / "resnet.py").write_text(NET)
    with pytest.raises(RecipeError, match=r"resnet\.py: mien has a net of this name; rename the file"):
        nets.build("resnet", channels=1, classes=7)
    monkeypatch.setenv("MIEN_NETS", str(folder / "none"))
    with pytest.raises(RecipeError, match=r"\$MIEN_NETS is no folder of nets"):
        nets.build("two-blocks", channels=1, classes=7)
