"""The one reader of pictures, for all sources: files, bytes or Pillow images to pixels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.pixels import resize_images, to_channels
from distill.data.splits import DataError

if TYPE_CHECKING:
    from PIL import Image

    Content = Path | bytes | Image.Image


_GRAY_MODES = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"))

_COLOUR_MODES = frozenset(("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"))

_LARGEST_16_BIT = 65535

# Pillow looks at a file's content, not at its name, and knows formats that start other programs.
# HEIF is known where pillow-heif is installed.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_ORIENTATION = 0x0112

# EXIF's orientation -> how stored rows and columns come to stand as the picture is shown.
_TURNS: dict[int, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}

# Those that exchange height and width.
_SIDEWAYS = (5, 6, 7, 8)

# A JPEG is decoded at a half, a quarter or an eighth where that leaves so many pixels for each one
# that is wanted; Pillow's manual calls 3 and more indistinguishable from decoding all of them.
_DRAFT = 3


class PictureError(DataError):
    """A picture that cannot be used: damaged, too large, or of values of an unknown range.

    Attributes:
        what: which picture, and what is wrong with it.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what + remedy)
        self.what = what


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is read when it is asked for.

    Attributes:
        name: in messages: a quoted path, or a row of a table.
        content: where it is: a file, its bytes, or a Pillow image.
    """

    name: str
    content: Callable[[], Content]

    def is_gray(self) -> bool:
        """Whether gray values rather than colours are stored; reads the header only.

        Raises:
            PictureError: when it is no readable picture, or one of floating or unknown values.
        """
        with self._opened() as image:
            return image.mode in _GRAY_MODES

    def mode(self) -> str:
        """How values are stored, as Pillow calls it: L, RGB, CMYK and so on; reads the header only.

        Raises:
            PictureError: as `is_gray`.
        """
        with self._opened() as image:
            return image.mode

    def shape(self) -> tuple[int, int]:
        """Height and width in pixels, as the picture is shown.

        Raises:
            PictureError: as `is_gray`.
        """
        with self._opened() as image:
            if image.format == "TIFF":
                # Pillow turns it as it loads it, and not all versions know its shape before.
                image.load()
            width, height = image.size
            if width != height and _orientation(image) in _SIDEWAYS:
                return width, height
            return height, width

    def read(self, size: int | None = None, channels: int | None = None) -> Tensor:
        """Decode the picture as it is shown: turned as its EXIF orientation says.

        Transparency is dropped, and an animation gives its first frame.

        Args:
            size: side in pixels, see `resize_images`; a JPEG of far more pixels is decoded at a
                fraction of its own size. None keeps the picture's own extent.
            channels: 1, 3, or None for the picture's own.

        Returns:
            float32 [c, h, w] in [0, 1].

        Raises:
            PictureError: when it is no whole picture, is larger than Pillow's limit against
                decompression bombs, or holds values of unknown range.
        """
        with self._opened() as image:
            if size is not None:
                image.draft(None, (_DRAFT * size, _DRAFT * size))
            image.load()
            values, largest = _values(image)
            values = _TURNS.get(_orientation(image), lambda a: a)(values)
        if size is not None:
            # Cut before the values become four times as large.
            values = _square(values)
        pixels = torch.from_numpy(values.astype(np.float32) / largest)
        pixels = pixels.unsqueeze(0) if values.ndim == 2 else pixels.permute(2, 0, 1)
        return resize_images(to_channels(pixels.contiguous().unsqueeze(0), channels), size)[0]

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        """Open the picture and translate every failure of reading it; checks the mode."""
        from PIL import Image

        try:
            with warnings.catch_warnings():
                # Other warnings, such as those of odd metadata, do not concern the pixels.
                warnings.simplefilter("ignore")
                # Pillow only warns up to twice its limit; a folder of unknown images needs a stop.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with _open(self.content()) as image:
                    self._check_mode(image)
                    yield image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise PictureError(
                f"{self.name} has more pixels than Pillow's limit against decompression bombs",
                ", a smaller image is needed; shrink or remove it",
            ) from error
        except DataError:
            raise
        except Exception as error:  # a damaged file may fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise PictureError(
                f"{self.name} cannot be read ({reason})",
                ", a whole image is needed; replace or remove it",
            ) from error

    def _check_mode(self, image: Image.Image) -> None:
        # Mode "I" is 32 bits wide, but in a PNG it holds 16-bit values (Pillow before 11.3).
        wide = image.mode == "I" and image.format != "PNG"
        if wide or image.mode not in _GRAY_MODES | _COLOUR_MODES:
            raise PictureError(
                f"{self.name} has Pillow mode {image.mode!r} whose value range is unknown",
                ", 8-bit or 16-bit gray or colours are needed; convert it",
            )


def picture_file(path: Path) -> Picture:
    """The picture in a file."""
    return Picture(repr(str(path)), partial(_no_pipe, path))


def is_picture(path: Path) -> bool:
    """Whether a file begins like a picture that can be read, whatever its name is."""
    try:
        picture_file(path).is_gray()
    except PictureError:
        return False
    return True


def _no_pipe(path: Path) -> Path:
    """The path; a pipe that nobody writes to would be waited for without an end."""
    if path.exists() and not path.is_file():
        raise OSError("it is a pipe, a device or a folder")
    return path


def reads_heif() -> bool:
    """Whether HEIC pictures, as phones take them, can be read: pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


@cache
def _learn_heif() -> None:
    """Tell Pillow of HEIF, once in a process. Its reader turns pictures itself."""
    if not reads_heif():
        return
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


@contextmanager
def _open(content: Content) -> Iterator[Image.Image]:
    from PIL import Image

    if isinstance(content, Image.Image):
        # Loaded first: a reduced decoding must not change the caller's image.
        content.load()
        yield content
        return
    Image.init()
    _learn_heif()
    known = [name for name in _FORMATS if name in Image.OPEN]
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(file, formats=known) as image:
        yield image


def _values(image: Image.Image) -> tuple[NDArray[np.generic], int]:
    """Stored values [h, w] or [h, w, 3] of a loaded image, and the largest that there can be."""
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255.
        return np.asarray(image), _LARGEST_16_BIT
    if image.mode in _GRAY_MODES:
        return np.asarray(image.convert("L")), 255
    # Through RGBA: Pillow warns when a palette with transparency loses it in one step.
    colours = image.convert("RGBA") if image.mode == "P" else image
    return np.asarray(colours.convert("RGB")), 255


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged metadata fail in any way, and viewers ignore them
        return 1
    return found if isinstance(found, int) else 1


def _square(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The central square of [h, w] or [h, w, c], where `resize_images` cuts it too."""
    height, width = values.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return values[top : top + side, left : left + side]
