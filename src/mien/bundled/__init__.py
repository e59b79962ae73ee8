"""The model files that come with mien, and which of them reads where nobody names one."""

from pathlib import Path

BUNDLED = Path(__file__).parent  # a folder a model: model.onnx, its card and licence
DEFAULT_MODEL = "mien-1"
