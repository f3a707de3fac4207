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


@dataclass(frozen=True)
class CodecEntry(Entry):
    """A label codec, a part of one, or labels that are stored as they are.

    Attributes:
        role: "stored" (part of the set, never encoded), "views" (how a receiver gets the views),
            "network" (a payload that labels views), "pool" (which labels are kept), "labels"
            (how labels become bytes) or "name" (stands for `meaning`).
        codec: id of the codec in `projectors.codecs`, for the roles pool and labels.
        options: names and defaults; a spec may override each of them.
        meaning: for a name, the spec that it stands for, with its options in braces.
    """

    role: str = "stored"
    codec: str = ""
    options: Mapping[str, int | float | str] = field(default_factory=dict)
    meaning: str = ""


CODECS: dict[str, CodecEntry] = {
    entry.name: entry
    for entry in (
        CodecEntry("hard", "the class of each image", "the set itself"),
        CodecEntry("learned", "one soft label per image, float32 logits", "DATM, Guo et al. 2024"),
        CodecEntry(
            "full-fp16",
            "voted logits of every augmented view in half precision",
            "FKD, CV-DD",
            "name",
            meaning="dense:dtype=float16",
        ),
        CodecEntry(
            "seed",
            "views drawn again from a seed instead of stored; goes before another part",
            "Limbeck",
            "views",
        ),
        CodecEntry(
            "pruned",
            "a part of the label epochs, drawn from over and over; goes before another part",
            "LPLD, Xiao and He 2024",
            "pool",
            "pruned",
            {"ratio": 0.9, "unit": "epoch", "seed": 0},
        ),
        CodecEntry(
            "dense",
            "every logit as float16, bfloat16 or int8",
            "textbook",
            "labels",
            "dense",
            {"dtype": "float16"},
        ),
        CodecEntry(
            "topk",
            "the k largest entries of each label; tail plain, marginal or renormalised",
            "FKD, Shen and Xing 2022",
            "labels",
            "topk",
            {"k": 5, "tail": "marginal"},
        ),
        CodecEntry(
            "sampled-topk",
            "the largest entries as they are, and unbiased samples of the others",
            "sparse logit sampling",
            "labels",
            "sampled-topk",
            {"kept": 3, "draws": 3, "seed": 0},
        ),
        CodecEntry(
            "low-rank",
            "the logits as a product of two thin matrices",
            "Eckart and Young 1936",
            "labels",
            "low-rank",
            {"rank": 4},
        ),
        CodecEntry(
            "quantised",
            "logits on a uniform grid, entropy-coded by lzma or zlib",
            "textbook",
            "labels",
            "quantised",
            {"step": 0.5, "coder": "lzma"},
        ),
        CodecEntry(
            "roots",
            "square roots of probabilities on a grid, coded in the context of earlier epochs",
            "Limbeck",
            "labels",
            "roots",
            {"step": 0.1},
        ),
        CodecEntry(
            "two-scalars",
            "top class, its log-odds and the sharpness of its class's mean shape",
            "after NRR-DD, Tran et al. 2025",
            "labels",
            "two-scalars",
        ),
        CodecEntry("top1", "the voted class of every view", "FKD", "labels", "hard"),
        CodecEntry(
            "lpld",
            "a pool of whole batches in float16",
            "Xiao and He 2024",
            "name",
            options={"ratio": 0.975},
            meaning="pruned:ratio={ratio}:unit=batch-to-epoch+dense:dtype=float16",
        ),
        CodecEntry(
            "lpqld",
            "a pool of whole epochs, the k largest entries of each label",
            "Xiao and He 2026",
            "name",
            options={"ratio": 0.9, "k": 5},
            meaning="pruned:ratio={ratio}:unit=epoch+topk:k={k}",
        ),
        CodecEntry(
            "teacher",
            "no stored label: the committee in 2 to 8 bits a weight labels every view; with labels "
            "after it, those of the share where it is most wrong",
            "Limbeck",
            "network",
            options={"bits": 8, "residual": 0.1},
        ),
        CodecEntry(
            "projector",
            "no stored label: an adapted CLIP tower labels every view; with labels after it, those "
            "of the share where it is most wrong",
            "HeLlO",
            "network",
            options={"residual": 0.1},
        ),
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


LABELLING: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("relabel.aggregate=logits", "weighted mean of the members' logits", "CV-DD"),
        Entry("relabel.aggregate=probabilities", "weighted mean of probabilities", "MEAL V2"),
        Entry("relabel.aggregate=standard", "fraction of the members' votes", "Wu et al. 2023"),
        Entry("relabel.aggregate=softmax", "softmax of the numbers of votes", "Wu et al. 2023"),
        Entry("relabel.aggregate=dawid-skene", "a confusion matrix for each member", "1979"),
        Entry("relabel.aggregate=glad", "skill and difficulty; needs crowd-kit", "crowd-kit"),
        Entry("relabel.aggregate=mace", "members who may guess; needs crowd-kit", "crowd-kit"),
        Entry("relabel.aggregate=wawa", "weighed by agreement with the majority", "crowd-kit"),
        Entry("relabel.aggregate=zero-based-skill", "weighed by settled agreement", "crowd-kit"),
        Entry("relabel.zones=ferkd", "drop labels that show nothing, correct background", "FerKD"),
        Entry("evaluate.gift", "labels mixed with hard ones, cosine loss", "GIFT"),
        Entry("evaluate.hard_share", "soft, then hard, then soft labels", "HALD"),
    )
}


def recipe_names() -> list[str]:
    """Names of the recipes inside the package, sorted."""
    folder = resources.files("distill") / "recipes"
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))
