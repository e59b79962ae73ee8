"""Comparison of models on the same faces: paired tests, cost, disagreement, and studies of a family of recipes.

names of models -> entries (predictions) -> common rows -> tests, latency, disagreement -> Comparison -> report, files
a family -> its finished members -> Comparison and effects: Study -> report, files
"""

from mien.lab.compare.compare import Comparison, compare
from mien.lab.compare.entries import recorded_folders
from mien.lab.compare.report import summarize_comparison
from mien.lab.compare.study import Study, compare_family
from mien.lab.compare.write import write_comparison

__all__ = [
    "Comparison",
    "Study",
    "compare",
    "compare_family",
    "recorded_folders",
    "summarize_comparison",
    "write_comparison",
]
