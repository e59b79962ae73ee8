"""The conversion of BlazeFace: its parts by arithmetic, its result against the TFLite interpreter."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="the conversion needs onnx, which the lab extra brings")

from mien.detect.blazeface import INPUT_SIDE, MODEL

# By picture of `sample_images`: the anchor with the highest logit, the logit, its offsets (input pixels). Printed by
# `run_tflite` of the tool, which asked ai-edge-litert 2.3.0.
REFERENCE = {
    1: (674, 2.84564, [6.4346, 7.2604, 52.0538, 52.0448, -3.7171, -5.2643, 17.8405, -4.0948]),
    2: (724, 2.84665, [3.0245, 4.2857, 83.2481, 83.2335, -13.8385, -13.2891, 21.3002, -13.1091]),
    7: (730, 2.61486, [-3.8295, 4.5999, 82.2780, 82.2635, -20.6369, -11.9135, 15.1600, -12.8915]),
}


tool = importlib.import_module("blazeface")


@pytest.mark.parametrize("picture", REFERENCE)
def test_bundled_file_answers_like_tflite(picture: int) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    boxes, scores = session.run(["boxes", "scores"], {"image": tool.sample_images()})
    anchor, logit, offsets = REFERENCE[picture]
    assert scores.shape == (len(boxes), 896)
    assert scores[picture].argmax() == anchor
    assert scores[picture, anchor] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-3)
    np.testing.assert_allclose(boxes[picture, anchor, :8], offsets, atol=1e-3)


def test_batch_and_single_agree() -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    images: NDArray[np.uint8] = tool.sample_images()[:3]
    together = session.run(["scores"], {"image": images})[0]
    alone = [session.run(["scores"], {"image": image[None]})[0][0] for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert images.shape[1:] == (INPUT_SIDE, INPUT_SIDE, 3)


@pytest.mark.parametrize(("length", "kernel", "stride"), [(128, 5, 2), (64, 3, 1), (64, 3, 2), (32, 2, 2), (8, 1, 1)])
def test_same_padding_puts_the_odd_pixel_last(length: int, kernel: int, stride: int) -> None:
    options = types.SimpleNamespace(fusedActivationFunction=0, strideH=stride, strideW=stride)
    after = -(-length // stride)
    shape = (1, length, length, 4), (1, after, after, 4)
    pads = tool.window(options, *shape, (kernel, kernel))["pads"]
    begin, end = pads[0], pads[2]
    assert (length + begin + end - kernel) // stride + 1 == after
    assert end - begin in (0, 1)


def test_zeros_fill_whole_blocks() -> None:
    weights = np.ones((24, 28, 1, 1), np.float32)
    wide = tool.with_zeros(weights, tool.whole_blocks(24), tool.whole_blocks(28))
    assert wide.shape == (32, 32, 1, 1)
    assert wide.sum() == weights.sum() == wide[:24, :28].sum()
    assert tool.with_zeros(np.ones(24), 32, 32).tolist() == [1] * 24 + [0] * 8


def test_a_fused_activation_is_refused() -> None:
    with pytest.raises(SystemExit, match="fused activation"):
        tool.plain_options(types.SimpleNamespace(fusedActivationFunction=1))


def test_without_an_interpreter_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(SystemExit, match="pip install ai-edge-litert"):
        tool.load_tflite(b"")


def test_another_file_in_the_wheel_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr(tool.MEMBER, b"another network")
        archive.writestr(tool.LICENSE_MEMBER, "Apache License")
    with pytest.raises(SystemExit, match="not the file this tool knows"):
        tool.read_wheel(tmp_path / "other.whl")
