"""Write the generated pages of docs/: the command line's reference and the table of models. A test holds them fresh.

python tools/write_docs.py            write them
python tools/write_docs.py --check    exit 1 and name the pages that are not fresh
"""

import json
import sys
from pathlib import Path
from typing import Any

import typer

from mien.__main__ import app
from mien.infer import BUNDLED, bundled_models

DOCS = Path(__file__).resolve().parent.parent / "docs"


def command_line() -> str:
    """docs/cli.md: every command with its arguments and options, from the program itself."""
    group: Any = typer.main.get_command(app)
    parts = ["# The command line", "Written by `make docs` from the program itself; do not edit."]
    parts += [
        "Exit status: 0 fine; 1 some files failed, the others were read; 2 wrong use, or none was read; 130 stopped."
    ]
    for name, command in sorted(group.commands.items()):
        parts += [f"## mien {name}", command.help or "", _options(command)]
    return "\n\n".join(parts) + "\n"


def _options(command: Any) -> str:
    rows = ["| option | meaning | default |", "| --- | --- | --- |"]
    for parameter in command.params:
        names = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts) if o.startswith("-"))
        names = names or f"`{(parameter.metavar or parameter.name.upper()).strip('[]')}`"
        shown = (
            f"`{parameter.default}`"
            if isinstance(parameter.default, str | int | float) and parameter.default is not False
            else ""
        )
        text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
        rows.append(f"| {names} | {text} | {shown} |")
    return "\n".join(rows)


def models() -> str:
    """docs/models.md: the embedded models with the figures of their cards."""
    parts = ["# The embedded models", "Written by `make docs` from the models' own cards; do not edit."]
    for name in bundled_models():
        card = json.loads((BUNDLED / name / "card.json").read_text())
        parts.append(_headline(card))
        parts.append(
            (BUNDLED / name / "card.md")
            .read_text()
            .strip()
            .replace("\n# ", "\n## ")
            .replace("\n## ", "\n### ")
            .replace("# ", "## ", 1)
        )
    return "\n\n".join(parts) + "\n"


def _headline(card: dict[str, Any]) -> str:
    size = f"{card['parameters']:,} parameters, {card['macs'] / 1e6:.0f} MMAC a face"
    return f"`{card['name']}`: {size}, emotions: {', '.join(card['emotions'])}."


PAGES = {"cli.md": command_line, "models.md": models}


def main() -> int:
    """Write or check the pages; returns the exit status."""
    check, stale = "--check" in sys.argv[1:], []
    for name, write in PAGES.items():
        path, text = DOCS / name, write()
        if check and (not path.is_file() or path.read_text() != text):
            stale.append(name)
        elif not check:
            path.write_text(text)
            print(f"docs/{name}")
    if stale:
        print(f"not fresh: {', '.join(stale)}; run: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
