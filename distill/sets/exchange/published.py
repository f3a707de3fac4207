"""Channel statistics that the public code of the field normalises with."""

from __future__ import annotations

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
