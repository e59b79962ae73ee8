"""Models beside each other: paired tests, cost, disagreement, and the study of a family of recipes.

names of models -> entries (predictions) -> common rows -> paired tests, latency, disagreement -> Comparison -> files
a family -> its finished members -> Comparison, effects -> Study -> files
"""

from mien.lab.compare.compare import Comparison, compare, compare_entries
from mien.lab.compare.entries import Entries, ModelEntry, load_entries, recorded_folders
from mien.lab.compare.report_study import keep_study, write_study
from mien.lab.compare.study import Study, study
from mien.lab.compare.write import keep_comparison, write_comparison

__all__ = [
    "Comparison",
    "Entries",
    "ModelEntry",
    "Study",
    "compare",
    "compare_entries",
    "keep_comparison",
    "keep_study",
    "load_entries",
    "recorded_folders",
    "study",
    "write_comparison",
    "write_study",
]
