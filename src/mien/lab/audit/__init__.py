"""What is wrong with a set of faces: copies, leaks, contradictions, blanks, non-faces, labels that are likely wrong.

faces -> fingerprint -> near -> copies; content; votes; folds -> label_errors; against -> audit -> exclude, report
"""

from mien.lab.audit.audit import Audit, audit, figures, listed
from mien.lab.audit.exclude import DEFAULT_REASONS, REASONS, exclude_text, read_reasons
from mien.lab.audit.report import report

__all__ = [
    "DEFAULT_REASONS",
    "REASONS",
    "Audit",
    "audit",
    "exclude_text",
    "figures",
    "listed",
    "read_reasons",
    "report",
]
