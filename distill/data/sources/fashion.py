"""The `fashion-mnist` source: 70,000 real gray pictures of clothes, 28x28 pixels."""

from pathlib import Path

import torch
from torch import Tensor

from distill.data.batched import pixels_of_bytes
from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.idx import read_idx
from distill.data.splits import DataError, Split, check_label_range, check_labels

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def read_fashion_mnist(request: Request) -> SourceSplits:
    """Read the four idx files of a folder.

    Without a path the folder is that of the Debian package `dataset-fashion-mnist`. The files
    are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, each plain or with `.gz`.

    Source: Xiao, Rasul and Vollgraf 2017.

    Raises:
        DataError: when a file is missing or faulty, or images and labels do not fit.
    """
    folder = request.path() if request.argument else DEBIAN_FOLDER
    return SourceSplits(
        train=_read_split(folder, "train"),
        test=_read_split(folder, "t10k"),
        class_names=_NAMES,
    )


def _read_split(folder: Path, prefix: str) -> Split:
    image_file = _find(folder, f"{prefix}-images-idx3-ubyte")
    label_file = _find(folder, f"{prefix}-labels-idx1-ubyte")
    labels = torch.from_numpy(read_idx(label_file, 1)).long()
    images: Tensor = torch.from_numpy(read_idx(image_file, 3))
    check_labels(labels, len(images), repr(str(label_file)))
    check_label_range(labels, len(_NAMES), repr(str(label_file)))
    return Split(pixels_of_bytes(images.unsqueeze(1)), labels)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"Fashion-MNIST: no {name} (or {name}.gz) in {str(folder)!r}; install the Debian package "
        "`dataset-fashion-mnist` or name a folder with the four idx files: fashion-mnist:PATH"
    )
