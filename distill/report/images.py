"""Images as PNG data URIs, and the rows of the grid that compares synthetic with real ones."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.report.inputs import Pictures, ReportInput, class_name

MAX_SHOWN_CLASSES = 20

_MAX_SYNTHETIC = 10

_MAX_REAL = 5

_SHOWN_PIXELS = 52

_LARGEST_PIXELS = 96


@dataclass(frozen=True)
class Picture:
    """One image of the page: its index in its array, data URI, size in CSS pixels and alt text."""

    index: int
    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class ClassRow:
    """One class of the grid. `held` is how many synthetic images the class has in all."""

    name: str
    label: int
    held: int
    synthetic: list[Picture]
    real: list[Picture]


def png_data_uri(image: NDArray[Any]) -> str:
    """A `data:image/png` URI of one image.

    Args:
        image: [h, w, c] with 1 or 3 channels, in [0, 1]; values outside are clipped and values
            that are not finite become black.
    """
    pixels = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    bytes_ = np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
    picture = Image.fromarray(bytes_[..., 0] if bytes_.shape[-1] == 1 else bytes_)
    picture.thumbnail((_LARGEST_PIXELS, _LARGEST_PIXELS), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def shown_size(height: int, width: int) -> tuple[int, int]:
    """CSS (width, height) of an image: enlarged by a whole number if small, reduced if large."""
    longest = max(height, width)
    if longest > _LARGEST_PIXELS:
        factor = _LARGEST_PIXELS / longest
        return max(1, round(width * factor)), max(1, round(height * factor))
    scale = max(1, round(_SHOWN_PIXELS / longest))
    return width * scale, height * scale


def class_rows(report: ReportInput) -> list[ClassRow]:
    """The classes that have synthetic or real images, the first `MAX_SHOWN_CLASSES` of them."""
    labels = [int(label) for label in report.synthetic_labels]
    real_labels = [int(label) for label in report.real_labels]
    classes = sorted({*labels, *real_labels})[:MAX_SHOWN_CLASSES]
    rows = []
    for label in classes:
        name = class_name(report.class_names, label)
        rows.append(
            ClassRow(
                name=name,
                label=label,
                held=labels.count(label),
                synthetic=_pictures(report.synthetic, labels, label, f"Synthetic {name}"),
                real=_pictures(report.real, real_labels, label, f"Real {name}", _MAX_REAL),
            )
        )
    return rows


def first_pictures(report: ReportInput, label: int, name: str, most: int = 3) -> list[Picture]:
    """The first synthetic images of a class, for a page that shows several runs.

    Args:
        report: of the run.
        label: the class.
        name: of the run, for the images' texts.
        most: how many images.
    """
    labels = [int(other) for other in report.synthetic_labels]
    text = f"{name}: {class_name(report.class_names, label)}"
    return _pictures(report.synthetic, labels, label, text, most)


def _pictures(
    images: Pictures,
    labels: Sequence[int],
    label: int,
    alt: str,
    most: int = _MAX_SYNTHETIC,
) -> list[Picture]:
    if len(images) == 0:
        return []
    width, height = shown_size(*images.shape[1:3])
    # Large images cost kilobytes each: half as many keep the page light.
    most = most if max(images.shape[1:3]) <= _LARGEST_PIXELS else -(-most // 2)
    indices = [index for index, other in enumerate(labels) if other == label][:most]
    return [
        Picture(index, png_data_uri(images[index]), width, height, f"{alt}, image {number}")
        for number, index in enumerate(indices, start=1)
    ]
