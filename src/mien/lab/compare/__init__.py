"""Models beside each other: paired tests, cost, disagreement, and the study of a family of recipes.

given names -> contenders (answers) -> common ground -> pairs, costs, disagreement -> Comparison -> files
a family -> its finished members -> Comparison, effects -> Study -> files
"""

from mien.lab.compare.compare import Comparison, compare, compare_entries
from mien.lab.compare.entries import Contender, Entries, found_answers, gather
from mien.lab.compare.report_study import keep_study, write_study
from mien.lab.compare.study import Study, study
from mien.lab.compare.write import keep_comparison, write_comparison

__all__ = [
    "Comparison",
    "Contender",
    "Entries",
    "Study",
    "compare",
    "compare_entries",
    "found_answers",
    "gather",
    "keep_comparison",
    "keep_study",
    "study",
    "write_comparison",
    "write_study",
]
