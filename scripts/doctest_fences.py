"""Show the doctests of docstrings as code in the API reference: a griffe extension, see mkdocs.yml.

Docstrings hold them as Python's own doctest wants them; Markdown would take `>>>` for a quotation.
"""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class DoctestFences(griffe.Extension):
    """Puts a fence round every doctest, up to the next empty line."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that was loaded."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(
                lambda match: f"```pycon\n{match.group()}\n```", obj.docstring.value
            )
