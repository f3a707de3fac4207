"""The projector: a network from an image to its soft label.

Source: HeLlO (label compression with a fitted image-to-label projector on a CLIP encoder).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Generator, Tensor, nn

from projectors.errors import ProjectorError
from projectors.model.head import Head, HeadSettings, build_head
from projectors.model.lora import attach_adapters, check_adapters
from projectors.model.preparation import Preparation, Preprocessing
from projectors.model.targets import KINDS, find_targets, target_ranks
from projectors.model.tower import Tower


@dataclass(frozen=True)
class AdapterSettings:
    """The adapters of a projector.

    Attributes:
        rank: r of every kind of layer that `ranks` does not name; 0 attaches none.
        alpha: an adapter's product is multiplied by alpha / its rank.
        targets: full names of the layers that may get one; None for all of `find_targets`.
        seed: seed of the adapters' initial weights.
        ranks: kind of layer, see `target_kind` -> r; 0 leaves that kind without adapters. No
            adapter at all leaves a linear probe.
    """

    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] | None = None
    seed: int = 0
    ranks: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.ranks) - set(KINDS))
        if unknown:
            raise ProjectorError(
                f"ranks name {unknown[0]!r}, which is no kind of layer; write one of "
                f"{', '.join(KINDS)}"
            )
        for name, rank in (("rank", self.rank), *self.ranks.items()):
            if rank < 0:
                raise ProjectorError(f"the rank of {name} is {rank}; write 0 or more")


class Projector(nn.Module):
    """A callable from images [n, c, h, w] to probabilities [n, k].

    Images are normalised as those of the synthetic set, which `preprocessing` describes; the
    projector converts them to its tower's normalisation, differentiably. The tower stays in
    eval mode, whatever mode the projector is put in, so that its statistics never change.

    Args:
        tower: the frozen model.
        visual: the tower's image encoder, with adapters or without.
        head: features to logits.
        classes: k names.
        preprocessing: normalisation of the input images.
        adapter: how the adapters were made.
        head_settings: how the head was made.
    """

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
        self.preparation = Preparation(tower, preprocessing)
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
        """Images [n, c, h, w] as the tower takes them, see `Preparation`."""
        prepared: Tensor = self.preparation(images)
        return prepared

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
    """A projector before any fitting, whose adapters have been checked to take effect.

    Args:
        tower: the frozen model; left as it is, so that several projectors can share it.
        classes: k names, which the head's prompts are made of.
        preprocessing: normalisation of the input images.
        adapter: the adapters; rank 8 on every layer of `find_targets` by default.
        head: the head; text-initialised and fitted by default.

    Raises:
        ProjectorError: if an adapter has no effect, or a name is empty or repeated.
    """
    adapter, head = adapter or AdapterSettings(), head or HeadSettings()
    check_classes(classes)
    visual, adapter = adapted_visual(tower, adapter)
    if adapter.targets:
        probe = torch.rand(2, 3, *tower.image_size, generator=Generator().manual_seed(0)) - 0.5
        check_adapters(visual, probe.to(next(visual.parameters())))
    return Projector(
        tower, visual, build_head(tower, classes, head), classes, preprocessing, adapter, head
    )


def adapted_visual(tower: Tower, adapter: AdapterSettings) -> tuple[nn.Module, AdapterSettings]:
    """A copy of the tower's image encoder with fresh adapters (none where all ranks are 0).

    Returns:
        The encoder, and the settings with all targets named.
    """
    visual = tower.clip.visual
    targets = adapter.targets
    if targets is None:
        targets = tuple(find_targets(visual)) if adapter.rank or any(adapter.ranks.values()) else ()
    ranks = target_ranks(visual, targets, adapter.rank, adapter.ranks)
    adapter = replace(adapter, targets=tuple(ranks))
    if not ranks:
        return copy.deepcopy(visual), adapter
    generator = Generator().manual_seed(adapter.seed)
    return attach_adapters(visual, ranks, alpha=adapter.alpha, generator=generator), adapter


def check_classes(classes: list[str]) -> None:
    """Raise ProjectorError unless there are at least two names, all different, none empty."""
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        raise ProjectorError(
            f"got {len(classes)} class names, {len(set(classes))} of them different; a projector "
            "needs two or more, each once and none empty"
        )
