"""Readings -> JSON lines, CSV, Parquet, a data frame, an HTML page or annotated images.

Every writer is a context manager with ``add(reading)``. To add an output format, write such a class in a module of this
package, export it here, and open it in ``mien/commands/predict.py``.
"""

from mien._output import open_output
from mien.report.html import Html
from mien.report.images import AnnotatedImages
from mien.report.tables import Csv, JsonLines, Parquet, to_pandas

__all__ = ["AnnotatedImages", "Csv", "Html", "JsonLines", "Parquet", "open_output", "to_pandas"]
