"""Times of units of work, measured on one machine, and how they price other work."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.errors import WorkError
from distill.run.dry_run import Cost
from distill.stages.units.unit import NotPricedError
from distill.store.documents import read_json
from distill.store.files import write_json
from distill.store.jsonl import from_row
from distill.store.seals import fits, sealed

KIND, FORMAT = "calibration", 1

# Where a time comes from, the most reliable first.
MEASURED, SCALED, BY_OPERATIONS = "measured", "scaled", "by operations"

BASES = (MEASURED, SCALED, BY_OPERATIONS)


@dataclass(frozen=True)
class Timed:
    """How long one unit of work takes.

    Attributes:
        what: the unit, in words.
        images: the shape of its images and the number of classes, in words.
        batch: the wanted batch size in images.
        seconds: for one unit at the wanted batch size.
        flops: floating-point operations of one unit at the wanted batch size.
        peak_bytes: the most bytes of tensors that are alive while it runs.
        measured_batch: the batch size that was measured; another one is extrapolated linearly.
        units: how many were timed after the warm-up, 0 if none was.
        basis: "measured"; "scaled" from another batch size, or to what compilation gained
            elsewhere; or "by operations", from other units at their operations a second.
        workers: processes that did such work at the same time, on one thread each; None for one
            alone with as many threads as its batch keeps busy.
        compiling: seconds that the first unit in a process takes longer, to compile; 0 for a unit
            that is not compiled.
    """

    what: str
    images: str
    batch: int
    seconds: float
    flops: int = 0
    peak_bytes: int = 0
    measured_batch: int = 0
    units: int = 0
    basis: str = MEASURED
    workers: int | None = None
    compiling: float = 0.0

    @property
    def kind(self) -> str:
        """The kind of work, such as "training step": `what` up to " of "."""
        return self.what.partition(" of ")[0]


@dataclass(frozen=True)
class Calibration:
    """Units that were timed on one machine.

    Attributes:
        device: the machine's device, e.g. "cpu" or the name of a GPU.
        threads: of the CPU.
        units: what was timed.
    """

    device: str
    threads: int
    units: tuple[Timed, ...]

    def price(self, what: str, images: str, batch: int, cost: Cost, workers: int | None) -> Timed:
        """The time of a unit: its own, that at another batch size, or one from other units' FLOP/s.

        Of its own times, those that were measured with as many workers come first.

        Raises:
            NotPricedError: for work without operations that was not timed.
            WorkError: if no timed unit counts operations.
        """
        wanted = Timed(what, images, batch, 0.0, cost.flops, cost.peak_bytes, workers=workers)
        same = [unit for unit in self.units if (unit.what, unit.images) == (what, images)]
        if not same and not cost.flops:
            raise NotPricedError(f"the calibration has no {what}, which no other unit can price")
        if not same:
            return by_operations(self.units, wanted)
        nearest = min(same, key=lambda unit: (unit.workers != workers, abs(unit.batch - batch)))
        basis = nearest.basis if nearest.batch == batch else SCALED
        return replace(
            wanted,
            seconds=nearest.seconds * batch / nearest.batch,
            measured_batch=nearest.measured_batch,
            units=nearest.units,
            basis=basis,
            compiling=nearest.compiling,
        )


def by_operations(known: Iterable[Timed], wanted: Timed) -> Timed:
    """`wanted` at the median FLOP/s of the known units, of its own kind if there are any.

    Raises:
        WorkError: if no known unit counts operations.
    """
    usable = [unit for unit in known if unit.units and unit.flops and unit.seconds > 0]
    rates = [u.flops / u.seconds for u in usable if u.kind == wanted.kind]
    rates = rates or [u.flops / u.seconds for u in usable]
    if not rates:
        raise WorkError("nothing was timed that could price a plan; calibrate again")
    seconds = wanted.flops / statistics.median(rates)
    return replace(wanted, seconds=seconds, basis=BY_OPERATIONS)


def weakest(bases: Sequence[str]) -> str:
    """The least reliable of several bases."""
    return max(bases, key=BASES.index, default=MEASURED)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write units to a file; units of the same machine already in it are kept.

    Raises:
        WorkError: if the file is no calibration, or one of another machine.
    """
    units = {_key(unit): unit for unit in calibration.units}
    if path.exists():
        before = read_calibration(path)
        if (before.device, before.threads) != (calibration.device, calibration.threads):
            raise WorkError(
                f"{path} was measured on {before.device} with {before.threads} thread(s), this is "
                f"{calibration.device} with {calibration.threads}; name another file"
            )
        units = {**{_key(unit): unit for unit in before.units}, **units}
    content = {
        "limbeck": KIND,
        "format": FORMAT,
        "device": calibration.device,
        "threads": calibration.threads,
        "units": [asdict(unit) for unit in units.values()],
    }
    write_json(path, sealed(content))


def read_calibration(path: Path) -> Calibration:
    """Read a file of `write_calibration`.

    Raises:
        WorkError: if it is missing, or no calibration of this version.
    """
    try:
        raw: Any = read_json(path)
    except (OSError, ValueError) as error:
        raise WorkError(f"calibration {path} cannot be read: {error}") from None
    try:
        if fits(raw) is False:
            raise WorkError(f"calibration {path} is not as it was measured; measure it again")
        if raw["limbeck"] != KIND or raw["format"] != FORMAT:
            raise ValueError
        units = tuple(_checked(from_row(Timed, unit)) for unit in raw["units"])
        return Calibration(str(raw["device"]), int(raw["threads"]), units)
    except (KeyError, TypeError, ValueError):
        raise WorkError(
            f"{path} is no calibration of this version; make one with `distill plan RECIPE "
            f"--calibrate {path}`"
        ) from None


def _checked(unit: Timed) -> Timed:
    numbers = (
        unit.batch - 1,
        unit.seconds,
        unit.flops,
        unit.peak_bytes,
        unit.units,
        unit.compiling,
        unit.workers or 0,
    )
    if unit.basis not in BASES or any(not 0 <= number < float("inf") for number in numbers):
        raise ValueError
    return unit


def _key(unit: Timed) -> tuple[str, str, int, int | None]:
    return (unit.what, unit.images, unit.batch, unit.workers)
