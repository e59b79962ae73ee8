"""An extension of griffe, which reads the docstrings for the site: doctests below ``Example:`` are shown as code.

griffe's parser knows the section ``Examples:`` alone, and would show ``>>>`` as a quotation.
"""

import re
from typing import Any

from griffe import Extension, Object


class DoctestExamples(Extension):
    """Renames the section in what griffe has read; the source stays as it is."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
