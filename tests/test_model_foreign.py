"""Foreign ONNX files, told of by a description: what they are shown and answer, and wrong descriptions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mien._emotions import Emotion
from mien._errors import ModelError
from mien.lab.model import open_model

LABELS = '["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]'


def crops(count: int = 5, side: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


def foreign(
    folder: Path,
    text: str = "",
    *,
    channels: int = 1,
    layout: str = "nchw",
    softmax: bool = False,
    labels: str = LABELS,
) -> Path:
    """A linear ONNX classifier of its mean grey by channel, and the TOML file that describes it."""
    shape = ["n", channels, 48, 48] if layout == "nchw" else ["n", 48, 48, channels]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    weight = np.linspace(-3, 3, channels * 7, dtype=np.float32).reshape(channels, 7)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["said"], axis=1),
    ]
    out = "said" if softmax else "logits"
    graph = helper.make_graph(
        nodes if softmax else nodes[:2],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "their.onnx").write_bytes(model.SerializeToString())
    outputs = "probabilities" if softmax else "logits"
    said = f'model = "their.onnx"\nlabels = {labels}\nsize = 48\nlayout = "{layout}"\noutputs = "{outputs}"\n{text}\n'
    (folder / "their.toml").write_text(said)
    return folder / "their.toml"


def expected(mean: list[float], std: list[float]) -> np.ndarray:
    grey = crops().reshape(5, -1).mean(axis=1) / 255
    seen = (grey[:, None] - np.array(mean)) / np.array(std)
    odds = np.exp(seen @ np.linspace(-3, 3, len(mean) * 7).reshape(len(mean), 7))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("channels", "text", "mean", "std"),
    [
        (1, "", [0], [1]),
        (1, "mean = 0.5\nstd = 0.25\nbatch = 2", [0.5], [0.25]),
        (3, 'channels = "rgb"\nmean = [0.4, 0.5, 0.6]\nstd = [0.2, 0.25, 0.5]', [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]),
        (3, 'channels = "bgr"\nstd = 0.5', [0, 0, 0], [0.5] * 3),
    ],
)
def test_a_foreign_file_gets_what_its_description_says(
    channels: int, text: str, mean: list[float], std: list[float], layout: str, softmax: bool, tmp_path: Path
) -> None:
    model = open_model(foreign(tmp_path, text, channels=channels, layout=layout, softmax=softmax))
    np.testing.assert_allclose(model(crops())[0], expected(mean, std), atol=1e-5)
    assert model(crops())[1] is None
    assert (model.name, model.about["file"]) == ("their", "their.onnx")
    assert model(crops(0))[0].shape == (0, 7)


@pytest.mark.parametrize("softmax", [False, True])
def test_outputs_that_are_no_emotion_are_left_out_and_the_rest_sums_to_one(softmax: bool, tmp_path: Path) -> None:
    labels = '["angry", "-", "fear", "happy", "sad", "surprise", "-"]'
    model = open_model(foreign(tmp_path, 'name = "five"', softmax=softmax, labels=labels))
    assert model.name == "five"
    assert model.emotions == tuple(map(Emotion, ("angry", "fear", "happy", "sad", "surprise")))
    whole = expected([0], [1])[:, [0, 2, 3, 4, 5]]
    np.testing.assert_allclose(model(crops())[0], whole / whole.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ('labls = ["a"]', LABELS, r'unknown key \'labls\' \(did you mean "labels"\?\)'),
        ('channels = "gray"', LABELS, "channels is one of grey, rgb, bgr, not 'gray'"),
        ("mean = [0.1, 0.2]", LABELS, "mean is a number or 1 of them"),
        ("std = 0", LABELS, "std not 0"),
        ("batch = 0", LABELS, "batch is a whole number above 0"),
        ('input = "y"', LABELS, "set input to one of x, not 'y'"),
        ("", '["angry", "hapy"]', r'label \'hapy\' is no emotion of mien\'s \(did you mean "happy"\?\)'),
        ("", '["angry", "angry"]', "at least two emotions, each once"),
        ("", '"angry"', "labels is a list of names"),
        ("= 3", LABELS, "cannot be read as TOML"),
    ],
)
def test_a_wrong_description_names_its_key(text: str, labels: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        open_model(foreign(tmp_path, text, labels=labels))


def test_a_description_without_its_file_or_keys(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('model = "b.onnx"')
    with pytest.raises(ModelError, match="lacks labels, size"):
        open_model(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(f'model = "b.onnx"\nlabels = {LABELS}\nsize = 48')
    with pytest.raises(ModelError, match=r"b\.onnx"):
        open_model(tmp_path / "a.toml")
    with pytest.raises(ModelError, match="cannot be read as TOML"):
        open_model(tmp_path / "none.toml")


def test_labels_and_shapes_are_held_against_what_the_file_answers(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"names 2 labels, but the model answers \[5, 7\]"):
        open_model(foreign(tmp_path, labels='["angry", "happy"]'))(crops())
    with pytest.raises(ModelError, match=r"cannot read input \[5, 3, 48, 48\] .* check .*their\.toml"):
        open_model(foreign(tmp_path, 'channels = "rgb"'))(crops())
    path = foreign(tmp_path)
    path.write_text(path.read_text().replace("logits", "probabilities"))
    with pytest.raises(ModelError, match="answers no probabilities"):
        open_model(path)(crops())


def test_written_models_pass_onnx(tmp_path: Path) -> None:
    """What the tests above read is a valid file: its errors are ours, not a broken fixture's."""
    onnx.checker.check_model(str(foreign(tmp_path).with_name("their.onnx")))
