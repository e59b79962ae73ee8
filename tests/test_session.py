"""Model files of unknown origin: they cannot take much memory, and cannot run without end."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mien._errors import ModelError
from mien._session import _PRODUCTS, _saturates, open_session
from mien.infer import Classifier
from support.onnx_models import write_model

HUGE = np.array([3 * 2**28], np.int64)  # 3.2 GB of float32
ONE = np.ones(1, np.float32)
BOMBS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "Expand": ("Expand", {"one": ONE, "shape": HUGE}),
    "Tile": ("Tile", {"one": ONE, "shape": HUGE}),
    "ConstantOfShape": ("ConstantOfShape", {"shape": HUGE}),
    "Resize": (
        "Resize",
        {"face": np.ones((1, 1, 8, 8), np.float32), "": ONE, "scales": np.array([1, 1, 2**15, 2**15], np.float32)},
    ),
    "outer product": ("MatMul", {"column": np.ones((2**17, 1), np.float32), "row": np.ones((1, 2**17), np.float32)}),
}


def test_int8_products_are_exact_on_this_core(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    a = generator.integers(200, 256, (9, 200)).astype(np.uint8)
    b = generator.integers(90, 128, (200, 33)).astype(np.int8)
    model = onnx.load_from_string(_PRODUCTS)
    model.graph.initializer.append(numpy_helper.from_array(b, "b"))  # a weight, of which the kernel is selected
    del model.graph.input[1]
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    expected = a.astype(np.int32) @ b.astype(np.int32)
    np.testing.assert_array_equal(open_session(path).run(["y"], {"a": a})[0], expected)
    plain = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"a": a})[0]
    assert _saturates() == bool((plain != expected).any())  # the exact kernel is slower and only taken where needed


def test_a_session_is_opened_again_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(open_session(Path("model.onnx")))
    monkeypatch.chdir("/")
    assert pickle.loads(content).get_inputs()


def test_reading_leaves_no_telemetry(tmp_path: Path) -> None:
    # ONNX Runtime keeps an identifier of the device and its events in the user's cache before it sends them.
    environment = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "PATH": os.environ["PATH"]}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    code = "import mien; print(len(mien.Reader(threads=1).read(mien.example()).faces))"
    read = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (read.stdout, list(tmp_path.rglob("*"))) == ("1\n", []), read.stderr


def hostile(path: Path, nodes: list[NodeProto], constants: dict[str, np.ndarray], result: str) -> Path:
    """A classifier whose probabilities depend on ``result`` of the added nodes."""
    model = onnx.load(write_model(path))
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    at = list(model.graph.node).index(softmax)
    for node in reversed(nodes):
        model.graph.node.insert(at, node)
    softmax.input[0] = result
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items() if name)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", BOMBS)
def test_a_constant_that_grows_to_gigabytes_is_refused(name: str, tmp_path: Path) -> None:
    operator, constants = BOMBS[name]
    nodes = [
        helper.make_node(operator, list(constants), ["boom"]),
        helper.make_node("ReduceMax", ["boom"], ["top"], keepdims=0),
        helper.make_node("Add", ["tempered", "top"], ["sum"]),
    ]
    with pytest.raises(ModelError, match=r"it cannot read 2 crops \(it needs too much memory\)") as caught:
        Classifier(hostile(tmp_path / "m.onnx", nodes, constants, "sum"))
    assert "\n" not in str(caught.value)


def test_a_graph_with_a_loop_is_refused_before_it_runs(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
    )
    loop = helper.make_node("Loop", ["times", "yes", "tempered"], ["looped"], body=body)
    constants = {"times": np.array(2**62), "yes": np.array(True)}
    with pytest.raises(ModelError, match="has loops, branches or functions, which mien does not run"):
        Classifier(hostile(tmp_path / "m.onnx", [loop], constants, "looped"))


def test_maps_are_not_larger_than_the_crops(tmp_path: Path) -> None:
    model = onnx.load(write_model(tmp_path / "m.onnx"))
    for node in model.graph.node:
        node.output[:] = ["small" if name == "maps" else name for name in node.output]
        node.input[:] = ["small" if name == "maps" else name for name in node.input]
    model.graph.node.append(helper.make_node("Resize", ["small", "", "scales"], ["maps"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 10, 10], np.float32), "scales"))
    model.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 60
    model.graph.output[1].type.tensor_type.shape.dim[3].dim_value = 60
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="its maps are 60x60, its crops 48x48"):
        Classifier(tmp_path / "m.onnx")


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    mutate(data, tmp_path_factory.getbasetemp() / "fuzzed.onnx")


@pytest.mark.release
@settings(max_examples=5000, deadline=None)
@given(data=st.data())
def test_thousands_of_damaged_files(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    mutate(data, tmp_path_factory.getbasetemp() / "fuzzed.onnx")


def mutate(data: st.DataObject, path: Path) -> None:
    """Change, cut or repeat bytes of a file: it is a classifier, or one ``ModelError`` of one line."""
    content = bytearray(write_model(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "cut", "repeat"])):
            case "change":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 40))]
            case _:
                content[at:at] = content[at : at + data.draw(st.integers(1, 40))]
    path.write_bytes(content)
    said = ""
    try:
        Classifier(path)
    except ModelError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 500 + len(str(path))
