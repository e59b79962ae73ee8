"""The description for package indexes: README.md, whose links into the repository would lead nowhere there.

Everything else about the package is in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import setup

REPOSITORY = ""  # the address that the paths in README.md are relative to, ending in "/"; empty: there is none yet


def describe(readme: str, repository: str = REPOSITORY) -> str:
    """Return README.md with absolute links, or, without a repository, without relative links and images."""
    relative = r"\]\((?!https?:|mailto:)([^)\s]+)\)"
    if repository:
        return re.sub(relative, lambda match: f"]({repository}{match[1]})", readme)
    without_images = re.sub(rf"!\[[^\]]*{relative}\n*", "", readme)
    return re.sub(rf"\[([^\]]+){relative}", r"\1", without_images)


if __name__ == "__main__":  # as setuptools runs it
    readme = Path(__file__).with_name("README.md").read_text("utf-8")
    setup(long_description=describe(readme), long_description_content_type="text/markdown")
