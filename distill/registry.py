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
            "resnet50",
            "ResNet-50 with a stride-1 stem for small images",
            "He et al. 2016",
            "ResNet50",
            {"width": 64, "norm": "batch"},
        ),
        NetworkEntry(
            "shufflenetv2",
            "ShuffleNetV2 with a stride-1 stem; width 48 is its 0.5x",
            "Ma et al. 2018",
            "ShuffleNetV2",
            {"width": 48, "norm": "batch"},
        ),
        NetworkEntry(
            "mobilenetv2",
            "MobileNetV2 with a stride-1 stem for small images",
            "Sandler et al. 2018",
            "MobileNetV2",
            {"width": 32, "norm": "batch"},
        ),
        NetworkEntry(
            "densenet121",
            "DenseNet-121 with a stride-1 stem; width is its growth rate",
            "Huang et al. 2017",
            "DenseNet121",
            {"width": 32, "norm": "batch"},
        ),
        NetworkEntry(
            "vit-tiny",
            "vision transformer with a class token, one head for every 64 of the width",
            "Touvron et al. 2021",
            "VisionTransformer",
            {"depth": 12, "width": 192, "patch": 4},
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
        Entry(
            "torchvision",
            "a set that torchvision reads: torchvision:CIFAR10 or torchvision:CIFAR10:ROOT",
            "torchvision",
        ),
        Entry("hf", "an image set of the Hugging Face hub: hf:NAME", "datasets, extra hf"),
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
        Entry(
            "prior",
            "committee.vote: weights softmax(p / tau), p the held-out accuracy in percent, or "
            "committee.priors",
            "CV-DD",
        ),
        Entry(
            "measured",
            "committee.vote: as prior, p the held-out accuracy of students of each member alone",
            "CV-DD, whose constants are such accuracies",
        ),
        Entry("equal", "committee.vote: every member weighs the same", "CV-DD"),
        Entry("random", "committee.vote: weights drawn once for a run", "CV-DD"),
        Entry(
            "similarity",
            "committee.vote: weights similarity^p, p = committee.similarity_power, nearest for "
            "the best alone",
            "Borup et al. 2023; PARC, Bolya et al. 2021",
        ),
        Entry(
            "bssl",
            "relabel.bssl: teachers' BatchNorm sees the very batches that students will see",
            "CV-DD; on for optimised images and off for real ones, as in HALD",
        ),
        Entry(
            "cutmix",
            "relabel.mix: a box of each view comes from a partner; voted on after mixing",
            "Yun et al. 2019; SRe2L, CV-DD",
        ),
        Entry(
            "mixup",
            "relabel.mix: each view is blended with a partner; voted on after mixing",
            "Zhang et al. 2018; SRe2L",
        ),
        Entry(
            "seed",
            "relabel.views: views, order and mixes drawn again from the seed, in no bytes",
            "Limbeck",
        ),
    )
}


MAKING: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("recover.schedule=random", "members drawn anew for each IPC index", "CV-DD"),
        Entry("recover.schedule=pairs", "every set of recover.drawn members in turn", "CV-DD"),
        Entry("recover.schedule=fixed", "the recover.drawn members of largest prior", "CV-DD"),
        Entry("recover.init=mosaics", "recovery starts from realistic crops", "RDED, SRe2L++"),
        Entry("recover.init=real", "recovery starts from real images", "SRe2L++"),
        Entry("recover.init=noise", "recovery starts from normal noise", "SRe2L"),
        Entry("recover.batches=across", "an image of every class, whole statistics", "SRe2L"),
        Entry("recover.batches=within", "images of one class, its own statistics", "LPLD"),
        Entry("select.method=random", "real images at random: the control", "textbook"),
        Entry("select.method=herding", "the mean feature stays near the class's", "Welling 2009"),
        Entry("select.method=k-center", "no feature is far from a chosen one", "Sener 2018"),
        Entry("select.method=mosaics", "crops that teachers find realistic, tiled", "RDED"),
        Entry("select.features=pixels", "features are the normalised pixels", "textbook"),
        Entry("select.features=committee", "features before the teachers' heads", "Sener 2018"),
    )
}


def recipe_names() -> list[str]:
    """Names of the recipes inside the package, sorted."""
    folder = resources.files("distill") / "recipes"
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))
