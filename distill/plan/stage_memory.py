"""Peak memory of each stage: the process, the data that it holds, and its largest unit of work."""

from __future__ import annotations

from dataclasses import dataclass

from distill.plan.shapes import DataShape
from distill.plan.sizes import label_bytes, meta_network, parameter_count, synthetic_shape
from distill.plan.times import StageTime
from distill.recipes.recipe import Recipe, kept_epochs
from distill.store.large_arrays import is_large

# The splits that a stage brings into the networks' space; a run keeps them for later stages.
_SPLITS = {
    "experts": ("train", "validation"),
    "match": ("train",),
    "committee": ("train", "validation"),
    "recover": ("train",),
    "select": ("train",),
    "relabel": (),
    "project": ("train", "validation"),
    "evaluate": ("train", "test"),
}


@dataclass(frozen=True)
class StageMemory:
    """Peak bytes of a stage.

    Attributes:
        host: the process, and what it holds in host memory.
        device: data and tensors of the work on the device, in host memory too if that is the CPU.
    """

    host: int
    device: int


def stage_memory(
    recipe: Recipe, shape: DataShape, stages: dict[str, StageTime], process: dict[str, int]
) -> dict[str, StageMemory]:
    """The peak of every stage of a run that does them in turn.

    Args:
        recipe: what is run.
        shape: of the data.
        stages: the units of work of each stage.
        process: bytes of a process that has loaded what each stage needs of the program, and no
            data.
    """
    # Packed images stay on the disk; a batch of them is part of a unit of work.
    image = 0 if shape.packed else 4 * shape.pixels
    counts = {"train": shape.train, "validation": shape.validation, "test": shape.test}
    data = image * sum(counts.values())
    whitening = 8 * shape.pixels**2 if recipe.data.zca else 0
    held: set[str] = set()
    found = {}
    for name, stage in stages.items():
        held.update(_SPLITS[name])
        device = whitening + image * sum(counts[split] for split in held)
        device += max((part.unit.peak_bytes for part in stage.parts), default=0)
        found[name] = StageMemory(process[name] + data + _own(recipe, shape, name), device)
    return found


def _own(recipe: Recipe, shape: DataShape, stage: str) -> int:
    """What a stage collects in host memory before it writes it, once in parts and once whole."""
    if stage == "experts":
        network = meta_network(recipe.matching()[0].network, shape)
        return 2 * 4 * len(kept_epochs(recipe)) * parameter_count(network)
    if stage != "relabel" or recipe.relabel is None:
        return 0
    epochs = recipe.relabel.epochs
    logits = (epochs, synthetic_shape(recipe, shape).seen, shape.classes)
    votes = 2 * label_bytes(recipe, shape)["votes"]
    # Labels that are large wait on the disk, and an epoch of them is in memory at a time.
    return votes // epochs if is_large(logits, 2) else votes
