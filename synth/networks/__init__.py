"""Networks for experts, committees and students, all called as network(images) -> logits."""

from synth.networks.convnet import ConvNet
from synth.networks.densenet import DenseNet121
from synth.networks.layers import GroupNorm
from synth.networks.mobilenet import MobileNetV2
from synth.networks.plain import MLP, VGG11, AlexNet
from synth.networks.pretrained import TorchvisionNetwork
from synth.networks.resnet import ResNet18, ResNet50
from synth.networks.shufflenet import ShuffleNetV2
from synth.networks.vit import VisionTransformer

__all__ = [
    "MLP",
    "VGG11",
    "AlexNet",
    "ConvNet",
    "DenseNet121",
    "GroupNorm",
    "MobileNetV2",
    "ResNet18",
    "ResNet50",
    "ShuffleNetV2",
    "TorchvisionNetwork",
    "VisionTransformer",
]
