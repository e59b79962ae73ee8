"""A recipe with a space to search, small enough for tests."""

from pathlib import Path

TINY = """
name = "tiny"
about = "A net of one block for cartoons."
[data]
size = 16
[net.options]
stem = 16
widths = [16]
depths = [1]
strides = [2]
[optimise]
name = "adamw"
rate = 3e-3
batch = 28
epochs = 2
ema = 0
precision = "32-true"
[claim]
document = "004"
variant = "faithful"
"""
SPACE = """
[search]
"optimise.rate" = { low = 1e-4, high = 1e-2, log = true }
"optimise.batch" = [14, 28]
"net.options.widths" = [[16], [32]]
"optimise.epochs" = { low = 1, high = 2 }
"""


def tiny(folder: Path, space: str = SPACE) -> str:
    """A small recipe with ``space``, written to ``folder``: its name for `mien search`."""
    path = folder / "tiny.toml"
    path.write_text(TINY + space)
    return str(path)
