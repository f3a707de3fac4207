"""Torchvision networks, with published ImageNet-1K weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

# The last linear layer of each model.
HEADS = {
    "resnet18": "fc",
    "resnet34": "fc",
    "resnet50": "fc",
    "resnet101": "fc",
    "shufflenet_v2_x0_5": "fc",
    "shufflenet_v2_x1_0": "fc",
    "mobilenet_v2": "classifier.1",
    "efficientnet_b0": "classifier.1",
    "densenet121": "classifier",
}

# The normalisation of pixels that all of their published weights were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Names inside DenseNet's published file, as torchvision itself maps them.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class TorchvisionNetwork(nn.Module):
    """A model of torchvision for images of one or three channels.

    One channel is repeated three times. An affine map before the model is the identity until
    `expect` sets it from the normalisation of the images.

    Args:
        channels: 1 or 3.
        size: (h, w) in pixels; any that the model accepts.
        classes: k.
        model: a name in `HEADS`.

    Raises:
        ValueError: for another model or number of channels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, channels: int, size: tuple[int, int], classes: int, model: str = "resnet18"
    ) -> None:
        super().__init__()
        if model not in HEADS:
            raise ValueError(f"there is no model {model}; choose one of {', '.join(HEADS)}")
        if channels not in (1, 3):
            raise ValueError(f"images have {channels} channels, but it takes 1 or 3")
        # Imported late: it takes a second, and hardly any run has such a network.
        import torchvision.models

        self.model = torchvision.models.get_model(model, weights=None, num_classes=classes)
        self.head_name = HEADS[model]
        self.register_buffer("scale", torch.ones(3, 1, 1))
        self.register_buffer("shift", torch.zeros(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        logits: Tensor = self.model(images * self.scale + self.shift)
        return logits

    def expect(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Map images with this normalisation to the one that the weights were trained with.

        Args:
            mean: of each channel, in pixels of [0, 1].
            std: of each channel, above 0.
        """
        theirs, ours = (
            [torch.tensor(tuple(values)).view(-1, 1, 1).to(self.scale) for values in pair]
            for pair in ((_MEAN, _STD), (mean, std))
        )
        self.scale.copy_((ours[1] / theirs[1]).expand_as(self.scale))
        self.shift.copy_(((ours[0] - theirs[0]) / theirs[1]).expand_as(self.shift))

    def load_weights(self, state: Mapping[str, Tensor]) -> bool:
        """Load the weights of a state dict with torchvision's own names.

        Returns:
            Whether those of the head were loaded too: False where it has other classes, and the
            head keeps its initial weights.

        Raises:
            ValueError: if they are not the weights of this model.
        """
        given = {_OLD_NAME.sub(r"\1\2", name): value for name, value in state.items()}
        own = self.model.state_dict()
        head = [f"{self.head_name}.{kind}" for kind in ("weight", "bias")]
        head_loaded = all(name in given and given[name].shape == own[name].shape for name in head)
        body = {name: value for name, value in given.items() if head_loaded or name not in head}
        wrong = [
            name
            for name, value in own.items()
            if (head_loaded or name not in head)
            and (name not in body or getattr(body[name], "shape", None) != value.shape)
            # Files from before torch 0.4.1 have no such counters.
            and not name.endswith("num_batches_tracked")
        ] + [name for name in body if name not in own]
        if wrong:
            raise ValueError(f"{wrong[0]} is missing, unknown or of another shape")
        self.model.load_state_dict(body, strict=False)
        return head_loaded
