"""Readings -> JSON lines, CSV, Parquet or a page to look at. Every sink is a context manager with ``add(reading)``."""

from mien._output import open_output
from mien.report.html import Html
from mien.report.tables import Csv, JsonLines, Parquet

__all__ = ["Csv", "Html", "JsonLines", "Parquet", "open_output"]
