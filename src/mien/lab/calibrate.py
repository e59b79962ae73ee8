"""Temperature scaling (Guo et al., ICML 2017): one number that makes confidences mean what they say."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from mien._errors import DataError


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in 0.05..20 that minimises the log loss of ``softmax(logits / temperature)`` against ``labels``.

    ``logits`` float32 ``[N, C]`` and ``labels`` int64 ``[N]`` come from PublicTest, never from the test split.
    """
    if len(logits) == 0:
        raise DataError("no PublicTest rows to fit the temperature on; the data set needs a validation split")

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x))
