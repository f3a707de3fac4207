"""The families of views by name. Imports no torch; `synth.augment` has what they do."""

from __future__ import annotations

FAMILIES = ("colour", "crop", "cutout", "flip", "scale", "rotate", "resize", "zoom")

# What keeps a photo's class: all of DSA. Not for letters and digits, which a flip changes.
NAMED = {"photos": "colour_crop_cutout_flip_scale_rotate"}


def spelt_families(text: str) -> str:
    """The families that an augmentation such as "photos" stands for; any other as it is."""
    return NAMED.get(text, text)


def unknown_families(text: str) -> list[str]:
    """The names in a text such as "crop_flip" or "crop|flip" that are no families.

    "none" names none. A text with both signs has one name that is no family: "crop_flip|scale"
    would be one of two ways, the first of two families, which no augmentation draws.
    """
    names = () if text in ("", "none") else text.replace("color", "colour").split(sign_of(text))
    return [name for name in names if name not in FAMILIES]


def sign_of(text: str) -> str:
    """What joins the families of a text: "_" for all in turn, "|" for one of them a batch."""
    return "|" if "|" in text else "_"
