"""The load of a job, from a dry run of one of its steps; nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch

from distill.recipes.build import build_network
from distill.run.dry_run import Cost, run_dry
from distill.run.engines import Load
from synth.losses import soft_cross_entropy

# A step of a small network takes as long as this many operations, however few it has.
STEP_FLOPS = 1e8


def training_load(
    spec: str, image: tuple[int, int, int], classes: int, batch: int, steps: int
) -> Load:
    """The operations of `steps` training steps of a network, and the tensors of one step.

    Args:
        spec: of the network.
        image: channels, height and width of its images.
        classes: k.
        batch: images of a step.
        steps: how many.
    """
    cost = _step_cost(spec, image, classes, batch)
    return Load(steps * (cost.flops + STEP_FLOPS), cost.peak_bytes)


def together(loads: Iterable[Load]) -> Load:
    """The load of one process that does all of these one after another."""
    flops, size = 0.0, 0
    for load in loads:
        flops, size = flops + load.flops, max(size, load.bytes)
    return Load(flops, size)


def step_count(images: int, batch: int) -> int:
    """Steps of an epoch in batches of at most `batch`, the last of which may have fewer images."""
    return -(-images // min(batch, images)) if images else 0


@lru_cache(maxsize=64)
def _step_cost(spec: str, image: tuple[int, int, int], classes: int, batch: int) -> Cost:
    """The cost of a training step of a network; a large one where it cannot be run dry."""

    def step() -> None:
        with torch.device("meta"):
            network = build_network(spec, image[0], image[1:], classes, 0)
            images, labels = torch.empty(batch, *image), torch.empty(batch, classes)
        soft_cross_entropy(network(images), labels).backward()

    return _dry(step)


def _dry(step: Callable[[], None]) -> Cost:
    try:
        return run_dry(step)
    except RuntimeError:
        # Its code reads values, which tensors on the meta device lack.
        return Cost(10**12, 0)
