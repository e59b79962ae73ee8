"""Parts of the lab's reports: a page that loads nothing, tables, plots that follow light and dark, galleries of faces.

Every function returns HTML as text; whatever text it is given is escaped, unless the name of the parameter is ``html``.
"""

from mien.lab.page.blocks import columns, details, facts, headline, note, paragraph, section, table
from mien.lab.page.faces import Tile, gallery, picture
from mien.lab.page.page import page, write_page
from mien.lab.page.plot import ACCENT, INK, LINE, MUTED, drawing, new_plot, plot

__all__ = [
    "ACCENT",
    "INK",
    "LINE",
    "MUTED",
    "Tile",
    "columns",
    "details",
    "drawing",
    "facts",
    "gallery",
    "headline",
    "new_plot",
    "note",
    "page",
    "paragraph",
    "picture",
    "plot",
    "section",
    "table",
    "write_page",
]
