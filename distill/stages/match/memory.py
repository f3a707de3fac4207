"""Peak memory of one matching gradient, from a dry run on the meta device."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from distill.names import GRADIENTS
from distill.recipes.build import build_network, build_views
from distill.recipes.schema import Recipe
from distill.run.dry_run import Cost, run_dry
from distill.stages.units.shapes import DataShape, meta_network, synthetic_shape
from synth.matching.directional import DirectionalForm, Eager, choose_form
from synth.matching.gradients import parameter_distance, replay
from synth.matching.inner_loop import InnerLoop, draw_batches, make_inner_loop
from synth.parameters import parameter_layout


def matching_peaks(recipe: Recipe, shape: DataShape) -> dict[str, int]:
    """Peak bytes of the tensors of one matching gradient, by gradient method.

    Where several networks are matched, those of the one that needs most.
    """
    experts, _ = recipe.matching()
    found = [network_peaks(recipe, shape, spec) for spec in experts.all_networks]
    return {name: max(peaks[name] for peaks in found) for name in found[0]}


def network_peaks(recipe: Recipe, shape: DataShape, spec: str) -> dict[str, int]:
    """`matching_peaks` for segments of the network `spec`.

    Three inner steps are run dry; beyond them a replay holds more parameter vectors, and an
    unrolled gradient the graph of one more step each.
    """
    _, table = recipe.matching()
    steps, run = table.inner_steps, _dry_run(recipe, shape, spec)
    short = min(steps, 3)
    vector = 4 * parameter_layout(meta_network(spec, shape)).count
    more = (_vectors_held(table.snapshots, steps) - short) * vector

    def peak(method: str, count: int) -> int:
        return _cost(replace(run, method=method, steps=count)).peak_bytes

    longer = peak("unrolled", short)
    shorter = peak("unrolled", short - 1) if short > 1 else longer
    found = {
        "adjoint": peak("adjoint", short) + more,
        "frozen": peak("frozen", short) + more,
        "unrolled": longer + (steps - short) * (longer - shorter),
    }
    return {name: found[entry.like or name] for name, entry in GRADIENTS.items()}


def inner_step_cost(recipe: Recipe, shape: DataShape, spec: str, batch: int) -> Cost:
    """Operations of one inner step of a long loop, and the peak bytes of a whole gradient.

    Args:
        recipe: its [match] table says which gradient.
        shape: of the data.
        spec: whose steps.
        batch: images of an inner step.
    """
    _, table = recipe.matching()
    sized = table.model_copy(update={"batch_size": batch})
    recipe = recipe.model_copy(update={"match": sized})
    run = _dry_run(recipe, shape, spec)
    run = replace(run, method=GRADIENTS[table.gradient].like or table.gradient)
    two, three = (_cost(replace(run, steps=steps)) for steps in (2, 3))
    flops = three.flops - two.flops
    if table.snapshots == "sqrt":
        # Most inner steps are taken twice: 3 forward costs more, to about 12.
        flops = flops * 5 // 4
    return Cost(flops, network_peaks(recipe, shape, spec)[table.gradient])


def _vectors_held(snapshots: str, steps: int) -> int:
    """Parameter vectors of the inner path that are on the device at once, see `Adjoint`."""
    stride = math.isqrt(steps - 1) + 1
    return {"all": steps, "sqrt": -(-steps // stride) + stride - 1, "offload": 1}[snapshots]


@lru_cache(maxsize=16)
def _form(spec: str, shape: DataShape) -> DirectionalForm:
    """The form of the derivatives that the network gets, found on two random images."""
    network = build_network(spec, shape.channels, shape.size, shape.classes, 0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape.image, generator=generator)
    labels = torch.randn(2, shape.classes, generator=generator)
    loop = make_inner_loop(network, images, labels, [torch.arange(2)], None)
    point = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    direction = torch.randn(len(point), generator=generator)
    return choose_form(loop, 0, point, direction)


@dataclass(frozen=True)
class _DryRun:
    """One gradient through a few inner steps of a network, by all that decides its cost.

    Attributes:
        spec: of the network.
        shape: of the data.
        count: images of the set.
        batch: those of an inner step.
        augmentation: families of the views.
        method: adjoint, frozen or unrolled.
        steps: inner steps.
    """

    spec: str
    shape: DataShape
    count: int
    batch: int
    augmentation: str
    method: str = "adjoint"
    steps: int = 1


def _dry_run(recipe: Recipe, shape: DataShape, spec: str) -> _DryRun:
    count, (_, table) = synthetic_shape(recipe, shape).seen, recipe.matching()
    batch = min(table.batch_size or count, count)
    return _DryRun(spec, shape, count, batch, recipe.data.augmentation)


# A run takes a fifth of a second, and peaks and operations need the same ones.
@lru_cache(maxsize=64)
def _cost(run: _DryRun) -> Cost:
    """What a gradient needs, without doing it."""
    shape, network = run.shape, meta_network(run.spec, run.shape)
    generator = torch.Generator().manual_seed(0)
    batches = draw_batches(run.count, run.batch, run.steps, generator)
    views = build_views(run.augmentation, one_per_batch=True)
    drawn = None
    if views is not None:
        drawn = [views.sample(len(batch), shape.size, generator) for batch in batches]
    parameters = parameter_layout(network).count
    passes, damping = Eager(_form(run.spec, shape)), 1.0 if run.method == "adjoint" else 0.0

    def work() -> None:
        images = torch.empty(run.count, *shape.image, device="meta")
        labels = torch.empty(run.count, shape.classes, device="meta")
        start, target = (torch.empty(parameters, device="meta") for _ in range(2))
        loop = make_inner_loop(network, images, labels, batches, drawn)
        lr = torch.empty((), device="meta")
        if run.method == "unrolled":
            _unrolled(loop, start, target, lr)
        else:
            replay(loop, start, target, lr, snapshots="all", damping=damping, passes=passes)

    return run_dry(work)


def _unrolled(loop: InnerLoop, start: Tensor, target: Tensor, lr: Tensor) -> object:
    """Plain automatic differentiation of all inner steps, as `synth.Unrolled` holds it."""
    images, labels = loop.images.requires_grad_(), loop.set_labels.requires_grad_()
    lr, parameters = lr.requires_grad_(), start.requires_grad_()
    for step, batch in enumerate(loop.batches):
        loss = loop.loss(step, loop.forward(parameters), images[batch], labels[batch])
        (gradient,) = torch.autograd.grad(loss, parameters, create_graph=True)
        parameters = parameters - lr * gradient
    distance = parameter_distance(parameters, start.detach(), target)
    return torch.autograd.grad(distance, (images, labels, lr))
