"""Writers of a set in formats of other programs; each gives the code that loads its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.sets.dataset import DistilledSet
from distill.sets.exchange.arrays import META, Archive
from distill.sets.exchange.published import DDRANKING, ddranking_name
from distill.sets.exchange.training_lines import of_arrays, of_tensors
from synth.images import gather


@dataclass(frozen=True)
class Written:
    """The files of an exported set.

    Attributes:
        files: file name -> what it holds.
        load: Python that loads them from the folder that holds the card.
        prepare: what follows it in the card to train a student, see `training_lines`.
        table: a Parquet file with the columns image, label and soft_label; "" for none.
    """

    files: dict[str, str]
    load: str
    prepare: Mapping[str, str] = field(default_factory=dict)
    table: str = ""


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
        of_tensors(data),
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
        of_arrays(data),
    )


def write_torch(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """All arrays of set.h5 as tensors, and its attributes as text; loads with weights_only."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in archive.arrays.items()}
    save_torch({**tensors, META: archive.meta()}, folder / "set.pt")
    return Written(
        {"set.pt": _ALL},
        "import torch\n"
        'tensors = torch.load("set.pt", weights_only=True)\n'
        'images, classes = tensors["images"], tensors["hard"].long()',
        of_tensors(data),
    )


def write_ddranking(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """images.pt, labels.pt and lr.pt, sorted by class, and settings for `ddranking`.

    Images are normalised with its statistics where it knows the data, however their source was
    named. Its random baseline takes classes to be blocks of one size, and it reads colours alone.
    Source: DD-Ranking 0.2.0.

    Raises:
        WorkError: for gray images, or classes of different sizes.
    """
    names = data.manifest["class_names"]
    counts = data.hard.bincount(minlength=len(names))
    if data.images.shape[1] != 3 or int(counts.min()) != int(counts.max()):
        raise WorkError(
            f"the set has {data.images.shape[1]} channels and {int(counts.min())} to "
            f"{int(counts.max())} images per class; DD-Ranking needs 3 channels and classes of "
            "one size: distil with data.channels = 3"
        )
    name = ddranking_name(data.manifest["source"]["name"], names)
    stored = gather(data.images)
    images = DDRANKING[name](data.preprocess.inverse(stored)) if name else stored
    order = torch.argsort(data.hard, stable=True)
    save_torch(images[order].contiguous(), folder / "images.pt")
    save_torch(data.labels.clamp(min=1e-8).log()[order].contiguous(), folder / "labels.pt")
    save_torch(torch.tensor(float(data.manifest["student_lr"])), folder / "lr.pt")
    files = {
        "images.pt": "float32, sorted by class, normalised with "
        + (f"DD-Ranking's statistics of {name}" if name else "this set's statistics"),
        "labels.pt": "label logits",
        "lr.pt": "the learned learning rate",
    }
    if name:
        files |= _write_demo(folder, name, int(counts.min()), stored)
    return Written(
        files,
        "import torch\n"
        'images = torch.load("images.pt", weights_only=True)\n'
        'labels = torch.load("labels.pt", weights_only=True)\n'
        'lr = torch.load("lr.pt", weights_only=True)',
    )


_DEMO_HEAD = """\
# Settings for DD-Ranking 0.2.0. It looks for the real data in real_data_path (CIFAR is downloaded
# to it), and for its teacher in teacher_dir/DATASET/MODEL/ckpt_best.pt.
"""

_DEMO = """\
import random
import torch
from ddranking.config import Config
from ddranking.metrics import LabelRobustScoreSoft


def random_data(eval_iter):
    # Version 0.2.0 cannot draw random images with soft labels by itself: two names are wrong.
    places = [place for c in score.class_to_indices for place in random.sample(c, score.ipc)]
    drawn = torch.stack([score.dst_train[place][0] for place in places])
    teacher = score.teacher_models[0]
    with torch.no_grad():
        parts = [teacher(part.to(score.device)).cpu() for part in drawn.split(256)]
    return None, drawn, torch.cat(parts)


if __name__ == "__main__":
    score = LabelRobustScoreSoft(Config.from_file("demo.yaml"))
    score._get_random_data_helper = random_data
    images, labels, lr = (torch.load(f"{name}.pt") for name in ("images", "labels", "lr"))
    print(score.compute_metrics(image_tensor=images, soft_labels=labels, syn_lr=lr))
"""

# ConvNets of the depth that this size is usually given, for which it knows how to train on all.
_DEMO_NETWORKS = {
    "CIFAR10": "ConvNet-3",
    "CIFAR100": "ConvNet-3",
    "TinyImageNet": "ConvNet-4-BN",
    "ImageNet1K": "ResNet-18-BN",
}


def _write_demo(folder: Path, name: str, ipc: int, images: Tensor) -> dict[str, str]:
    """Settings and a program for data that DD-Ranking knows; returns what the files hold."""
    settings = _ddranking_settings(name, ipc, images)
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
    (folder / "demo.yaml").write_text(_DEMO_HEAD + text, encoding="utf-8")
    (folder / "demo.py").write_text(_DEMO, encoding="utf-8")
    return {
        "demo.yaml": "settings of ddranking's LabelRobustScoreSoft",
        "demo.py": "computes that score",
    }


def _ddranking_settings(name: str, ipc: int, images: Tensor) -> dict[str, Any]:
    """All that `LabelRobustScoreSoft` reads from a `Config`, where what is missing is None."""
    model = _DEMO_NETWORKS[name]
    return {
        "dataset": name,
        "real_data_path": "./dataset/",
        "ipc": ipc,
        "im_size": list(images.shape[2:]),
        "model_name": model,
        "stu_use_torchvision": False,
        "teacher_dir": "./teacher_models",
        "teacher_model_names": [model],
        "tea_use_torchvision": False,
        "soft_label_mode": "S",
        "soft_label_criterion": "sce",
        "loss_fn_kwargs": {"temperature": 1.0, "scale_loss": False},
        "data_aug_func": "dsa",
        "aug_params": {
            "saturation": 2.0,
            "brightness": 1.0,
            "contrast": 0.5,
            "scale": 1.2,
            "rotate": 15.0,
            "flip": 0.5,
            "crop": 0.125,
            "cutout": 0.5,
            "siamese": False,
            "latestseed": -1,
        },
        "use_aug_for_hard": False,
        "use_zca": False,
        "optimizer": "sgd",
        "lr_scheduler": "step",
        "step_size": 500,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "num_epochs": 1000,
        "num_eval": 5,
        "real_batch_size": 256,
        "syn_batch_size": 256,
        "eval_full_data": True,
        "random_data_format": "tensor",
        "random_data_path": None,
        "custom_train_trans": None,
        "custom_val_trans": None,
        "num_workers": 4,
        "save_path": "./results/scores.csv",
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "dist": False,
    }


def save_torch(value: Any, path: Path) -> None:
    """As torch.save, which on a full disk hides the reason, or ends the process."""
    content = BytesIO()
    torch.save(value, content)
    path.write_bytes(content.getbuffer())
