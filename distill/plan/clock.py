"""Measures how long one unit of work takes on this machine, in tenths of a second each."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from distill.machine import threads_for
from distill.plan.calibration import (
    BY_OPERATIONS,
    MEASURED,
    SCALED,
    Calibration,
    Timed,
    by_operations,
)
from distill.plan.companions import Companions
from distill.run.dry_run import Cost, run_dry
from distill.run.engines import torch_threads
from distill.stages.units.shapes import DataShape
from distill.stages.units.unit import Unit


@dataclass(frozen=True)
class Effort:
    """How much time measuring may take; in seconds, if nothing else is said.

    Attributes:
        call: a call of about this length is long enough to measure; a longer one gets a smaller
            batch.
        second: a unit whose probe takes no longer has at least one other batch size timed, as most
            of a short call may be overhead.
        own: what a call at the wanted batch may take, once two smaller ones have told it.
        repeated: calls of a unit are repeated for this long.
        calls: as often they are timed at least.
        hurry: once timed calls have taken this long, each remaining unit is timed by a single one
            after its probe.
        probe: a probe that would take longer is skipped; other units' FLOP/s price the unit.
        compiling: once compilations have taken this long, what others gained by theirs prices the
            remaining ones; 0 for none.
    """

    call: float
    second: float
    own: float
    repeated: float
    calls: int
    hurry: float
    probe: float
    compiling: float


# For a plan that is waited for, and for a calibration that is kept.
QUICK = Effort(
    call=0.05, second=0.8, own=0.2, repeated=0.05, calls=2, hurry=3.0, probe=1.0, compiling=0.0
)
THOROUGH = Effort(
    call=0.25, second=0.8, own=0.5, repeated=0.4, calls=3, hurry=20.0, probe=5.0, compiling=60.0
)

_MOST_CALLS = 40

# Share of the eager time that a compiled step takes, and seconds of its compilation, where none
# was measured: steps of ConvNets take from 0.41 (batches of 100) to 0.91 of it (batches of ten),
# those of a narrow ResNet-18 from 0.73 to 0.97.
_COMPILED_SHARE, _COMPILED_AFTER = 0.7, 10.0

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
        effort: how much time measuring may take.
        companions: keep the other cores busy while the work of several workers is timed.
    """

    shape: DataShape
    device: torch.device
    calibration: Calibration | None = None
    effort: Effort = THOROUGH
    companions: Companions = field(default_factory=Companions)
    _known: dict[tuple[str, int, int | None], Timed] = field(default_factory=dict)
    _costs: dict[tuple[str, int], Cost] = field(default_factory=dict)
    _gained: list[float] = field(default_factory=list)
    _compiled: list[float] = field(default_factory=list)
    _compiling: float = 0.0
    _measuring: float = 0.0

    @property
    def measured(self) -> tuple[Timed, ...]:
        """The units that were timed."""
        return tuple(timed for timed in self._known.values() if timed.units)

    def time(self, unit: Unit, workers: int | None = None) -> Timed:
        """Time a unit at its batch size, with the threads that the stages would take.

        Args:
            unit: of work.
            workers: that do such work at the same time, on one thread each; None for this process
                alone, with the threads that the batch keeps busy.

        Raises:
            NotPricedError: if the calibration cannot price such a unit.
            WorkError: if no workers can be started.
        """
        batch = unit.batch
        what = f"{unit.what}, compiled" if unit.compiled is not None else unit.what
        key = (what, batch, workers)
        if key not in self._known:
            cost = self.cost(unit)
            if self.calibration is not None:
                images = self.shape.description
                timed = self.calibration.price(what, images, batch, cost, workers)
            else:
                pixels = batch * self.shape.pixels
                with (
                    self._as_workers(workers),
                    threads_for(pixels, unit.parameters, self.device),
                ):
                    timed = self._compile(unit, self._measure(unit, cost))
                timed = replace(timed, what=what, workers=workers)
            self._known[key] = timed
        return self._known[key]

    def cost(self, unit: Unit) -> Cost:
        """What one unit needs, without doing it."""
        key = (unit.what, unit.batch)
        if key not in self._costs:
            self._costs[key] = unit.cost(unit.batch)
        return self._costs[key]

    @contextmanager
    def _as_workers(self, workers: int | None) -> Iterator[None]:
        """One thread, and the other workers busy."""
        with torch_threads(None if workers is None else 1):
            self.companions.busy((workers or 1) - 1)
            try:
                yield
            finally:
                self.companions.busy(0)

    def _compile(self, unit: Unit, eager: Timed) -> Timed:
        """The time of a unit whose networks are compiled; of any other, `eager`.

        The work is compiled at the batch size that was measured, unless others have taken all the
        time for that, or the unit is too large to be measured at all. It is compiled twice: a run
        here will find in torch's cache on the disk what the first time left there.
        """
        if unit.compiled is None:
            return eager
        if not eager.units or self._compiling >= self.effort.compiling:
            share = statistics.median(self._gained or [_COMPILED_SHARE])
            compiling = statistics.median(self._compiled or [_COMPILED_AFTER])
            basis = eager.basis if eager.basis == BY_OPERATIONS else SCALED
            return replace(eager, seconds=eager.seconds * share, compiling=compiling, basis=basis)
        started = time.monotonic()
        for _ in range(2):
            torch.compiler.reset()
            call, units = unit.compiled(eager.measured_batch)
            first = _processor_seconds(call)
        self._compiling += time.monotonic() - started
        seconds = self._repeated(call, [], self.effort.calls, _MOST_CALLS)
        once = statistics.median(seconds)
        took = once / units * eager.batch / eager.measured_batch
        self._gained.append(took / eager.seconds)
        self._compiled.append(max(first - once, 0.0))
        return replace(
            eager, seconds=took, units=len(seconds) * units, compiling=self._compiled[-1]
        )

    def _measure(self, unit: Unit, cost: Cost) -> Timed:
        batch = unit.batch
        timed = Timed(unit.what, self.shape.description, batch, 0.0, cost.flops, cost.peak_bytes)
        probed = used = min(batch, _PROBE_IMAGES)
        rate = max((t.flops / t.seconds for t in self.measured if t.seconds > 0), default=0.0)
        rate = max(rate, _SLOWEST.get(self.device.type, 1e10))
        if cost.flops * used / batch > self.effort.probe * rate:
            known = [unit for unit in self.measured if unit.flops] or [self._convolution]
            return by_operations(known, timed)
        hurry = self._measuring > self.effort.hurry
        call, units = unit.work(used)
        call()
        seconds = [self._seconds(call)]
        probe = seconds[0] / units
        larger = self._affordable(batch, cost, used, seconds[0], units)
        if larger > used:
            call, units = unit.work(larger)
            if not hurry:
                call()
            first = [self._seconds(call)]
            if self._fits(batch, (used, seconds[0]), (larger, first[0])):
                larger, first = batch, []
                call, units = unit.work(larger)
                call()
            used, seconds = larger, first
        # A call that was not expected to fit is made twice at most, the first time to warm up.
        hurry = hurry or (larger < batch and probe * larger / probed * units > 2 * self.effort.call)
        least, most = (1, 1) if hurry else (self.effort.calls, _MOST_CALLS)
        seconds = self._repeated(call, seconds, least, most)
        once = statistics.median(seconds) / units
        slope = once / used
        if used > probed and self.device.type != "cuda":
            # What a call takes for any number of images is not scaled with them.
            slope = min(max((once - probe) / (used - probed), 0.0), slope)
        return replace(
            timed,
            seconds=once + slope * (batch - used),
            measured_batch=used,
            units=len(seconds) * units,
            basis=MEASURED if used == batch else SCALED,
        )

    def _fits(self, batch: int, small: tuple[int, float], large: tuple[int, float]) -> bool:
        """Whether two measured sizes, with their seconds, say that the wanted one fits into a call.

        On a GPU they say nothing: small batches are bound by the CPU.
        """
        if self.device.type == "cuda" or large[0] >= batch:
            return False
        slope = (large[1] - small[1]) / (large[0] - small[0])
        return large[1] + slope * (batch - large[0]) <= self.effort.own

    def _repeated(
        self, call: Callable[[], object], seconds: list[float], least: int, most: int
    ) -> list[float]:
        """Seconds of `least` calls, and of up to `most` while they are short; after some others."""
        seconds = list(seconds)
        while len(seconds) < least or (len(seconds) < most and sum(seconds) < self.effort.repeated):
            seconds.append(self._seconds(call))
        return seconds

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
        affordable = int(used * self.effort.call / max(seconds, 1e-9))
        if 2 * affordable >= batch:
            return batch
        # A second size shows how much of the probe was overhead, if it takes two seconds at most.
        return (
            max(affordable, min(batch, 4 * used)) if seconds <= 2 * self.effort.call else affordable
        )

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
        """Seconds of a call, which count as time that measuring took."""
        # With one thread on the CPU, time spent waiting for other processes can be left out.
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        now = time.process_time if alone else time.perf_counter
        self._wait()
        started = now()
        call()
        self._wait()
        seconds = now() - started
        self._measuring += seconds
        return seconds

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _processor_seconds(call: Callable[[], object]) -> float:
    """What a call takes of the processor, in this process and in those that it waits for.

    A compiler is such a process. Other work of the machine is left out.
    """
    started = sum(os.times()[:4])
    call()
    return sum(os.times()[:4]) - started
