"""Every name that a recipe or a command may use, in one place. Imports no torch.

A name becomes an object in `distill.build`, which reads these tables; `distill ls` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources


@dataclass(frozen=True)
class Entry:
    """A name that can be chosen.

    Attributes:
        name: as written in recipes.
        summary: one line for people.
        source: the paper, package or file that it comes from.
    """

    name: str
    summary: str
    source: str


@dataclass(frozen=True)
class NetworkEntry(Entry):
    """A network family.

    Attributes:
        kind: name of the class in `synth.networks`.
        options: keyword arguments and their defaults; a spec may override each of them.
    """

    kind: str = ""
    options: Mapping[str, int | str] = field(default_factory=dict)


_CONVNET: dict[str, int | str] = {
    "width": 128,
    "norm": "instance",
    "pooling": "avg",
    "activation": "relu",
}


def _convnet(depth: int) -> NetworkEntry:
    return NetworkEntry(
        f"convnet{depth}",
        f"ConvNet with {depth} blocks of 3x3 convolution, norm, activation and 2x2 pooling",
        "Gidaris and Komodakis 2018",
        "ConvNet",
        {"depth": depth, **_CONVNET},
    )


NETWORKS: dict[str, NetworkEntry] = {
    entry.name: entry
    for entry in (
        *(_convnet(depth) for depth in (1, 2, 3, 4, 5)),
        NetworkEntry(
            "resnet18",
            "ResNet-18 with a stride-1 stem for small images",
            "He et al. 2016",
            "ResNet18",
            {"width": 64, "norm": "batch"},
        ),
        NetworkEntry(
            "vgg11",
            "VGG-11 with one linear layer",
            "Simonyan and Zisserman 2015",
            "VGG11",
            {"width": 64, "norm": "instance", "pooling": "max"},
        ),
        NetworkEntry(
            "alexnet",
            "AlexNet for small images",
            "Krizhevsky et al. 2012",
            "AlexNet",
            {"width": 128},
        ),
        NetworkEntry(
            "mlp",
            "multilayer perceptron on flattened pixels",
            "textbook",
            "MLP",
            {"depth": 2, "width": 128, "activation": "relu"},
        ),
    )
}

DATA: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("digits", "1,797 real handwritten digits, 8x8 gray, embedded", "scikit-learn"),
        Entry(
            "fashion-mnist",
            "70,000 real 28x28 gray clothing images: fashion-mnist or fashion-mnist:PATH",
            "Debian package dataset-fashion-mnist, or its four idx files",
        ),
        Entry(
            "glyphs",
            "K characters in 12 font faces, 28x28 gray, test family held out: glyphs:K, K <= 1100",
            "DejaVu fonts inside matplotlib's wheel",
        ),
        Entry("folder", "your own images, one folder per class: folder:PATH", "image files"),
        Entry("npz", "arrays images and labels, or x_train ... y_test: npz:PATH", "NumPy file"),
    )
}

GRADIENTS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("adjoint", "exact, in memory that does not grow with the inner steps", "Limbeck"),
        Entry("frozen", "TESLA's: exact for one inner step only", "Cui et al. 2023"),
        Entry(
            "unrolled",
            "exact, by automatic differentiation of all inner steps",
            "MTT, through higher",
        ),
    )
}

CODECS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("hard", "the class of each image", "the set itself"),
        Entry("learned", "one soft label per image, float32 logits", "DATM, Guo et al. 2024"),
        Entry("full-fp16", "voted logits of every augmented view in half precision", "FKD, CV-DD"),
        Entry("projector", "no stored label: an adapted CLIP tower labels every view", "HeLlO"),
    )
}

STRATEGIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("prior", "weights softmax(p / tau), p the held-out accuracy in percent", "CV-DD"),
        Entry("equal", "every member weighs the same", "CV-DD"),
    )
}


def recipe_names() -> list[str]:
    """Names of the recipes inside the package, sorted."""
    folder = resources.files("distill") / "recipes"
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))
