"""Which characters are classes of `glyphs:K`, and which are left to train a base on.

All characters that the text fonts of matplotlib's wheel draw are split in two, once and for all:
the classes of `glyphs:K` (the file `glyphs.txt`) and the rest, on which the bundled CLIP base
`glyphclip` was trained. Characters with the same drawing in some face (a Latin, a Greek and a
Cyrillic "A") are on the same side, so that the base has seen no class under another name; a class
takes one of them, as lookalikes cannot be told apart.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

from distill.data.sources.faces import (
    OTHER_FACES,
    TEST_FACES,
    TRAIN_FACES,
    VALIDATION_FACES,
    code_points,
    drawings,
)

NUM_CLASSES = 1100

_CANVAS = 64  # pixels; drawings that agree at this size are the same

_CLASS_FACES = (*TRAIN_FACES, *VALIDATION_FACES, *TEST_FACES)


@lru_cache(maxsize=1)
def glyph_classes() -> tuple[tuple[str, str], ...]:
    """The classes of `glyphs:K` in their order, as pairs of character and name.

    The list is fixed in the file `glyphs.txt`, so that class 17 is the same for every version of
    Python and matplotlib. Its order is that of a hash: the first K are as mixed as all of them.
    """
    text = (resources.files("distill") / "data" / "glyphs.txt").read_text("utf-8")
    rows = (line.split(" ", 1) for line in text.splitlines())
    return tuple((chr(int(code, 16)), name) for code, name in rows)


def name_of(character: str) -> str:
    """The Unicode name in lower case, "" if there is none."""
    return unicodedata.name(character, "").lower()


def choose_classes(lookalikes: Iterable[frozenset[str]]) -> list[str]:
    """Choose the classes among sets of characters with the same drawing.

    A set qualifies if its first character is in every face of `glyphs:K`, and none is in
    ASCII: those teach a base the digits and letters that people write. Of those the first
    NUM_CLASSES in the order of a hash are taken, about one in two, from every script.

    Args:
        lookalikes: sets of characters, for example from `find_lookalikes`.

    Returns:
        One character of each chosen set, in the order of the classes.
    """
    everywhere = frozenset.intersection(*(code_points(face) for face in _CLASS_FACES))
    firsts = [min(group) for group in lookalikes if not any(c.isascii() for c in group)]
    eligible = [character for character in firsts if ord(character) in everywhere]
    return sorted(eligible, key=lambda c: hashlib.sha256(c.encode()).digest())[:NUM_CLASSES]


def find_lookalikes() -> list[frozenset[str]]:
    """Group all named characters that leave ink by equal drawings in some face.

    Spaces, combining marks and characters without a name are left out.
    Takes seconds.

    Returns:
        Disjoint sets, ordered by their first characters.
    """
    parent: dict[str, str] = {}

    def root(character: str) -> str:
        while parent.setdefault(character, character) != character:
            character = parent[character]
        return character

    for face in (*_CLASS_FACES, *OTHER_FACES):
        seen: dict[bytes, str] = {}
        known = sorted(chr(code) for code in code_points(face))
        for character, drawn in drawings(face, [c for c in known if _is_visible(c)], _CANVAS):
            first = root(seen.setdefault(drawn.tobytes(), character))
            low, high = sorted((first, root(character)))
            parent[high] = low
    groups: dict[str, set[str]] = {}
    for character in sorted(parent):
        groups.setdefault(root(character), set()).add(character)
    return [frozenset(groups[first]) for first in sorted(groups)]


def _is_visible(character: str) -> bool:
    # Categories: C control, format, private use and unassigned; Z separators; M marks.
    return unicodedata.category(character)[0] not in "CZM" and bool(name_of(character))
