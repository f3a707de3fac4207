"""Peak memory of each stage: the process, the data that it holds, and its largest unit of work."""

from __future__ import annotations

from dataclasses import dataclass

from distill.plan.times import StageTime
from distill.stages.loading import STAGES
from distill.stages.units.networks import Units


@dataclass(frozen=True)
class StageMemory:
    """Peak bytes of a stage.

    Attributes:
        host: the process and its data in host memory.
        device: data and tensors on the device; also host memory if that is the CPU.
    """

    host: int
    device: int


def stage_memory(
    units: Units, stages: dict[str, StageTime], process: dict[str, int]
) -> dict[str, StageMemory]:
    """Peak memory of every stage of a run.

    Args:
        units: of the recipe that is run.
        stages: the units of work of each stage.
        process: resident bytes of a process that has loaded each stage's libraries, and no data.
    """
    recipe, shape = units.recipe, units.shape
    # Packed images stay on the disk; a batch of them is part of a unit of work.
    image = 0 if shape.packed else 4 * shape.pixels
    counts = {"train": shape.train, "validation": shape.validation, "test": shape.test}
    data = image * sum(counts.values())
    whitening = 8 * shape.pixels**2 if recipe.data.zca else 0
    # A run keeps preprocessed splits in memory for later stages.
    held: set[str] = set()
    peaks = {}
    for name, time in stages.items():
        stage = STAGES[name]
        held.update(stage.splits)
        device = whitening + image * sum(counts[split] for split in held)
        device += max((part.unit.peak_bytes for part in time.parts), default=0)
        own = stage.held(units, recipe.table(stage.entry.table))
        peaks[name] = StageMemory(process[name] + data + own, device)
    return peaks
