"""Writers of a set as pictures: a folder for each class, or a dataset repository."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.sets.dataset import DistilledSet
from distill.sets.exchange.arrays import Archive
from distill.sets.exchange.export_formats import Written, write_safetensors
from distill.sets.exchange.training_lines import of_pictures
from projectors.export.escapes import visible
from synth.images import gather

if TYPE_CHECKING:
    from PIL import Image

_SOFT = "labels.npy"

# Of a folder's name; file systems allow 255.
_NAME_BYTES = 200

# What spreadsheets take for a formula.
_FORMULA = ("=", "+", "-", "@")


def write_imagefolder(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """PNG files, one folder per class, which `torchvision.datasets.ImageFolder` opens.

    Pixels are clipped to [0, 1] and rounded to 8 bits. Soft labels lie beside, in its order.
    """
    names = data.manifest["class_names"]
    folders = ordered_folders(names)
    _write_pictures(folder, data, folders)
    order = torch.argsort(data.hard, stable=True)
    np.save(folder / _SOFT, data.labels[order].float().numpy(), allow_pickle=False)
    counts = data.hard.bincount(minlength=len(names))
    for name, count in zip(folders, counts.tolist(), strict=True):
        if not count:
            (folder / name).mkdir()
    empty = "" if bool(counts.all()) else ", allow_empty=True"
    gray = "transforms.Grayscale(), " if data.images.shape[1] == 1 else ""
    named = "classes by their names" if folders == list(names) else "classes by number and name"
    return Written(
        {
            "*/": f"8-bit PNG, one folder per class: {named}, in their order",
            _SOFT: "soft labels [n, k], float32: a row of probabilities for each picture",
        },
        "import numpy\n"
        "from torchvision import datasets, transforms\n"
        f"pixels = transforms.Compose([{gray}transforms.ToTensor()])  # not yet normalised\n"
        f'data = datasets.ImageFolder(".", transform=pixels{empty})\n'
        f'soft = numpy.load("{_SOFT}")  # row i belongs to data[i]',
        of_pictures(data),
    )


def write_hf(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """A dataset repository: PNG files with classes and soft labels, and the exact tensors."""
    classes = data.manifest["class_names"]
    folders = [class_folder(label, name) for label, name in enumerate(classes)]
    names = _write_pictures(folder / "train", data, folders)
    with (folder / "train" / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "class", "class_name", "soft_label"])
        for index, name in enumerate(names):
            label = int(data.hard[index])
            soft = json.dumps([round(float(value), 6) for value in data.labels[index]])
            rows.writerow([name, label, csv_text(data.manifest["class_names"][label]), soft])
    exact = write_safetensors(folder, data, archive)
    return Written(
        {"train/": "8-bit PNG with metadata.csv: class and soft label", **exact.files},
        "from datasets import load_dataset\n"
        'data = load_dataset("imagefolder", data_dir=".", split="train")\n'
        'image, label = data[0]["image"], data[0]["class"]',
        {source: f"{exact.load}\n{lines}" for source, lines in exact.prepare.items()},
    )


def _write_pictures(root: Path, data: DistilledSet, folders: Sequence[str]) -> list[str]:
    """PNG files below `root`, in a folder for each class; returns their names, in the set's order.

    Within a class, names are in the order of the set.
    """
    names, digits = [], max(6, len(str(len(data) - 1)))
    for index, picture in enumerate(pictures_of(data)):
        name = f"{folders[int(data.hard[index])]}/{index:0{digits}d}.png"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        names.append(name)
    return names


def pictures_of(data: DistilledSet) -> Iterator[Image.Image]:
    """The images of a set as 8-bit pictures, in its order.

    Raises:
        WorkError: for images that are neither gray nor RGB.
    """
    if data.images.shape[1] not in (1, 3):
        raise WorkError(
            f"the set has {data.images.shape[1]} channels, pictures have 1 or 3; export it as "
            "safetensors or npz"
        )
    from PIL import Image

    pixels = data.preprocess.inverse(gather(data.images)).clamp(0, 1)
    for image in (pixels * 255).round().to(torch.uint8):
        yield Image.fromarray(_picture(image))


def _picture(image: Tensor) -> np.ndarray:
    """[h, w] for gray, [h, w, 3] for colours."""
    return np.asarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def ordered_folders(names: Sequence[str]) -> list[str]:
    """Folders of classes whose sorted order is that of the classes.

    They are the classes' names where these are portable and sorted already, as those of a folder
    of classes are; else a number stands before each.
    """
    kept = list(names)
    apart = {name.casefold() for name in kept}
    if (
        kept == sorted(kept)
        and len(apart) == len(kept)
        and not apart & {_SOFT, "readme.md", "croissant.json"}
        and all(name and _portable(name) == name == name.strip(" .") for name in kept)
    ):
        return kept
    return [class_folder(label, name) for label, name in enumerate(kept)]


def class_folder(label: int, name: str) -> str:
    """A folder's name for a class: its number, and its name in portable characters."""
    return f"{label:05d}-{_portable(name)}"


def _portable(name: str) -> str:
    return re.sub(r"[^\w .+-]", "_", name)[:80].encode()[:_NAME_BYTES].decode(errors="ignore")


def csv_text(text: str) -> str:
    """A name in a cell: on one line, and with an apostrophe before what programs would compute."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
