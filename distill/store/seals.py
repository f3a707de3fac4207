"""JSON values, and pages, that hold a digest of themselves: damage and changes by hand are noticed.

What was written before there were such digests has none, and says nothing about itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from distill.store.files import digest_bytes, digest_json

SEAL = "digest"

_PAGE_END = re.compile(r"<!-- sha256 of all above: ([0-9a-f]{64}) -->\n\Z")


def sealed(value: Mapping[str, Any], seal: str = SEAL) -> dict[str, Any]:
    """A JSON object with its digest as one more key, the last.

    Args:
        value: JSON-able.
        seal: the key, another one where the object has a `digest` of something else.
    """
    content = unsealed(value, seal)
    return {**content, seal: digest_json(content)}


def unsealed(value: Mapping[str, Any], seal: str = SEAL) -> dict[str, Any]:
    """The object without its digest."""
    return {key: item for key, item in value.items() if key != seal}


def fits(value: Mapping[str, Any], seal: str = SEAL) -> bool | None:
    """Whether an object is what it was when it was sealed; None where it never was."""
    return value[seal] == digest_json(unsealed(value, seal)) if seal in value else None


def sealed_page(page: str) -> str:
    """An HTML page with a last line that holds its digest."""
    return f"{page}<!-- sha256 of all above: {digest_bytes(page.encode())} -->\n"


def page_fits(page: str) -> bool | None:
    """As `fits`, for `sealed_page`."""
    end = _PAGE_END.search(page)
    return digest_bytes(page[: end.start()].encode()) == end[1] if end else None
