"""Networks for experts, committees and students, all called as network(images) -> logits."""

from synth.networks.convnet import ConvNet
from synth.networks.layers import GroupNorm
from synth.networks.plain import MLP, VGG11, AlexNet
from synth.networks.resnet import ResNet18

__all__ = ["MLP", "VGG11", "AlexNet", "ConvNet", "GroupNorm", "ResNet18"]
