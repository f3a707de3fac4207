"""The networks by name. Imports no torch."""

from __future__ import annotations

from functools import partial

from distill.names.entries import NetworkEntry, OptionValue, Registry

_CONVNET: dict[str, OptionValue] = {
    "width": 128,
    "norm": "instance",
    "pooling": "avg",
    "activation": "relu",
    "padding": 1,
}


def _convnet(depth: int) -> NetworkEntry:
    return NetworkEntry(
        f"convnet{depth}",
        f"ConvNet with {depth} blocks of 3x3 convolution, norm, activation and 2x2 pooling",
        "Gidaris and Komodakis 2018",
        "synth.networks.convnet:ConvNet",
        options={"depth": depth, **_CONVNET},
    )


NETWORKS: Registry[NetworkEntry] = Registry(
    "network",
    (
        *(_convnet(depth) for depth in (1, 2, 3, 4, 5)),
        NetworkEntry(
            "resnet18",
            "ResNet-18 with a stride-1 stem for small images",
            "He et al. 2016",
            "synth.networks.resnet:ResNet18",
            options={"width": 64, "norm": "batch"},
        ),
        NetworkEntry(
            "resnet50",
            "ResNet-50 with a stride-1 stem for small images",
            "He et al. 2016",
            "synth.networks.resnet:ResNet50",
            options={"width": 64, "norm": "batch"},
        ),
        NetworkEntry(
            "shufflenetv2",
            "ShuffleNetV2 with a stride-1 stem; width 48 is its 0.5x",
            "Ma et al. 2018",
            "synth.networks.shufflenet:ShuffleNetV2",
            options={"width": 48, "norm": "batch"},
        ),
        NetworkEntry(
            "mobilenetv2",
            "MobileNetV2 with a stride-1 stem for small images",
            "Sandler et al. 2018",
            "synth.networks.mobilenet:MobileNetV2",
            options={"width": 32, "norm": "batch"},
        ),
        NetworkEntry(
            "densenet121",
            "DenseNet-121 with a stride-1 stem; width is its growth rate",
            "Huang et al. 2017",
            "synth.networks.densenet:DenseNet121",
            options={"width": 32, "norm": "batch"},
        ),
        NetworkEntry(
            "vit-tiny",
            "vision transformer with a class token, one head for every 64 of the width",
            "Touvron et al. 2021",
            "synth.networks.vit:VisionTransformer",
            options={"depth": 12, "width": 192, "patch": 4},
        ),
        NetworkEntry(
            "vgg11",
            "VGG-11 with one linear layer",
            "Simonyan and Zisserman 2015",
            "synth.networks.plain:VGG11",
            options={"width": 64, "norm": "instance", "pooling": "max"},
        ),
        NetworkEntry(
            "alexnet",
            "AlexNet for small images",
            "Krizhevsky et al. 2012",
            "synth.networks.plain:AlexNet",
            options={"width": 128},
        ),
        NetworkEntry(
            "mlp",
            "multilayer perceptron on flattened pixels",
            "textbook",
            "synth.networks.plain:MLP",
            options={"depth": 2, "width": 128, "activation": "relu"},
        ),
        NetworkEntry(
            "torchvision",
            "a model of torchvision, as in torchvision:resnet50; as a member of a committee it "
            "starts from its published weights",
            "torchvision",
            "synth.networks.pretrained:TorchvisionNetwork",
            options={"model": "resnet18"},
            bare="model",
        ),
    ),
    "limbeck.networks",
    NetworkEntry,
)

# Networks that come with their weights: Limbeck has none of its own.
TEACHERS: Registry[NetworkEntry] = Registry(
    "teacher", (), "limbeck.teachers", partial(NetworkEntry, trained=True), NETWORKS
)
