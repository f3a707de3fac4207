"""Channel statistics that the public code of the field normalises with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distill.data import Preprocess

_IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Source: `get_dataset` of DC, DSA, DM (Zhao and Bilen), copied into MTT, TESLA and DATM. The
# deviations of CIFAR-10 are means over single images there, smaller than those of all pixels.
STATISTICS: dict[str, Preprocess] = {
    "mnist": Preprocess((0.1307,), (0.3081,)),
    "fashion-mnist": Preprocess((0.2861,), (0.3530,)),
    "svhn": Preprocess((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": Preprocess((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Preprocess((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny-imagenet": _IMAGENET,
    "imagenet": _IMAGENET,
}

_CIFAR10 = STATISTICS["cifar10"]

# By the names that DD-Ranking gives to the data that it scores soft labels on. It normalises
# CIFAR-100 with the statistics of CIFAR-10. Source: ddranking 0.2.0, utils/data.py.
DDRANKING: dict[str, Preprocess] = {
    "CIFAR10": _CIFAR10,
    "CIFAR100": _CIFAR10,
    "TinyImageNet": _IMAGENET,
    "ImageNet1K": _IMAGENET,
}

# Its name, the number of classes, what a source's name holds, and some of the classes.
_KNOWN: tuple[tuple[str, int, str, frozenset[str]], ...] = (
    ("CIFAR100", 100, "cifar100", frozenset(("apple", "lawnmower", "wardrobe", "worm"))),
    ("CIFAR10", 10, "cifar10", frozenset(("airplane", "automobile", "frog", "truck"))),
    ("TinyImageNet", 200, "tinyimagenet", frozenset(("n01443537", "n01629819", "n12267677"))),
    ("ImageNet1K", 1000, "imagenet", frozenset(("n01440764", "n01443537", "n15075141"))),
)


def ddranking_name(source: str, class_names: Sequence[str]) -> str:
    """DD-Ranking's name of the real data, "" where it does not know them.

    Args:
        source: such as torchvision:CIFAR100, hf:uoft-cs/cifar100 or folder:data/tiny-imagenet-200.
        class_names: of all classes; they tell where the source does not.
    """
    written = re.sub(r"[^a-z0-9]", "", source.lower())
    for name, count, part, some in _KNOWN:
        if len(class_names) == count and (part in written or some <= set(class_names)):
            return name
    return ""
