"""Measures how long one unit of work takes on this machine, in well under a second each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from distill.plan.shapes import DataShape
from distill.threads import threads_for

# A call of about this length is long enough to measure; a longer one gets a smaller batch.
CALL_SECONDS = 0.25
BUDGET_SECONDS = 0.6
# After so long, each unit that is left gets one call, at the batch size of the first look.
HURRY_SECONDS = 20.0
_LEAST_CALLS, _MOST_CALLS = 3, 40
# The first look at a unit is taken with so many images.
_PROBE = 4


@dataclass(frozen=True)
class Timed:
    """How long one unit of work takes.

    Attributes:
        what: the unit, in words.
        seconds: for one unit at the wanted batch size.
        batch: the wanted batch size in images.
        measured_batch: the one that was measured; a smaller one is extrapolated linearly.
        units: how many were measured after the warm-up.
    """

    what: str
    seconds: float
    batch: int
    measured_batch: int
    units: int


# batch size -> a call to time, and how many units it does
Work = Callable[[int], tuple[Callable[[], object], int]]


@dataclass
class Clock:
    """Times work on random images of the data's shape; what was timed before is not timed again.

    Attributes:
        shape: of the data.
        device: where the work is done.
    """

    shape: DataShape
    device: torch.device
    _known: dict[str, Timed] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    def images(self, count: int) -> Tensor:
        """Random images [count, c, h, w] on the device."""
        return torch.randn(count, *self.shape.image, generator=_generator()).to(self.device)

    def labels(self, count: int) -> Tensor:
        """Random label logits [count, k] on the device."""
        return torch.randn(count, self.shape.classes, generator=_generator()).to(self.device)

    def time(self, what: str, batch: int, work: Work, *networks: nn.Module) -> Timed:
        """Time the work called `what`, a name of its own, with `batch` images to a unit.

        The threads are those that the stages take for such batches in `networks`.
        """
        name = f"{what}, batch {batch}"
        if name not in self._known:
            parameters = sum(p.numel() for network in networks for p in network.parameters())
            with threads_for(batch * self.shape.pixels, parameters, self.device):
                self._known[name] = self._measure(what, batch, work)
        return self._known[name]

    def _measure(self, what: str, batch: int, work: Work) -> Timed:
        hurry = time.monotonic() - self._started > HURRY_SECONDS
        used = min(batch, _PROBE)
        call, units = work(used)
        call()
        found = [self._seconds(call)]
        # The probe's own overhead counts as if it grew with the batch, so twice is allowed.
        affordable = int(used * CALL_SECONDS / max(found[0], 1e-9))
        larger = batch if 2 * affordable >= batch else affordable
        if larger > used and not hurry:
            used, found = larger, []
            call, units = work(used)
            call()
        while not hurry and (
            len(found) < _LEAST_CALLS or (len(found) < _MOST_CALLS and sum(found) < BUDGET_SECONDS)
        ):
            found.append(self._seconds(call))
        seconds = statistics.median(found) / units * batch / used
        return Timed(what, seconds, batch, used, len(found) * units)

    def _seconds(self, call: Callable[[], object]) -> float:
        # With one thread on the CPU, time spent waiting for other processes can be left out.
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        now = time.process_time if alone else time.perf_counter
        self._wait()
        started = now()
        call()
        self._wait()
        return now() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _generator() -> Generator:
    return torch.Generator().manual_seed(0)


def exhaust(items: Iterable[object]) -> None:
    """Take all items and keep none."""
    for _ in items:
        pass
