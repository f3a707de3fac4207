"""The parameter vectors of an inner loop, kept or recomputed for the backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from synth.matching.directional import StepPasses
from synth.matching.inner_loop import InnerLoop

Snapshots = Literal["all", "sqrt", "offload"]


class InnerPath:
    """theta_0 ... theta_N of an inner loop, and a walk over them from the last step to the first.

    Args:
        loop: the inner loop.
        lr: student learning rate, scalar.
        snapshots: "all" keeps every vector on the device; "sqrt" keeps every ceil(sqrt(N))-th
            and recomputes the rest, one stretch at a time; "offload" keeps all in host memory.
        passes: how an inner step is taken.
    """

    def __init__(
        self, loop: InnerLoop, lr: Tensor, snapshots: Snapshots, passes: StepPasses
    ) -> None:
        self._loop = loop
        self._passes = passes
        self._lr = lr
        self._offload = snapshots == "offload"
        self._steps = len(loop.batches)
        self._stride = math.isqrt(self._steps - 1) + 1 if snapshots == "sqrt" else 1
        self._kept: list[Tensor] = []
        self._device = lr.device

    def run(self, start: Tensor) -> Tensor:
        """Take all inner steps from `start` [p]; returns theta_N [p]."""
        self._kept = []
        self._device = start.device
        parameters = start
        for step in range(self._steps):
            if step % self._stride == 0:
                self._kept.append(parameters.cpu() if self._offload else parameters)
            parameters = self._advance(step, parameters)
        return parameters

    def backwards(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (i, theta_i) for i = N-1 ... 0."""
        for index in reversed(range(len(self._kept))):
            first = index * self._stride
            stretch = [self._kept[index].to(self._device)]
            for step in range(first, min(first + self._stride, self._steps) - 1):
                stretch.append(self._advance(step, stretch[-1]))
            while stretch:
                yield first + len(stretch) - 1, stretch.pop()

    def _advance(self, step: int, parameters: Tensor) -> Tensor:
        return parameters - self._lr * self._passes.gradient(self._loop, step, parameters)
