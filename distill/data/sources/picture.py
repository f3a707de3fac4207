"""Read an image file with Pillow: its header or its pixels; every failure is a DataError."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from distill.data.splits import DataError

if TYPE_CHECKING:
    from PIL import Image


_GRAY_MODES = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"))

_COLOUR_MODES = frozenset(("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"))

_LARGEST_16_BIT = 65535

# Pillow looks at a file's content, not at its name, and knows formats that start other programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    Attributes:
        path: the file.
        width: in pixels.
        height: in pixels.
        gray: whether the file stores gray values rather than colours.
    """

    path: Path
    width: int
    height: int
    gray: bool


def read_header(path: Path) -> ImageHeader:
    """Read an image file's header only.

    Raises:
        DataError: when the file is no readable image, or one of floating or unknown values.
    """
    with _opened(path) as image:
        return ImageHeader(path, image.width, image.height, image.mode in _GRAY_MODES)


def read_image(path: Path) -> Tensor:
    """Read an image file.

    Args:
        path: an image of 8-bit or 16-bit gray values or of colours.

    Returns:
        float32 [1, h, w] for gray, [3, h, w] for colours, in [0, 1]; transparency is dropped.

    Raises:
        DataError: when the file is no whole image, is larger than Pillow's limit against
            decompression bombs, or holds values of unknown range.
    """
    with _opened(path) as image:
        image.load()
        if image.mode.startswith("I"):
            # Pillow would clip 16-bit values at 255.
            wide = np.asarray(image).astype(np.float32)
            return torch.from_numpy(wide / _LARGEST_16_BIT).unsqueeze(0)
        if image.mode in _GRAY_MODES:
            gray = np.array(image.convert("L"), dtype=np.float32)
            return torch.from_numpy(gray / 255).unsqueeze(0)
        # Through RGBA: Pillow warns when a palette with transparency loses it in one step.
        colours = image.convert("RGBA") if image.mode == "P" else image
        rgb = np.array(colours.convert("RGB"), dtype=np.float32)
        return torch.from_numpy(rgb / 255).permute(2, 0, 1).contiguous()


@contextmanager
def _opened(path: Path) -> "Iterator[Image.Image]":
    """Open an image and translate every failure of reading it; checks the mode."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Other warnings, such as those of odd metadata, do not concern the pixels.
            warnings.simplefilter("ignore")
            # Pillow only warns up to twice its limit; a folder of unknown images needs a stop.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _check_mode(path, image)
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{str(path)!r} has more pixels than Pillow's limit against decompression bombs, "
            "a smaller image is needed; shrink or remove it"
        ) from error
    except DataError:
        raise
    except Exception as error:  # a damaged file may fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{str(path)!r} cannot be read ({reason}), a whole image is needed; "
            "replace or remove it"
        ) from error


def _check_mode(path: Path, image: "Image.Image") -> None:
    # Mode "I" is 32 bits wide, but in a PNG it holds 16-bit values (Pillow before 11.3).
    wide = image.mode == "I" and image.format != "PNG"
    if wide or image.mode not in _GRAY_MODES | _COLOUR_MODES:
        raise DataError(
            f"{str(path)!r} has Pillow mode {image.mode!r} whose value range is unknown, 8-bit or "
            "16-bit gray or colours are needed; convert it"
        )
