"""The `torchvision` source: data sets that torchvision reads from local files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.data.cutting import hold_out
from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.gathering import (
    TEST_FRACTION,
    Labelled,
    left_out_note,
    numbered_classes,
    read_eagerly,
)
from distill.data.splits import DataError, SourceError
from distill.errors import suggestion

ROOT_VARIABLE = "LIMBECK_DATA"

_TRAIN: Mapping[str, Any] = {"train": True}

_TEST: Mapping[str, Any] = {"train": False}

_SPLIT = ({"split": "train"}, {"split": "test"})

# name -> arguments of the training and of the test part; None where there is no test part.
SETS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {
    "MNIST": (_TRAIN, _TEST),
    "FashionMNIST": (_TRAIN, _TEST),
    "KMNIST": (_TRAIN, _TEST),
    "QMNIST": (_TRAIN, _TEST),
    "EMNIST": ({"split": "balanced", **_TRAIN}, {"split": "balanced", **_TEST}),
    "USPS": (_TRAIN, _TEST),
    "CIFAR10": (_TRAIN, _TEST),
    "CIFAR100": (_TRAIN, _TEST),
    "SVHN": _SPLIT,
    "STL10": _SPLIT,
    "GTSRB": _SPLIT,
    "Food101": _SPLIT,
    "DTD": _SPLIT,
    "Flowers102": _SPLIT,
    "StanfordCars": _SPLIT,
    "FGVCAircraft": ({"split": "trainval"}, {"split": "test"}),
    "OxfordIIITPet": ({"split": "trainval"}, {"split": "test"}),
    "Imagenette": ({"split": "train"}, {"split": "val"}),
    "EuroSAT": ({}, None),
}


def read_torchvision(request: Request) -> SourceSplits:
    """Read `torchvision:NAME` or `torchvision:NAME:ROOT`.

    Without ROOT, the files lie in the folder that the variable LIMBECK_DATA names, or in
    ~/.cache/limbeck. Nothing is downloaded here, see `download`. Where a set has no test part, a
    stratified fifth is held out for it.

    Raises:
        SourceError: for a set that is not known.
        DataError: when the files are missing, or images of several sizes come without `size`.
    """
    name, root = _name_and_root(request)
    train_arguments, test_arguments = SETS[name]
    whole = _open(name, root, train_arguments)
    part = read_eagerly(whole, request)
    train, left_out = part.split, part.left_out
    names = class_names(whole) or numbered_classes(train.labels, f"{name}'s labels")
    if test_arguments is None:
        train, test = hold_out(train, len(names), TEST_FRACTION, "test")
    else:
        part = read_eagerly(_open(name, root, test_arguments), request)
        test, left_out = part.split, left_out + part.left_out
    notes = (left_out_note(left_out),) if left_out else ()
    return SourceSplits(train, test, names, notes=notes, damaged=left_out)


def download(source: str) -> None:
    """Fetch the files of a `torchvision:...` source into its root; other sources have none.

    Raises:
        DataError: when they cannot be fetched.
    """
    kind, _, argument = source.partition(":")
    if kind != "torchvision":
        return
    name, root = _name_and_root(Request(source, argument))
    root.mkdir(parents=True, exist_ok=True)
    for arguments in SETS[name]:
        if arguments is not None:
            _open(name, root, {**arguments, "download": True})


def _name_and_root(request: Request) -> tuple[str, Path]:
    name, _, root = request.argument.partition(":")
    if name not in SETS:
        close = {known.lower(): known for known in SETS}.get(name.lower())
        hint = f"did you mean {close}?" if close else suggestion(name, SETS)
        raise SourceError(f"source {request.source!r}: torchvision set {name!r} is unknown; {hint}")
    chosen = root or os.environ.get(ROOT_VARIABLE) or "~/.cache/limbeck"
    return name, Path(chosen).expanduser()


def _open(name: str, root: Path, arguments: Mapping[str, Any]) -> Labelled:
    import torchvision.datasets

    try:
        dataset: Labelled = getattr(torchvision.datasets, name)(root=str(root), **arguments)
    except (RuntimeError, OSError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{name} cannot be read from {str(root)!r} ({reason}); put its files there, name "
            f"another folder as torchvision:{name}:ROOT, or add --download where there is a network"
        ) from None
    return dataset


def class_names(dataset: object) -> tuple[str, ...] | None:
    """The names that torchvision gives to classes, or None."""
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple):
        return None
    texts = (", ".join(name) if isinstance(name, tuple) else str(name) for name in names)
    return tuple(texts)
