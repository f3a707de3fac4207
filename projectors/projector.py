"""The projector: a network from an image to its soft label.

Source: HeLlO (label compression with a fitted image-to-label projector on a CLIP encoder).
"""

import copy
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from projectors.errors import ProjectorError
from projectors.head import Head, HeadSettings, build_head
from projectors.lora import attach_adapters, check_adapters, find_targets
from projectors.tower import Tower


@dataclass(frozen=True)
class Preprocessing:
    """The space in which images come: pixels in [0, 1], less `mean`, divided by `std`.

    Attributes:
        mean: one value per channel, 1 or 3 of them.
        std: as many, > 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ProjectorError(
                f"got {len(self.mean)} means and {len(self.std)} deviations, but images have 1 "
                "or 3 channels; give one of each per channel"
            )
        if not all(value > 0 for value in self.std):
            raise ProjectorError(f"std is {self.std}, but a deviation must be above 0; correct it")


@dataclass(frozen=True)
class AdapterSettings:
    """The adapters of a projector.

    Attributes:
        rank: r; 0 attaches none, which leaves a linear probe.
        alpha: the adapter's product is multiplied by alpha / rank.
        targets: full names of the layers that get one; None for all of `find_targets`.
        seed: seed from which the adapters start.
    """

    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] | None = None
    seed: int = 0


class Projector(nn.Module):
    """A callable from images [n, c, h, w] to probabilities [n, k].

    Images come in the space of the synthetic set, as `preprocessing` describes it; the
    projector brings them to its tower's space itself, differentiably. The tower stays in
    eval mode, whatever mode the projector is put in, so that its statistics never move.

    Args:
        tower: the frozen model.
        visual: the tower's image encoder, with adapters or without.
        head: features to logits.
        classes: k names.
        preprocessing: the space of the images.
        adapter: how the adapters were made.
        head_settings: how the head was made.
    """

    tower_mean: Tensor
    tower_std: Tensor
    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self,
        tower: Tower,
        visual: nn.Module,
        head: Head,
        classes: list[str],
        preprocessing: Preprocessing,
        adapter: AdapterSettings,
        head_settings: HeadSettings,
    ) -> None:
        super().__init__()
        self.tower, self.classes = tower, list(classes)
        self.preprocessing, self.adapter = preprocessing, adapter
        self.head_settings = head_settings
        self.visual, self.head = visual, head
        for name, values in (
            ("input_mean", preprocessing.mean),
            ("input_std", preprocessing.std),
            ("tower_mean", tower.mean),
            ("tower_std", tower.std),
        ):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities [n, k] of images [n, c, h, w]; every row sums to 1."""
        return self.logits(images).softmax(dim=-1)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w].

        Raises:
            ProjectorError: if the images have another shape or number of channels.
        """
        logits: Tensor = self.head(self.visual(self.prepare(images)))
        return logits

    def prepare(self, images: Tensor) -> Tensor:
        """Images [n, c, h, w] as the tower takes them: [n, 3, H, W], resized and normalised."""
        channels = self.input_mean.shape[1]
        if images.ndim != 4 or images.shape[1] != channels:
            raise ProjectorError(
                f"images have the shape {tuple(images.shape)}, but this projector takes "
                f"[n, {channels}, h, w]; give images of the data it was fitted to"
            )
        pixels = images * self.input_std + self.input_mean
        size = self.tower.image_size
        if pixels.shape[-2:] != size:
            pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        # One mean per RGB channel: a gray image becomes three equal channels here.
        return (pixels - self.tower_mean) / self.tower_std

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the tower stays in eval mode."""
        super().train(mode)
        self.visual.eval()
        return self


def build_projector(
    tower: Tower,
    classes: list[str],
    preprocessing: Preprocessing,
    *,
    adapter: AdapterSettings | None = None,
    head: HeadSettings | None = None,
) -> Projector:
    """A projector before any fitting, whose adapters have been checked to act.

    Args:
        tower: the frozen model; left as it is, so that several projectors can share it.
        classes: k names, which the head's prompts are made of.
        preprocessing: the space of the images.
        adapter: the adapters; rank 8 on every layer of `find_targets` by default.
        head: the head; text-initialised and fitted by default.

    Raises:
        ProjectorError: if an adapter would do nothing, or a name is empty or comes twice.
    """
    adapter, head = adapter or AdapterSettings(), head or HeadSettings()
    check_classes(classes)
    visual, adapter = adapted_visual(tower, adapter)
    if adapter.rank:
        probe = torch.rand(2, 3, *tower.image_size, generator=Generator().manual_seed(0)) - 0.5
        check_adapters(visual, probe.to(next(visual.parameters())))
    return Projector(
        tower, visual, build_head(tower, classes, head), classes, preprocessing, adapter, head
    )


def adapted_visual(tower: Tower, adapter: AdapterSettings) -> tuple[nn.Module, AdapterSettings]:
    """A copy of the tower's image encoder with fresh adapters (none where the rank is 0).

    Returns:
        The encoder, and the settings with all targets named.
    """
    if adapter.rank == 0:
        return copy.deepcopy(tower.clip.visual), replace(adapter, targets=())
    targets = adapter.targets or tuple(find_targets(tower.clip.visual))
    visual = attach_adapters(
        tower.clip.visual,
        list(targets),
        rank=adapter.rank,
        alpha=adapter.alpha,
        generator=Generator().manual_seed(adapter.seed),
    )
    return visual, replace(adapter, targets=tuple(sorted(targets)))


def check_classes(classes: list[str]) -> None:
    """Raise ProjectorError unless there are at least two names, all different, none empty."""
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        raise ProjectorError(
            f"got {len(classes)} class names, {len(set(classes))} of them different; a projector "
            "needs two or more, each once and none empty"
        )
