"""State of trajectory matching between two outer steps, and its tensors by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from synth.updates import Moments


@dataclass(frozen=True)
class Learned:
    """What the outer loop learns, with its optimiser's memory.

    Attributes:
        images: [n, c, h, w] of the synthetic set, as stored.
        labels: [m, k] label logits of the images that students see.
        log_student_lr: natural logarithm of the student learning rate, scalar, or [j] with one
            for each of j networks.
        moments: of images, labels and log_student_lr.
        average: moving average of the images, [n, c, h, w].
        updates: updates applied so far.
        multiplier: weight of the coded bits beside the distance, scalar; 0 before it is set; see
            `synth.matching.rate`.
    """

    images: Tensor
    labels: Tensor
    log_student_lr: Tensor
    moments: tuple[Moments, Moments, Moments]
    average: Tensor
    updates: int
    multiplier: Tensor


@dataclass(frozen=True)
class MatchState:
    """All that the outer loop carries from one step to the next.

    Attributes:
        step: outer steps taken so far, refused ones included.
        refusals: updates refused in a row.
        now: what has been learned so far.
        good: the last values whose distance was measured and accepted.
    """

    step: int
    refusals: int
    now: Learned
    good: Learned

    @property
    def images(self) -> Tensor:
        """[n, c, h, w] of the synthetic set: their moving average, where there is one."""
        return self.now.average

    @property
    def labels(self) -> Tensor:
        """[m, k] label logits."""
        return self.now.labels

    @property
    def student_lr(self) -> Tensor:
        """The student learning rate, scalar; that of the first network where there are several."""
        return self.now.log_student_lr.exp().reshape(-1)[0]


def initial_state(
    images: Tensor, labels: Tensor, student_lr: float | Sequence[float], networks: int = 1
) -> MatchState:
    """The state before the first outer step.

    Args:
        images: [n, c, h, w], as stored.
        labels: [m, k] label logits of the images that students see.
        student_lr: student learning rate > 0, of all networks or of each.
        networks: how many networks are matched; each learns a rate of its own.

    Raises:
        ValueError: for a rate that is not above 0, or not one for each network.
    """
    rates = [student_lr] * networks if isinstance(student_lr, int | float) else list(student_lr)
    if len(rates) != networks:
        raise ValueError(f"got {len(rates)} student learning rates for {networks} networks")
    for rate in rates:
        if not rate > 0:
            raise ValueError(f"the student learning rate is {rate}; it must be above 0")
    logs = torch.tensor(
        [math.log(rate) for rate in rates], dtype=images.dtype, device=images.device
    )
    log_student_lr = logs if networks > 1 else logs[0]
    multiplier = torch.zeros_like(logs[0])
    images, labels = images.detach().clone(), labels.detach().clone()
    moments = (Moments.zeros(images), Moments.zeros(labels), Moments.zeros(log_student_lr))
    start = Learned(images, labels, log_student_lr, moments, images, 0, multiplier)
    return MatchState(0, 0, start, start)


_LEARNED = ("images", "labels", "log_student_lr", "average", "multiplier")


def pack_state(state: MatchState) -> tuple[dict[str, Tensor], dict[str, int]]:
    """A state as named tensors and numbers."""
    tensors: dict[str, Tensor] = {}
    for part, learned in (("now", state.now), ("good", state.good)):
        for name in _LEARNED:
            tensors[f"{part}.{name}"] = getattr(learned, name)
        for index, moments in enumerate(learned.moments):
            tensors[f"{part}.mean.{index}"] = moments.mean
            tensors[f"{part}.square.{index}"] = moments.square
    header = {
        "step": state.step,
        "refusals": state.refusals,
        "now": state.now.updates,
        "good": state.good.updates,
    }
    return tensors, header


def unpack_state(
    tensors: dict[str, Tensor], header: dict[str, int], *, device: torch.device
) -> MatchState:
    """The state of `pack_state`, on a device."""

    def learned(part: str) -> Learned:
        images, labels, log_student_lr, average, multiplier = (
            tensors[f"{part}.{name}"].to(device) for name in _LEARNED
        )
        first, second, third = (
            Moments(
                tensors[f"{part}.mean.{index}"].to(device),
                tensors[f"{part}.square.{index}"].to(device),
            )
            for index in range(3)
        )
        return Learned(
            images,
            labels,
            log_student_lr,
            (first, second, third),
            average,
            header[part],
            multiplier,
        )

    return MatchState(header["step"], header["refusals"], learned("now"), learned("good"))
