"""The families of views by name. Imports no torch; `synth.augment` has what they do."""

from __future__ import annotations

FAMILIES = ("colour", "crop", "cutout", "flip", "scale", "rotate", "resize", "zoom")


def unknown_families(text: str) -> list[str]:
    """The names in a text such as "crop_flip" that are no families; "none" names none."""
    names = () if text in ("", "none") else text.replace("color", "colour").split("_")
    return [name for name in names if name not in FAMILIES]
