"""Measures how long one unit of work takes on this machine, in well under a second each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Generator, Tensor

from distill.machine import threads_for
from distill.plan.calibration import MEASURED, SCALED, Calibration, Timed, by_operations
from distill.plan.shapes import DataShape
from distill.run.dry_run import Cost, run_dry

# A call of about this length is long enough to measure; a longer one gets a smaller batch.
CALL_SECONDS = 0.25

BUDGET_SECONDS = 0.4

# After so long, each unit that is left gets one call after the first look.
HURRY_SECONDS = 20.0

# A first look that would take longer than this is not taken: other units' speed is gone by.
LOOK_SECONDS = 5.0

_LEAST_CALLS, _MOST_CALLS = 3, 40

# The first look at a unit is taken with so many images.
_PROBE = 4

# A call on a GPU may take so long, at that share of the operations a second of a convolution: with
# few images it waits for the CPU, and a look says nothing of more.
_GPU_SECONDS, _GPU_SHARE = 1.0, 0.5

# Images of the convolution that a device's operations a second are measured with.
_CONVOLVED = {"cpu": 8, "cuda": 256}

# Before anything is timed, operations a second that any machine of the kind does.
_SLOWEST = {"cpu": 1e10, "cuda": 1e12}


@dataclass(frozen=True)
class Unit:
    """One unit of work, by batch size.

    Attributes:
        what: its name.
        work: batch size -> a call to time, and how many units it does.
        cost: batch size -> what one unit needs, without doing it.
        parameters: of the networks in it, which decide the number of threads.
    """

    what: str
    work: Callable[[int], tuple[Callable[[], object], int]]
    cost: Callable[[int], Cost]
    parameters: int = 0


@dataclass
class Clock:
    """Times units of work on random images of the data's shape; each is timed once.

    Attributes:
        shape: of the data.
        device: where the work is done.
        calibration: another machine's times, which are taken instead of measuring here.
    """

    shape: DataShape
    device: torch.device
    calibration: Calibration | None = None
    _known: dict[tuple[str, int], Timed] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    def images(self, count: int) -> Tensor:
        """Random images [count, c, h, w] on the device."""
        return torch.randn(count, *self.shape.image, generator=fixed_generator()).to(self.device)

    def labels(self, count: int) -> Tensor:
        """Random label logits [count, k] on the device."""
        return torch.randn(count, self.shape.classes, generator=fixed_generator()).to(self.device)

    @property
    def measured(self) -> tuple[Timed, ...]:
        """The units that were timed."""
        return tuple(timed for timed in self._known.values() if timed.units)

    def time(self, unit: Unit, batch: int) -> Timed:
        """Time a unit with `batch` images to it, with the threads that the stages would take."""
        key = (unit.what, batch)
        if key not in self._known:
            cost = unit.cost(batch)
            if self.calibration is not None:
                found = self.calibration.price(unit.what, self.shape.words, batch, cost)
            else:
                with threads_for(batch * self.shape.pixels, unit.parameters, self.device):
                    found = self._measure(unit, batch, cost)
            self._known[key] = found
        return self._known[key]

    def _measure(self, unit: Unit, batch: int, cost: Cost) -> Timed:
        timed = Timed(unit.what, self.shape.words, batch, 0.0, cost.flops, cost.peak_bytes)
        used = min(batch, _PROBE)
        rate = max((t.flops / t.seconds for t in self.measured if t.seconds > 0), default=0.0)
        rate = max(rate, _SLOWEST.get(self.device.type, 1e10))
        if cost.flops * used / batch > LOOK_SECONDS * rate:
            return by_operations(self.measured or (self._convolution,), timed)
        hurry = time.monotonic() - self._started > HURRY_SECONDS
        call, units = unit.work(used)
        call()
        found = [self._seconds(call)]
        larger = self._affordable(batch, cost, used, found[0], units)
        if larger > used:
            used, found = larger, []
            call, units = unit.work(used)
            if not hurry:
                call()
        least, most = (1, 1) if hurry else (_LEAST_CALLS, _MOST_CALLS)
        while len(found) < least or (len(found) < most and sum(found) < BUDGET_SECONDS):
            found.append(self._seconds(call))
        return Timed(
            unit.what,
            self.shape.words,
            batch,
            statistics.median(found) / units * batch / used,
            cost.flops,
            cost.peak_bytes,
            used,
            len(found) * units,
            MEASURED if used == batch else SCALED,
        )

    def _affordable(self, batch: int, cost: Cost, used: int, seconds: float, units: int) -> int:
        """The batch size, up to `batch`, that a call of `units` units may have.

        Args:
            batch: the wanted size.
            cost: of one unit at that size.
            used: a size that was measured.
            seconds: of a call at it.
            units: in a call.
        """
        if self.device.type == "cuda":
            rate = _GPU_SHARE * self._convolution.flops / self._convolution.seconds
            return min(batch, int(batch * _GPU_SECONDS * rate / max(1, cost.flops * units)))
        # The probe's own overhead counts as if it grew with the batch, so twice is allowed.
        affordable = int(used * CALL_SECONDS / max(seconds, 1e-9))
        return batch if 2 * affordable >= batch else affordable

    @cached_property
    def _convolution(self) -> Timed:
        """A wide convolution and its derivatives, to go by where all units are too large."""
        count = _CONVOLVED.get(self.device.type, 8)

        def work(device: str | torch.device) -> None:
            images = torch.ones(count, 128, 32, 32, device=device, requires_grad=True)
            weight = torch.ones(128, 128, 3, 3, device=device, requires_grad=True)
            torch.nn.functional.conv2d(images, weight, padding=1).sum().backward()

        cost = run_dry(lambda: work("meta"))
        work(self.device)
        seconds = statistics.median(self._seconds(lambda: work(self.device)) for _ in range(3))
        return Timed("convolution", "128x32x32", count, seconds, cost.flops, 0, count, 3)

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


def fixed_generator() -> Generator:
    """Numbers for measurements, which need only be the same each time."""
    return torch.Generator().manual_seed(0)


def exhaust(items: Iterable[object]) -> None:
    """Take all items and keep none."""
    for _ in items:
        pass
