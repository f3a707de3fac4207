"""The inner loop: plain SGD steps of a student on the synthetic set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from synth.augment import View
from synth.losses import soft_cross_entropy
from synth.parameters import ParameterLayout, call_with_vector, parameter_layout

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class StepLabels:
    """Labels of each inner step's own batch: constants of the step, with no gradient.

    Attributes:
        logits: for each inner step, the label logits [b, k] of its batch.
        temperature: T > 0. The loss of a step is T^2 times the soft cross-entropy at T, so that a
            student learning rate means about the same at every T. Source: Hinton et al. 2015.
    """

    logits: Sequence[Tensor]
    temperature: float = 1.0


@dataclass(frozen=True)
class InnerLoop:
    """Everything that N inner steps read, checked once.

    Attributes:
        network: called functionally; its own parameters are not read.
        layout: the network's parameter layout.
        images: [n, c, h, w] of the synthetic set.
        labels: [n, k] label logits; or those of each step.
        batches: for each inner step, the indices [b] of its images, on their device.
        views: for each inner step, the sampled view of its batch; None leaves images as they are.
        channels_last: whether the network gets its images in that order of memory, which our norm
            and pooling layers compute in as well.
    """

    network: nn.Module
    layout: ParameterLayout
    images: Tensor
    labels: Tensor | StepLabels
    batches: Sequence[Tensor]
    views: Sequence[View] | None
    channels_last: bool = False

    @property
    def temperature(self) -> float:
        """T of the loss; 1 for the labels of a set."""
        return self.labels.temperature if isinstance(self.labels, StepLabels) else 1.0

    @property
    def set_labels(self) -> Tensor:
        """The label logits [n, k] of the set; zeros where each step has its own."""
        if isinstance(self.labels, Tensor):
            return self.labels
        return self.images.new_zeros(len(self.images), self.labels.logits[0].shape[1])

    def batch_labels(self, step: int, labels: Tensor | None = None) -> Tensor:
        """The label logits [b, k] of a step's batch.

        Args:
            step: index of the inner step.
            labels: [n, k] in place of those of the set; None for these. A step's own labels take
                precedence over both.
        """
        if isinstance(self.labels, StepLabels):
            return self.labels.logits[step]
        return (self.labels if labels is None else labels)[self.batches[step]]

    def view(self, step: int, images: Tensor) -> Tensor:
        """The batch [b, c, h, w] of a step as its view shows it."""
        return images if self.views is None else self.views[step].apply(images)

    def loss(self, step: int, forward: Forward, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of inner step `step` on its own batch.

        Args:
            step: index of the inner step, which names its view.
            forward: images [b, c, h, w] -> logits [b, k].
            images: [b, c, h, w], the images of the batch before augmentation.
            labels: [b, k] label logits of the batch.
        """
        images = self.view(step, images)
        if self.channels_last:
            # Not by memory format, which leaves images of one channel as they are.
            ordered = images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
            images = ordered.permute(0, 3, 1, 2)
        if self.temperature == 1:
            return soft_cross_entropy(forward(images), labels)
        scale = self.temperature**2
        return scale * soft_cross_entropy(forward(images), labels, self.temperature)

    def forward(self, parameters: Tensor) -> Forward:
        """The network as a function of images, with the flat `parameters` [p]."""
        return lambda images: call_with_vector(self.network, self.layout, parameters, images)

    def gradient(self, step: int, parameters: Tensor) -> Tensor:
        """Gradient [p] of the loss of inner step `step` at `parameters` [p]; no graph is kept."""
        point = parameters.detach().requires_grad_()
        images = self.images[self.batches[step]].detach()
        labels = self.batch_labels(step).detach()
        return torch.autograd.grad(self.loss(step, self.forward(point), images, labels), point)[0]


def make_inner_loop(
    network: nn.Module,
    images: Tensor,
    labels: Tensor | StepLabels,
    batches: Sequence[Tensor],
    views: Sequence[View] | None,
) -> InnerLoop:
    """Check the inputs of an inner loop and put them together.

    Raises:
        ValueError: for no batch or an empty one, labels of another length, an index outside the
            set, views or labels of another number than the steps, a temperature that is not above
            0, or a network whose BatchNorm would keep state.
    """
    if not batches:
        raise ValueError("got no batches; the inner loop needs at least one inner step")
    if isinstance(labels, StepLabels):
        _check_step_labels(labels, batches)
    elif len(images) != len(labels):
        raise ValueError(f"got {len(images)} images and {len(labels)} label rows; need as many")
    if any(not len(batch) for batch in batches):
        raise ValueError("got an empty batch; every inner step needs at least one image")
    smallest = min(int(batch.min()) for batch in batches)
    largest = max(int(batch.max()) for batch in batches)
    if smallest < 0 or largest >= len(images):
        raise ValueError(
            f"the batches name images {smallest} to {largest}; indices must lie in 0 to "
            f"{len(images) - 1}"
        )
    if views is not None and len(views) != len(batches):
        raise ValueError(f"got {len(views)} views for {len(batches)} inner steps; need as many")
    stateful = [m for m in network.modules() if getattr(m, "track_running_stats", False)]
    if stateful:
        raise ValueError(
            f"the network has {len(stateful)} BatchNorm layers with running statistics, which "
            "inner steps would change; use norm=instance, layer, group or none"
        )
    dropout = [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    if any(module.training and module.p > 0 for module in dropout):
        raise ValueError(
            "the network drops units at random, so a step cannot be replayed; use a network "
            "without dropout, or network.eval()"
        )
    # Here, once: indices on the CPU would make it wait for the device at every inner step.
    places = tuple(batch.to(images.device, non_blocking=True) for batch in batches)
    return InnerLoop(network, parameter_layout(network), images, labels, places, views)


def _check_step_labels(labels: StepLabels, batches: Sequence[Tensor]) -> None:
    """Raise ValueError unless every inner step has a label for each of its images."""
    found, wanted = [len(logits) for logits in labels.logits], [len(batch) for batch in batches]
    if found != wanted:
        raise ValueError(
            f"got labels of {found} images for inner steps of {wanted}; need one label for each "
            "image of each step"
        )
    if not labels.temperature > 0:
        raise ValueError(f"the temperature is {labels.temperature}; it must be above 0")


def draw_batches(
    count: int, batch_size: int | None, steps: int, generator: Generator
) -> list[Tensor]:
    """The images of each inner step: `steps` index tensors [b], by epochs without replacement.

    With `batch_size` None, or at least `count`, each step takes the whole set. Otherwise the set
    is shuffled and cut into batches of exactly `batch_size`; what is left over starts no batch.
    """
    if batch_size is None or batch_size >= count:
        return [torch.arange(count) for _ in range(steps)]
    batches: list[Tensor] = []
    while len(batches) < steps:
        order = torch.randperm(count, generator=generator)
        usable = count - count % batch_size
        batches += list(order[:usable].split(batch_size))
    return batches[:steps]
