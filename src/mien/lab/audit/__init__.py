"""Audit of a data set: duplicates, leaks, contradicting labels, blanks, images without a face, likely label errors.

duplicates, label_errors -> audit (findings, faceless images, rows to leave out) -> report (JSON files and HTML page)
"""

from mien.lab.audit.audit import (
    DEFAULT_REASONS,
    REASONS,
    Audit,
    audit,
    audit_counts,
    audit_rows,
    exclude_list,
    load_faces,
    read_reasons,
)
from mien.lab.audit.label_errors import (
    OutOfFold,
    folds_folder,
    predict_unseen,
    read_probabilities,
    save_probabilities,
    train_folds,
)
from mien.lab.audit.report import audit_page, summarize_audit, write_audit

__all__ = [
    "DEFAULT_REASONS",
    "REASONS",
    "Audit",
    "OutOfFold",
    "audit",
    "audit_counts",
    "audit_page",
    "audit_rows",
    "exclude_list",
    "folds_folder",
    "load_faces",
    "predict_unseen",
    "read_probabilities",
    "read_reasons",
    "save_probabilities",
    "summarize_audit",
    "train_folds",
    "write_audit",
]
