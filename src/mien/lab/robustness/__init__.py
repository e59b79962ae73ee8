"""Robustness of models to corrupted faces, in the manner of ImageNet-C (Hendrycks and Dietterich, ICLR 2019).

corruptions -> predictions -> metrics, groups -> run -> report, plots
"""

from mien.lab.robustness.corruptions import CORRUPTIONS, choose_corruptions
from mien.lab.robustness.run import RobustnessOptions, RobustnessResult, run_robustness

__all__ = ["CORRUPTIONS", "RobustnessOptions", "RobustnessResult", "choose_corruptions", "run_robustness"]
