"""Parts of the lab's reports: a page that loads nothing, tables, plots that follow light and dark, galleries of faces.

Every function returns HTML as text; whatever text it is given is escaped, unless the name of the parameter is ``html``.
"""

from mien.lab.html.blocks import columns, details, facts, headline, note, page, paragraph, section, table, write_page
from mien.lab.html.figures import ACCENT, INK, LINE, MUTED, Tile, drawing, gallery, new_plot, picture, plot

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
