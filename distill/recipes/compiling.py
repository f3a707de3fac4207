"""Whether a recipe's networks are compiled: decided once, before the first stage, and recorded.

A compiled network computes the same up to rounding, so a run that is resumed or repeated keeps what
it decided at first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Any, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode

from distill.machine import prepare_compiler
from distill.recipes.build import build_network, is_trained
from distill.recipes.schema import Recipe
from distill.recipes.specs import find_network
from synth.compiling import find_compiler

# A compilation takes up to a minute and saves from a third to two thirds of the time: it pays
# where the eager work, forward and backward, takes some minutes at the speed of one core.
LEAST_COMPILED_FLOPS = 1e13

# In forward passes: a training step, whose backward pass costs two.
_PASSES = 3

# In forward passes: an inner step with its adjoint, that is, a gradient and a directional
# derivative with its reverse.
_STEP_PASSES = 9


class TrainingData(Protocol):
    """What is known of real images where only their shape counts: the data, or a plan's counts."""

    @property
    def train(self) -> Sized:
        """The images that networks train on."""
        ...

    @property
    def channels(self) -> int:
        """Those of an image."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def classes(self) -> int:
        """How many classes there are."""
        ...


def resolve_compile(
    recipe: Recipe,
    data: TrainingData,
    device: torch.device,
    earlier: Mapping[str, Any],
    say: Callable[[str], None],
) -> Recipe:
    """The recipe with "on" or "off" for every key `compile`.

    "auto" is on where there is a compiler and enough work for it, on a CPU; on CUDA steps are
    recorded as graphs instead.

    Args:
        recipe: to be resolved.
        data: the images that it trains on.
        device: where it trains.
        earlier: the recipe that the run's folder holds; empty for a new one.
        say: shows one line where compilation is asked for and not available.
    """
    available = device.type == "cpu" and find_compiler() is not None

    def decide(name: str, wanted: str) -> str:
        if wanted == "auto":
            wanted = (earlier.get(name) or {}).get("compile", "auto")
        if wanted == "auto":
            pays = available and _WORK[name](recipe, data) > LEAST_COMPILED_FLOPS
            wanted = "on" if pays else "off"
        return wanted

    return ready_to_compile(_with_compile(recipe, decide), say)


def ready_to_compile(recipe: Recipe, say: Callable[[str], None]) -> Recipe:
    """The recipe, without compilation where there is no compiler; one that is needed is prepared.

    Args:
        recipe: perhaps resolved on another machine.
        say: shows one line where compilation is asked for and not available.
    """

    def decide(name: str, wanted: str) -> str:
        if wanted == "on" and find_compiler() is None:
            say(f"{name}.compile is on, but there is no C++ compiler; going on without")
            return "off"
        if wanted == "on":
            prepare_compiler()
        return wanted

    return _with_compile(recipe, decide)


def without_compilation(recipe: Recipe) -> Recipe:
    """The recipe with "off" for every key `compile`."""
    return _with_compile(recipe, lambda name, wanted: "off")


def _with_compile(recipe: Recipe, decide: Callable[[str, str], str]) -> Recipe:
    """The recipe with what `decide` makes of the name and the key `compile` of each table."""
    changes = {}
    for name in _WORK:
        table = getattr(recipe, name)
        if table is not None:
            changes[name] = table.model_copy(update={"compile": decide(name, table.compile)})
    return recipe.model_copy(update=changes)


def _forward_flops(spec: str, data: TrainingData) -> float:
    """Floating-point operations of a network for one image."""
    # A user's own may need real numbers.
    with torch.device("cpu" if find_network(spec).own else "meta"):
        network = build_network(spec, data.channels, data.size, data.classes, 0).eval()
        images = torch.zeros(1, data.channels, *data.size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images)
    return float(counter.get_total_flops())


def _experts(recipe: Recipe, data: TrainingData) -> float:
    table = recipe.experts
    if table is None:
        return 0.0
    seen = table.count * table.epochs * len(data.train)
    return _PASSES * seen * sum(_forward_flops(spec, data) for spec in table.all_networks)


def _match(recipe: Recipe, data: TrainingData) -> float:
    table = recipe.match
    if table is None or recipe.experts is None:
        return 0.0
    # Automatic differentiation through `higher` is not compiled, and features take no inner steps.
    if table.gradient == "unrolled" or not table.matches_parameters:
        return 0.0
    batch = table.batch_size or table.ipc * table.factor**2 * data.classes
    seen = table.iterations * table.segments * table.inner_steps * batch
    networks = recipe.experts.all_networks
    each = sum(_forward_flops(spec, data) for spec in networks) / len(networks)
    return _STEP_PASSES * seen * each


def _committee(recipe: Recipe, data: TrainingData) -> float:
    table = recipe.committee
    if table is None:
        return 0.0
    images = len(data.train)
    return sum(
        _PASSES * table.training(spec).epochs * images * _forward_flops(spec, data)
        for spec in table.members
        if not is_trained(spec)
    )


def _students(recipe: Recipe, data: TrainingData) -> float:
    table = recipe.evaluate
    if table is None:
        return 0.0
    stored = recipe.maker.ipc * data.classes * getattr(recipe.maker, "factor", 1) ** 2
    seen = table.seeds * 2 * len(table.labels) * max(table.epochs, table.view_epochs) * stored
    seen += (table.whole_seeds or table.seeds) * table.whole_epochs * len(data.train)
    return sum(_PASSES * seen * _forward_flops(spec, data) for spec in table.students)


_WORK: dict[str, Callable[[Recipe, TrainingData], float]] = {
    "experts": _experts,
    "match": _match,
    "committee": _committee,
    "evaluate": _students,
}
