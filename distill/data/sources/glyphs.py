"""The `glyphs:K` source: K characters drawn in the fonts inside matplotlib's wheel."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.characters import glyph_classes
from distill.data.sources.faces import TEST_FACES, TRAIN_FACES, VALIDATION_FACES, draw_characters
from distill.data.splits import SourceError, Split

SIZE = 28

# Drawn this much larger than the image, so that a turned stroke keeps smooth edges.
_OVERSAMPLING = 2

# Images of each character in each face.
_TRAIN_COPIES = 10

_HELD_OUT_COPIES = 3

_SEED = 104

# The largest change of each jitter: turn in radians, shear, log of each axis' scale, and shift as
# a share of half the image.
_JITTER = (0.2, 0.15, 0.12, 0.12, 0.12, 0.12)


def read_glyphs(request: Request) -> SourceSplits:
    """K classes of gray 28x28 images, white ink on black: characters and their Unicode names.

    A training class has 60 images, 10 from each of 6 faces of DejaVu Sans and Serif; validation
    has 6 from two other weights of those; the test 12 from DejaVu Sans Mono, a family that is in
    neither. Each image is turned, sheared, scaled and shifted a little, by draws with a fixed
    seed. The first K of K + 1 classes have the same images. Nothing is stored: 1,000 classes
    (78,000 images, 245 MB) are drawn in some seconds.

    The bundled base `glyphclip` has seen none of these characters, nor any with the same
    drawing; see `distill.data.sources.characters`.

    Raises:
        SourceError: when K is missing, no number, or out of range.
        DataError: when matplotlib's fonts are not there.
    """
    classes = glyph_classes()[: _count(request)]
    characters = [character for character, _ in classes]
    return SourceSplits(
        train=_split(characters, TRAIN_FACES, _TRAIN_COPIES, 0),
        validation=_split(characters, VALIDATION_FACES, _HELD_OUT_COPIES, 1),
        test=_split(characters, TEST_FACES, _HELD_OUT_COPIES, 2),
        class_names=tuple(name for _, name in classes),
    )


def draw_jitter(count: int, seed: Sequence[int]) -> Tensor:
    """Draw affine maps, one for each of `count` images.

    Args:
        count: n.
        seed: whole numbers that name the draw; the first images of two draws that differ only in
            `count` get the same maps.

    Returns:
        float32 [n, 2, 3] maps from the output's coordinates to the input's, both in [-1, 1].
    """
    # RandomState's stream is frozen by NumPy's compatibility policy (NEP 19).
    unit = np.random.RandomState(list(seed)).uniform(-1, 1, (count, len(_JITTER)))
    turn, shear, wide, high, right, down = (unit * _JITTER).T
    cos, sin = np.cos(turn), np.sin(turn)
    # Turn after shear, each axis divided by its scale.
    rows = [
        [cos * np.exp(-wide), (shear * cos - sin) * np.exp(-wide), right],
        [sin * np.exp(-high), (shear * sin + cos) * np.exp(-high), down],
    ]
    return torch.from_numpy(np.array(rows, dtype=np.float32)).permute(2, 0, 1)


def apply_jitter(drawn: Tensor, maps: Tensor) -> Tensor:
    """Apply affine maps [n, 2, 3] to drawings [n, 1, h, w]; outside of them is no ink."""
    grid = functional.affine_grid(maps, list(drawn.shape), align_corners=False)
    return functional.grid_sample(drawn, grid, align_corners=False)


def _count(request: Request) -> int:
    most = len(glyph_classes())
    argument = request.argument
    if not (argument.isascii() and argument.isdecimal()):
        raise SourceError(
            f"source {request.source!r} names no number of characters; write it as glyphs:K with "
            f"K from 2 to {most}, for example glyphs:100"
        )
    if not 2 <= int(argument[:9]) <= most:
        raise SourceError(
            f"source {request.source!r} came, but the fonts hold 2 to {most} characters that can "
            f"be told apart in every face; write glyphs:{most} or less"
        )
    return int(argument)


def _split(characters: list[str], faces: Sequence[str], copies: int, part: int) -> Split:
    images = []
    for index, face in enumerate(faces):
        drawn = draw_characters(face, characters, SIZE * _OVERSAMPLING)
        large = torch.from_numpy(drawn).float().div_(255).unsqueeze(1)
        for copy in range(copies):
            maps = draw_jitter(len(characters), (_SEED, part, index, copy))
            # Means of values in [0, 1] can round to just above 1.
            small = functional.avg_pool2d(apply_jitter(large, maps), _OVERSAMPLING)
            images.append(small.clamp_(0, 1))
    labels = torch.arange(len(characters)).repeat(len(images))
    return Split(torch.cat(images), labels)
