"""Ways to keep images in few bytes: what is learned, what it decodes to, and what it costs."""

from synth.coding.base import CODERS, ImageCoding, Shape
from synth.coding.bases import Bases
from synth.coding.container import (
    CODINGS,
    name_of,
    open_images,
    pack_images,
    settings_of,
    unpack_images,
)
from synth.coding.errors import CodingError
from synth.coding.frequency import Frequency
from synth.coding.palette import Palette
from synth.coding.pixels import Pixels
from synth.coding.rounded import Rounded
from synth.coding.tones import Tones

__all__ = [
    "CODERS",
    "CODINGS",
    "Bases",
    "CodingError",
    "Frequency",
    "ImageCoding",
    "Palette",
    "Pixels",
    "Rounded",
    "Shape",
    "Tones",
    "name_of",
    "open_images",
    "pack_images",
    "settings_of",
    "unpack_images",
]
