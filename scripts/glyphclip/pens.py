"""Digits as people write them, and thin lines out of printed ones.

Printed digits lack forms that hands use: a 1 without a foot, an open 4, a 7 with a bar. The
forms here were written down from common knowledge, as strokes in a unit square (x to the right,
y down); no image of handwriting was looked at.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

Stroke = list[tuple[float, float]]
_SUPERSAMPLING = 4


def arc(x: float, y: float, wide: float, high: float, start: float, end: float) -> Stroke:
    """Points of an elliptic arc; angles in degrees, 0 to the right, 90 downwards."""
    angles = [math.radians(start + (end - start) * step / 16) for step in range(17)]
    return [(x + wide * math.cos(a), y + high * math.sin(a)) for a in angles]


DIGITS: dict[str, list[list[Stroke]]] = {
    "0": [
        [arc(0.5, 0.5, 0.3, 0.45, -90, 270)],
        [arc(0.5, 0.5, 0.42, 0.45, -90, 270)],
        [arc(0.5, 0.5, 0.2, 0.45, -60, 320)],
        [[*arc(0.5, 0.52, 0.33, 0.43, -120, 200), (0.35, 0.12)]],
    ],
    "1": [
        [[(0.5, 0.05), (0.5, 0.95)]],
        [[(0.58, 0.05), (0.44, 0.95)]],
        [[(0.34, 0.24), (0.54, 0.05), (0.54, 0.95)]],
        [[(0.36, 0.2), (0.52, 0.05), (0.52, 0.95)], [(0.32, 0.95), (0.72, 0.95)]],
        [[(0.25, 0.4), (0.58, 0.05), (0.5, 0.95)]],
    ],
    "2": [
        [[*arc(0.5, 0.3, 0.28, 0.25, -170, 30), (0.22, 0.95), (0.8, 0.95)]],
        [[*arc(0.48, 0.28, 0.26, 0.23, -160, 40), (0.2, 0.92)], [(0.2, 0.92), (0.82, 0.9)]],
        [
            [
                *arc(0.5, 0.28, 0.24, 0.23, -170, 50),
                (0.3, 0.82),
                *arc(0.3, 0.84, 0.12, 0.09, 180, 400),
                (0.6, 0.95),
                (0.85, 0.88),
            ]
        ],
        [[(0.22, 0.12), (0.7, 0.08), (0.74, 0.3), (0.24, 0.93), (0.8, 0.93)]],
    ],
    "3": [
        [arc(0.45, 0.28, 0.25, 0.23, -150, 90) + arc(0.45, 0.73, 0.3, 0.23, -90, 150)],
        [[(0.22, 0.06), (0.74, 0.06), (0.44, 0.42), *arc(0.44, 0.68, 0.3, 0.27, -90, 150)]],
        [arc(0.42, 0.28, 0.3, 0.22, -120, 80) + arc(0.42, 0.72, 0.34, 0.24, -80, 120)],
    ],
    "4": [
        [[(0.3, 0.05), (0.2, 0.55), (0.82, 0.55)], [(0.68, 0.15), (0.64, 0.95)]],
        [[(0.62, 0.95), (0.62, 0.05), (0.16, 0.65), (0.85, 0.65)]],
        [[(0.24, 0.08), (0.24, 0.48), (0.74, 0.48)], [(0.74, 0.05), (0.74, 0.95)]],
        [[(0.46, 0.03), (0.16, 0.6), (0.84, 0.6)], [(0.6, 0.35), (0.56, 0.97)]],
        [[*arc(0.5, 0.1, 0.28, 0.42, 190, 90), (0.72, 0.48)], [(0.76, 0.05), (0.6, 0.95)]],
    ],
    "5": [
        [[(0.76, 0.05), (0.3, 0.05), (0.26, 0.42), *arc(0.45, 0.67, 0.3, 0.27, -120, 140)]],
        [[(0.3, 0.06), (0.28, 0.42), *arc(0.44, 0.68, 0.3, 0.26, -110, 140)],
         [(0.3, 0.06), (0.78, 0.06)]],
        [[(0.84, 0.08), (0.42, 0.08), (0.3, 0.44), (0.6, 0.48), (0.64, 0.76), (0.2, 0.93)]],
    ],
    "6": [
        [[(0.66, 0.05), (0.36, 0.4), *arc(0.5, 0.7, 0.26, 0.25, 190, -180)]],
        [[(0.4, 0.03), (0.26, 0.5), *arc(0.48, 0.72, 0.24, 0.23, 180, -190)]],
        [arc(0.6, 0.5, 0.34, 0.45, -80, -180) + arc(0.5, 0.7, 0.24, 0.24, 180, -200)],
    ],
    "7": [
        [[(0.2, 0.07), (0.8, 0.07), (0.42, 0.95)]],
        [[(0.2, 0.07), (0.8, 0.07), (0.42, 0.95)], [(0.34, 0.5), (0.76, 0.48)]],
        [[(0.18, 0.22), (0.2, 0.07), (0.78, 0.09), (0.52, 0.5), (0.46, 0.95)]],
        [[(0.16, 0.12), (0.82, 0.05), (0.5, 0.95)], [(0.3, 0.52), (0.86, 0.44)]],
    ],
    "8": [
        [arc(0.5, 0.27, 0.22, 0.22, 90, 450) + arc(0.5, 0.72, 0.27, 0.24, -90, 270)],
        [
            [
                (0.74, 0.14),
                *arc(0.48, 0.24, 0.22, 0.2, -40, -240),
                (0.66, 0.58),
                *arc(0.48, 0.76, 0.24, 0.2, -40, 220),
                (0.74, 0.14),
            ]
        ],
        [arc(0.5, 0.26, 0.16, 0.22, 90, 450) + arc(0.5, 0.72, 0.18, 0.24, -90, 270)],
    ],
    "9": [
        [[*arc(0.48, 0.3, 0.25, 0.25, 0, -360), (0.7, 0.95)]],
        [[*arc(0.46, 0.3, 0.26, 0.24, -20, -370), (0.7, 0.6), *arc(0.45, 0.7, 0.25, 0.25, 0, 130)]],
        [[*arc(0.5, 0.28, 0.22, 0.22, -30, -340), (0.72, 0.2), (0.56, 0.95)]],
    ],
}  # fmt: skip


def draw_digits(size: int, width: float) -> list[tuple[str, np.ndarray]]:
    """Every form of every digit, as the digit and its drawing.

    Args:
        size: height and width of the drawing in pixels.
        width: of the pen, as a share of the height.

    Returns:
        Pairs of a digit and uint8 [size, size], 255 where the pen went.
    """
    return [
        (digit, _draw(strokes, size, width)) for digit, forms in DIGITS.items() for strokes in forms
    ]


def thin(drawn: np.ndarray) -> np.ndarray:
    """Shrink strokes to lines one pixel wide.

    Source: Zhang and Suen 1984, "A fast parallel algorithm for thinning digital patterns".

    Args:
        drawn: uint8 [n, h, w], with a margin of at least a pixel.

    Returns:
        uint8 [n, h, w], 0 or 255.
    """
    ink = drawn > 127
    while True:
        before = ink.sum()
        for first in (True, False):
            ink = ink & ~_removable(ink, first)
        if ink.sum() == before:
            return ink.astype(np.uint8) * 255


def _removable(ink: np.ndarray, first: bool) -> np.ndarray:
    # Neighbours from north, clockwise: P2 ... P9 of the paper.
    shifts = [(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)]
    around = np.stack([np.roll(ink, shift, axis=(1, 2)) for shift in shifts])
    count = around.sum(axis=0)
    rises = (~around & np.roll(around, -1, axis=0)).sum(axis=0)
    north, east, south, west = around[0], around[2], around[4], around[6]
    if first:
        open_sides = ~(north & east & south) & ~(east & south & west)
    else:
        open_sides = ~(north & east & west) & ~(north & south & west)
    return ink & (count >= 2) & (count <= 6) & (rises == 1) & open_sides


def _draw(strokes: list[Stroke], size: int, width: float) -> np.ndarray:
    large = size * _SUPERSAMPLING
    image = Image.new("L", (large, large))
    canvas = ImageDraw.Draw(image)
    pen = width * large
    # A margin, so that the whole pen stays on the canvas.
    inner = large - 2 * pen
    for stroke in strokes:
        points = [(pen + x * inner, pen + y * inner) for x, y in stroke]
        canvas.line(points, fill=255, width=round(pen), joint="curve")
        for x, y in (points[0], points[-1]):
            canvas.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))
