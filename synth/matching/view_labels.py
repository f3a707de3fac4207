"""Labels that teachers give to the views of an inner loop: each step's own batch as it sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.augment import View
from synth.committee.strategies import refined_labels
from synth.matching.inner_loop import StepLabels

# In place of a probability of 0, so that logits stay finite.
_MIN_PROBABILITY = 1e-13


@dataclass(frozen=True)
class ViewLabels:
    """Teachers label every view that an inner step sees.

    The label of a step does not depend on the student, so all steps are labelled before the first,
    and a replay backwards reads the same labels. Each costs one forward pass of the teachers.

    Attributes:
        label: views [b, c, h, w] of a batch -> label logits [b, k].
        classes: [n] of the images that students see.
        temperature: T > 0, see `StepLabels`.
        class_share: share of the image's class in each label, in [0, 1); the rest is that of the
            teachers at the temperature.
    """

    label: Callable[[Tensor], Tensor]
    classes: Tensor
    temperature: float = 1.0
    class_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.class_share < 1:
            raise ValueError(f"class_share is {self.class_share}; it must lie in [0, 1)")

    @torch.no_grad()
    def of_steps(
        self, images: Tensor, batches: Sequence[Tensor], views: Sequence[View] | None
    ) -> StepLabels:
        """The labels of every step of an inner loop.

        Args:
            images: [n, c, h, w] that students see.
            batches: for each step, the indices [b] of its images.
            views: for each step, the view of its batch; None for the images as they are.
        """
        logits = []
        for step, batch in enumerate(batches):
            seen = images[batch.to(images.device)]
            if views is not None:
                seen = views[step].apply(seen)
            logits.append(self._mixed(self.label(seen).to(images.dtype), batch))
        return StepLabels(logits, self.temperature)

    def _mixed(self, logits: Tensor, batch: Tensor) -> Tensor:
        """Logits whose softmax at the temperature has the class's share in it."""
        if not self.class_share:
            return logits
        own = self.classes.to(logits.device)[batch.to(logits.device)]
        mixed = refined_labels(logits, own, self.temperature, self.class_share)
        return self.temperature * mixed.clamp_min(_MIN_PROBABILITY).log()
