"""The drawings that glyphclip is trained on: no class of `glyphs:K` and no image of handwriting."""

import string
import unicodedata
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.data.sources.characters import choose_classes
from distill.data.sources.faces import (
    OTHER_FACES,
    TRAIN_FACES,
    VALIDATION_FACES,
    draw_characters,
    drawings,
)
from glyphclip.pens import draw_digits, thin

SIZE = 48  # height and width of every drawing in pixels
# The faces of glyphs:K's validation and test are not among them.
FACES = (*TRAIN_FACES, *OTHER_FACES)
# TeX's faces have letters and digits at their ASCII codes, but other signs elsewhere.
TEX_FACES = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")
LETTERS = string.digits + string.ascii_letters
_FIRST_STYLED, _LAST_STYLED = 0x1D400, 0x1D7FF  # mathematical alphanumeric symbols
_PENS = (0.05, 0.09)  # widths
# Pen digits are few beside some 60 printed ones each; with this they are about a third.
_PEN_SHARE = 4


@dataclass(frozen=True, eq=False)
class Pictures:
    """Drawings and what they show.

    Attributes:
        characters: the characters of each class, which look the same; the first is ASCII if any.
        drawn: uint8 [m, SIZE, SIZE], 255 where there is ink.
        classes: int64 [m], the class of each drawing, ascending.
        boxes: float32 [m, 4], middle (x, y) and half width and height of the ink in [-1, 1].
    """

    characters: list[list[str]]
    drawn: Tensor
    classes: Tensor
    boxes: Tensor


def base_characters(lookalikes: list[frozenset[str]]) -> list[list[str]]:
    """The characters that the base may see, as sets with the same drawing; ASCII first."""
    held_out = set(choose_classes(lookalikes))
    groups = [group for group in lookalikes if min(group) not in held_out]
    # Mathematical letters are other drawings of plain ones, not other letters.
    kept = [sorted(c for c in group if not _plain(c)) for group in groups]
    return sorted(filter(None, kept), key=lambda group: (not group[0].isascii(), group))


def draw_training(characters: list[list[str]]) -> Pictures:
    """All drawings in the training faces, with mathematical letters, pens and thinned letters."""
    class_of = {c: k for k, group in enumerate(characters) for c in group}
    pairs: list[tuple[int, np.ndarray]] = []
    for face in FACES:
        pairs += _in_face(face, characters)
        styled = drawings(face, MATHEMATICAL, SIZE)
        pairs += [(class_of[_plain(c)], d) for c, d in styled]
    for face in TEX_FACES:
        tex = draw_characters(face, LETTERS, SIZE)
        pairs += [(class_of[c], d) for c, d in zip(LETTERS, tex, strict=True)]
    plain = [(k, d) for k, d in pairs if characters[k][0] in LETTERS]
    thinned = thin(np.pad(np.stack([d for _, d in plain]), ((0, 0), (1, 1), (1, 1))))
    thinned = thinned[:, 1:-1, 1:-1]
    pairs += [(k, d) for (k, _), d in zip(plain, _widen(thinned), strict=True)]
    pens = [(class_of[c], d) for pen in _PENS for c, d in draw_digits(SIZE, pen)]
    pairs += pens * _PEN_SHARE
    return _gather(characters, pairs)


def draw_held_out(characters: list[list[str]]) -> Pictures:
    """Those of the characters that the two faces have which `glyphs:K` validates in."""
    pairs = [pair for face in VALIDATION_FACES for pair in _in_face(face, characters)]
    return _gather(characters, pairs)


def _in_face(face: str, characters: list[list[str]]) -> list[tuple[int, np.ndarray]]:
    flat = [(c, k) for k, group in enumerate(characters) for c in group]
    drawn = dict(drawings(face, [c for c, _ in flat], SIZE))
    # Lookalikes in one face may differ in another: each of them counts.
    return [(k, drawn[c]) for c, k in flat if c in drawn]


def _plain(character: str) -> str:
    """The ASCII letter or digit that a mathematical one is a style of, or ""."""
    if not _FIRST_STYLED <= ord(character) <= _LAST_STYLED:
        return ""
    plain = unicodedata.normalize("NFKC", character)
    return plain if plain in LETTERS and len(plain) == 1 else ""


# Bold, slanted, script, Gothic, double-struck and other forms of ASCII letters and digits.
MATHEMATICAL = [c for c in map(chr, range(_FIRST_STYLED, _LAST_STYLED + 1)) if _plain(c)]


def _widen(lines: np.ndarray) -> np.ndarray:
    """Lines of one pixel, made three pixels wide."""
    wide = np.maximum(lines, np.maximum(np.roll(lines, 1, 1), np.roll(lines, -1, 1)))
    return np.maximum(wide, np.maximum(np.roll(lines, 1, 2), np.roll(lines, -1, 2)))


def _gather(characters: list[list[str]], pairs: list[tuple[int, np.ndarray]]) -> Pictures:
    """Sort drawings by class and drop the classes that none of them shows."""
    pairs = sorted(pairs, key=lambda pair: pair[0])
    drawn = np.stack([d for _, d in pairs])
    shown, classes = np.unique([k for k, _ in pairs], return_inverse=True)
    return Pictures(
        [characters[k] for k in shown],
        torch.from_numpy(drawn),
        torch.from_numpy(classes),
        torch.from_numpy(np.stack([_box(d) for d in drawn])),
    )


def _box(drawn: np.ndarray) -> np.ndarray:
    spans = []
    for axis in (0, 1):
        inked = np.flatnonzero(drawn.max(axis=axis) > 32)
        low, high = (inked[0], inked[-1] + 1) if len(inked) else (0, SIZE)
        spans.append((low / SIZE * 2 - 1, high / SIZE * 2 - 1))
    (left, right), (top, bottom) = spans
    middle = ((left + right) / 2, (top + bottom) / 2)
    return np.array([*middle, (right - left) / 2, (bottom - top) / 2], dtype=np.float32)
