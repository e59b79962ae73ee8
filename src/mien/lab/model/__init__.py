"""Anything that reads faces, opened for the lab: a model of mien, a file of the contract, a run, a foreign ONNX file.

open_model("mien-0") -> Model -> crops -> probabilities and maps
"""

from mien.lab.model.model import Model
from mien.lab.model.open import open_model

__all__ = ["Model", "open_model"]
