"""What a report is made from, checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Pictures(Protocol):
    """Images [n, h, w, c] in [0, 1] read one by one; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number, height, width and channels: [n, h, w, c]."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """An image [h, w, c]."""
        ...


@dataclass(frozen=True)
class ReportInput:
    """Everything a report shows; nothing else is read, so equal inputs give equal pages.

    Accuracies are fractions in [0, 1]. Any part may be empty: its section is then left out.

    Attributes:
        title: The page's heading.
        recipe: The resolved recipe, table -> key -> value.
        manifest: `created`, `seed`, `versions`, `device`, `data` and `stages` of the run.
        summary: `students`, `controls`, `bytes`, `protocol` and `stages` of the evaluation.
        metrics: Rows of `metrics.jsonl`, each with a `stage`.
        synthetic: [n, h, w, c] synthetic images in [0, 1], un-normalised; clipped when shown.
        synthetic_labels: [n] class of each synthetic image.
        soft_labels: Label source -> [n, k] mean probabilities of each synthetic image.
        real: [m, h, w, c] real training images in [0, 1] to look at beside the synthetic ones.
        real_labels: [m] class of each real image.
        class_names: [k] names, in the order of the classes.
        sweep: Rows of a sweep's table (`points` of sweep.json), for the plot of bytes against
            accuracy; without them the plot shows the run's own label sources.

    Raises:
        ValueError: If images, labels and soft labels do not fit each other.
    """

    title: str
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    synthetic: Pictures
    synthetic_labels: Sequence[int]
    soft_labels: Mapping[str, NDArray[Any]]
    real: NDArray[Any]
    real_labels: Sequence[int]
    class_names: Sequence[str]
    sweep: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        _check_images("synthetic", self.synthetic, len(self.synthetic_labels))
        _check_images("real", self.real, len(self.real_labels))
        for source, labels in self.soft_labels.items():
            if np.ndim(labels) != 2 or len(labels) != len(self.synthetic):
                raise ValueError(
                    f"soft labels {source!r} have shape {np.shape(labels)}, "
                    f"but {len(self.synthetic)} synthetic images need [n, k]; "
                    "give one row of probabilities for each image"
                )


def _check_images(name: str, images: Pictures, labels: int) -> None:
    if len(images) != labels:
        raise ValueError(
            f"{name} images: {len(images)} came with {labels} labels; give one label for each image"
        )
    if len(images) and (len(images.shape) != 4 or images.shape[-1] not in (1, 3)):
        raise ValueError(
            f"{name} images have shape {images.shape}, but [n, h, w, c] with 1 or 3 channels "
            "is needed; move the channels last"
        )


def class_name(names: Sequence[str], index: int) -> str:
    """Name of a class, or its number where the names do not reach."""
    return str(names[index]) if 0 <= index < len(names) else f"class {index}"
