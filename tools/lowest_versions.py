"""Print the lowest versions that `pyproject.toml` allows, as constraints for pip.

`python tools/lowest_versions.py serve video > lowest.txt; pip install -c lowest.txt ".[serve,video]"` installs them.
"""

import re
import sys
import tomllib
from pathlib import Path


def lowest_versions(project: dict, extras: list[str]) -> list[str]:
    """List the lowest versions of direct dependencies.

    Args:
        project: The table `project` of a `pyproject.toml`.
        extras: Names of extras whose dependencies are included.

    Returns:
        Lines such as `numpy==1.26`, sorted.

    Raises:
        KeyError: There is no such extra.
    """
    needed = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    pattern = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)")
    return sorted({"{}=={}".format(*match.groups()) for match in map(pattern.match, needed) if match})


if __name__ == "__main__":
    content = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    print("\n".join(lowest_versions(content["project"], sys.argv[1:])))
