"""Measures how long one unit of work takes on this machine, in well under a second each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from distill.machine import threads_for
from distill.plan.calibration import MEASURED, SCALED, Calibration, Timed, by_operations
from distill.run.dry_run import Cost, run_dry
from distill.stages.units.shapes import DataShape
from distill.stages.units.unit import Unit

# A call of about this length is long enough to measure; a longer one gets a smaller batch.
CALL_SECONDS = 0.25

# Calls of a unit are repeated for this long.
BUDGET_SECONDS = 0.4

# After this long, each remaining unit is timed by a single call after its probe.
HURRY_SECONDS = 20.0

# A probe that would take longer than this is skipped; other units' FLOP/s price the unit.
PROBE_SECONDS = 5.0

_LEAST_CALLS, _MOST_CALLS = 3, 40

# Images of the probe, the first call of a unit.
_PROBE_IMAGES = 4

# On a GPU the batch is sized for a call of this length at this share of a convolution's FLOP/s:
# small batches are bound by the CPU, so a probe does not extrapolate.
_GPU_SECONDS, _GPU_SHARE = 1.0, 0.5

# Images of the convolution that measures a device's FLOP/s.
_CONVOLVED = {"cpu": 8, "cuda": 256}

# Lower bounds on FLOP/s, used before anything is timed.
_SLOWEST = {"cpu": 1e10, "cuda": 1e12}


@dataclass
class Clock:
    """Times units of work; each is timed once.

    Attributes:
        shape: of the data.
        device: where the work is done.
        calibration: another machine's times, used instead of measuring here.
    """

    shape: DataShape
    device: torch.device
    calibration: Calibration | None = None
    _known: dict[tuple[str, int], Timed] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    @property
    def measured(self) -> tuple[Timed, ...]:
        """The units that were timed."""
        return tuple(timed for timed in self._known.values() if timed.units)

    def time(self, unit: Unit) -> Timed:
        """Time a unit at its batch size, with the threads that the stages would take.

        Raises:
            NotPricedError: if the calibration cannot price such a unit.
        """
        batch = unit.batch
        key = (unit.what, batch)
        if key not in self._known:
            cost = unit.cost(batch)
            if self.calibration is not None:
                timed = self.calibration.price(unit.what, self.shape.description, batch, cost)
            else:
                with threads_for(batch * self.shape.pixels, unit.parameters, self.device):
                    timed = self._measure(unit, cost)
            self._known[key] = timed
        return self._known[key]

    def _measure(self, unit: Unit, cost: Cost) -> Timed:
        batch = unit.batch
        timed = Timed(unit.what, self.shape.description, batch, 0.0, cost.flops, cost.peak_bytes)
        used = min(batch, _PROBE_IMAGES)
        rate = max((t.flops / t.seconds for t in self.measured if t.seconds > 0), default=0.0)
        rate = max(rate, _SLOWEST.get(self.device.type, 1e10))
        if cost.flops * used / batch > PROBE_SECONDS * rate:
            known = [unit for unit in self.measured if unit.flops] or [self._convolution]
            return by_operations(known, timed)
        hurry = time.monotonic() - self._started > HURRY_SECONDS
        call, units = unit.work(used)
        call()
        seconds = [self._seconds(call)]
        larger = self._affordable(batch, cost, used, seconds[0], units)
        if larger > used:
            used, seconds = larger, []
            call, units = unit.work(used)
            if not hurry:
                call()
        least, most = (1, 1) if hurry else (_LEAST_CALLS, _MOST_CALLS)
        while len(seconds) < least or (len(seconds) < most and sum(seconds) < BUDGET_SECONDS):
            seconds.append(self._seconds(call))
        return Timed(
            unit.what,
            self.shape.description,
            batch,
            statistics.median(seconds) / units * batch / used,
            cost.flops,
            cost.peak_bytes,
            used,
            len(seconds) * units,
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
        # Work without counted operations runs on the CPU.
        if self.device.type == "cuda" and cost.flops:
            rate = _GPU_SHARE * self._convolution.flops / self._convolution.seconds
            return min(batch, int(batch * _GPU_SECONDS * rate / (cost.flops * units)))
        # The probe's fixed overhead is scaled with the batch here, so twice as many are allowed.
        affordable = int(used * CALL_SECONDS / max(seconds, 1e-9))
        return batch if 2 * affordable >= batch else affordable

    @cached_property
    def _convolution(self) -> Timed:
        """A wide convolution and its derivatives, the reference where all units are too large."""
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
