"""Writers of a set in formats of other programs; each gives the code that loads its files."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.sets.dataset import DistilledSet
from distill.sets.exchange.arrays import META, Archive
from distill.sets.exchange.published import STATISTICS
from projectors.export.escapes import visible, yaml_text
from synth.images import gather


@dataclass(frozen=True)
class Written:
    """The files of an exported set.

    Attributes:
        files: file name -> what it holds.
        load: Python that loads them from the folder that holds the card.
    """

    files: dict[str, str]
    load: str


# Of a folder's name; file systems allow 255.
_NAME_BYTES = 200

# What spreadsheets take for a formula.
_FORMULA = ("=", "+", "-", "@")

_ALL = "images (normalised), hard, labels/learned (logits) and all else that set.h5 holds"


def write_safetensors(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """All arrays of set.h5, and its attributes as the metadata text."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(array) for name, array in archive.arrays.items()}
    save_file(arrays, folder / "set.safetensors", metadata={META: archive.meta()})
    return Written(
        {"set.safetensors": _ALL},
        "from safetensors.torch import load_file\n"
        'tensors = load_file("set.safetensors")\n'
        'images, classes = tensors["images"], tensors["hard"].long()',
    )


def write_npz(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """All arrays of set.h5, and its attributes as an array of text."""
    np.savez_compressed(
        folder / "set.npz", allow_pickle=False, **archive.arrays, **{META: np.array(archive.meta())}
    )
    return Written(
        {"set.npz": _ALL},
        "import numpy\n"
        'arrays = numpy.load("set.npz", allow_pickle=False)\n'
        'images, classes = arrays["images"], arrays["hard"]',
    )


def write_torch(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """All arrays of set.h5 as tensors, and its attributes as text; loads with weights_only."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in archive.arrays.items()}
    _save({**tensors, META: archive.meta()}, folder / "set.pt")
    return Written(
        {"set.pt": _ALL},
        "import torch\n"
        'tensors = torch.load("set.pt", weights_only=True)\n'
        'images, classes = tensors["images"], tensors["hard"].long()',
    )


def write_imagefolder(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """PNG files, one folder per class; pixels are clipped to [0, 1] and rounded to 8 bits."""
    _write_pictures(folder / "images", data)
    return Written(
        {"images/": "8-bit PNG, one folder per class in the order of the classes"},
        "from torchvision.datasets import ImageFolder\n"
        "from torchvision.transforms import ToTensor\n"
        'data = ImageFolder("images", transform=ToTensor())  # pixels, not yet normalised\n'
        "image, label = data[0]",
    )


def write_hf(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """A dataset repository: PNG files with classes and soft labels, and the exact tensors."""
    names = _write_pictures(folder / "train", data)
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
    )


def write_ddranking(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """images.pt, labels.pt and lr.pt, sorted by class, for `ddranking`.

    Images are normalised with its statistics where it knows the data. Its random baseline takes
    classes to be blocks of one size, and it reads colours alone. Source: DD-Ranking 0.2.0.

    Raises:
        WorkError: for gray images, or classes of different sizes.
    """
    counts = data.hard.bincount(minlength=len(data.manifest["class_names"]))
    if data.images.shape[1] != 3 or int(counts.min()) != int(counts.max()):
        raise WorkError(
            f"the set has {data.images.shape[1]} channels and {int(counts.min())} to "
            f"{int(counts.max())} images per class; DD-Ranking needs 3 channels and classes of "
            "one size: distil with data.channels = 3"
        )
    name = data.manifest["source"]["name"].partition(":")[2].lower()
    stored = gather(data.images)
    pixels = data.preprocess.inverse(stored)
    images = STATISTICS[name](pixels) if name in STATISTICS else stored
    order = torch.argsort(data.hard, stable=True)
    _save(images[order].contiguous(), folder / "images.pt")
    _save(data.labels.clamp(min=1e-8).log()[order].contiguous(), folder / "labels.pt")
    _save(torch.tensor(float(data.manifest["student_lr"])), folder / "lr.pt")
    ipc = int(counts.min())
    (folder / "demo.yaml").write_text(_ddranking_demo(name, ipc, stored), encoding="utf-8")
    space = f"published statistics of {name}" if name in STATISTICS else "this set's statistics"
    return Written(
        {
            "images.pt": f"float32, sorted by class, normalised with {space}",
            "labels.pt": "label logits",
            "lr.pt": "the learned learning rate",
            "demo.yaml": "settings for ddranking's LabelRobustScoreSoft",
        },
        "import torch\n"
        'images = torch.load("images.pt", weights_only=True)\n'
        'labels = torch.load("labels.pt", weights_only=True)\n'
        'lr = torch.load("lr.pt", weights_only=True)',
    )


def _save(value: Any, path: Path) -> None:
    """As torch.save, which on a full disk hides the reason, or ends the process."""
    content = BytesIO()
    torch.save(value, content)
    path.write_bytes(content.getbuffer())


def _write_pictures(root: Path, data: DistilledSet) -> list[str]:
    """PNG files below `root`; returns their names, in the order of the set.

    Folders are numbered: readers sort classes by the names of their folders.
    """
    from PIL import Image

    if data.images.shape[1] not in (1, 3):
        raise WorkError(
            f"the set has {data.images.shape[1]} channels, pictures have 1 or 3; export it as "
            "safetensors or npz"
        )
    pixels = data.preprocess.inverse(gather(data.images)).clamp(0, 1)
    shown = (pixels * 255).round().to(torch.uint8)
    names = []
    for index, image in enumerate(shown):
        label = int(data.hard[index])
        name = f"{class_folder(label, data.manifest['class_names'][label])}/{index:06d}.png"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_picture(image)).save(path)
        names.append(name)
    return names


def _picture(image: Tensor) -> np.ndarray:
    """[h, w] for gray, [h, w, 3] for colours."""
    return np.asarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def class_folder(label: int, name: str) -> str:
    """A folder's name for a class: its number, and its name in portable characters."""
    safe = re.sub(r"[^\w .+-]", "_", name)[:80].encode()[:_NAME_BYTES].decode(errors="ignore")
    return f"{label:05d}-{safe}"


def csv_text(text: str) -> str:
    """A name in a cell: on one line, and with an apostrophe before what programs would compute."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _ddranking_demo(name: str, ipc: int, images: Tensor) -> str:
    """Settings that its `Config.from_file` reads."""
    known = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "tiny-imagenet": "TinyImageNet"}
    return (
        f"dataset: {yaml_text(known.get(name, name or 'CIFAR10'))}\nipc: {ipc}\n"
        f"im_size: [{images.shape[2]}, {images.shape[3]}]\nmodel_name: ConvNet-3\n"
        "soft_label_mode: S\nsoft_label_criterion: sce\ndata_aug_func: dsa\n"
        "eval_full_data: true\ndevice: cuda\n"
    )
