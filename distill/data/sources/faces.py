"""Characters drawn in the fonts that matplotlib's wheel carries: no download, no system font."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distill.data.splits import DataError

# The faces that training images of `glyphs:K` are drawn in, and those of validation and test. The
# test faces are a family of their own: a classifier meets other designs, not only other weights.
TRAIN_FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
)

VALIDATION_FACES = ("DejaVuSans-BoldOblique", "DejaVuSerif-BoldItalic")

TEST_FACES = (
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
)

# Text faces beside them, with fewer characters.
OTHER_FACES = (
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
)

# A glyph is drawn at this height of the em, as a share of the canvas, with its baseline here:
# accented capitals and descenders of every face then fit.
_EM = 0.70

_BASELINE = 0.72


def draw_characters(face: str, characters: Sequence[str], size: int) -> np.ndarray:
    """Draw characters in one face, each where a line of text would have it.

    Ink is centred horizontally, on a common baseline, so that a comma and an
    apostrophe differ; what would leave the canvas is moved inside.

    Args:
        face: a font file in matplotlib's wheel, without ".ttf".
        characters: n characters.
        size: height and width of the canvas in pixels.

    Returns:
        uint8 [n, size, size], 0 where there is no ink and 255 where it is full.

    Raises:
        DataError: when the face is not there or lacks one of the characters.
    """
    missing = [c for c in characters if ord(c) not in code_points(face)]
    if missing:
        raise DataError(
            f"font {face} lacks U+{ord(missing[0]):04X} ({len(missing)} characters in all), every "
            "one is needed; install the matplotlib that pyproject.toml asks for"
        )
    font = ImageFont.truetype(
        font_file(face), round(size * _EM), layout_engine=ImageFont.Layout.BASIC
    )
    drawn = np.empty((len(characters), size, size), dtype=np.uint8)
    for index, character in enumerate(characters):
        drawn[index] = _draw(font, character, size)
    return drawn


def drawings(face: str, characters: Sequence[str], size: int) -> Iterator[tuple[str, np.ndarray]]:
    """The characters that a face has and that leave ink, each with its drawing [size, size].

    A character whose drawing is the face's own sign for "missing" is left out.
    """
    own = [c for c in characters if ord(c) in code_points(face)]
    font = ImageFont.truetype(
        font_file(face), round(size * _EM), layout_engine=ImageFont.Layout.BASIC
    )
    missing = _draw(font, "\U0010ffff", size)
    for character in own:
        drawn = _draw(font, character, size)
        if drawn.any() and not np.array_equal(drawn, missing):
            yield character, drawn


@lru_cache(maxsize=32)
def code_points(face: str) -> frozenset[int]:
    """The code points that a face has a glyph for.

    Raises:
        DataError: when matplotlib has no such face.
    """
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font_file(face)).get_charmap())


def font_file(face: str) -> str:
    """The path of a face inside matplotlib's wheel.

    Raises:
        DataError: when it is not there.
    """
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    if not path.is_file():
        raise DataError(
            f"matplotlib has no font {face}.ttf in {str(path.parent)!r}, it is needed to draw "
            "glyphs; install matplotlib from its own wheel"
        )
    return str(path)


def _draw(font: ImageFont.FreeTypeFont, character: str, size: int) -> np.ndarray:
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    x = (size - (right - left)) // 2 - left
    y = round(size * _BASELINE)
    y = max(min(y, size - int(bottom)), -int(top))
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).text((x, y), character, fill=255, font=font, anchor="ls")
    return np.asarray(image)
