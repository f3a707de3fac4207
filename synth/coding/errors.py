"""Errors of the ways to keep images."""

from __future__ import annotations


class CodingError(ValueError):
    """Coded images that are damaged or foreign, or settings that do not fit the images."""
