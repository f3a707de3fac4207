"""Peak memory of one matching gradient, from a dry run on the meta device.

Every operator runs on tensors that have shapes and no values; what is alive is summed at each.
What kernels use inside themselves, and the process itself, come on top.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill.build import build_network, build_views
from distill.plan.shapes import DataShape
from distill.plan.sizes import meta_network, synthetic_shape
from distill.tables import Recipe
from synth.directional import DirectionalForm, choose_form
from synth.gradients import parameter_distance, replay
from synth.inner_loop import InnerLoop, draw_batches, make_inner_loop
from synth.parameters import parameter_layout


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors of one kind of device that are alive.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.now = self.peak = 0
        self._device = device
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and note the memory that its results brought."""
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor) and leaf.device.type == self._device:
                self._note(leaf.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        # A view shares the storage of its base, and a storage has one Python object while it lives.
        key = id(storage)
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def matching_peaks(recipe: Recipe, shape: DataShape) -> dict[str, int]:
    """Peak bytes of the tensors of one matching gradient, by gradient method.

    Three inner steps are run dry; beyond them a replay holds more parameter vectors, and an
    unrolled gradient the graph of one more step each.
    """
    experts, table = recipe.matching()
    steps, form = table.inner_steps, _form(recipe, shape)
    short = min(steps, 3)
    vector = 4 * parameter_layout(meta_network(experts.network, shape)).count
    more = (_vectors_held(table.snapshots, steps) - short) * vector

    def replayed(damping: float) -> int:
        def run(loop: InnerLoop, start: Tensor, target: Tensor, lr: Tensor) -> object:
            return replay(loop, start, target, lr, snapshots="all", damping=damping, form=form)

        return _peak(recipe, shape, run, short) + more

    longer = _peak(recipe, shape, _unrolled, short)
    growth = longer - _peak(recipe, shape, _unrolled, short - 1) if short > 1 else 0
    return {
        "adjoint": replayed(1.0),
        "frozen": replayed(0.0),
        "unrolled": longer + (steps - short) * growth,
    }


def _vectors_held(snapshots: str, steps: int) -> int:
    """Parameter vectors of the inner path that are on the device at once, see `Adjoint`."""
    stride = math.isqrt(steps - 1) + 1
    return {"all": steps, "sqrt": -(-steps // stride) + stride - 1, "offload": 1}[snapshots]


def _form(recipe: Recipe, shape: DataShape) -> DirectionalForm:
    """The form of the derivatives that the network gets, found on two random images."""
    spec = recipe.matching()[0].network
    network = build_network(spec, shape.channels, shape.size, shape.classes, 0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape.image, generator=generator)
    labels = torch.randn(2, shape.classes, generator=generator)
    loop = make_inner_loop(network, images, labels, [torch.arange(2)], None)
    point = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    direction = torch.randn(len(point), generator=generator)
    return choose_form(loop, 0, point, direction)


def _peak(recipe: Recipe, shape: DataShape, run: Callable[..., object], steps: int) -> int:
    experts, table = recipe.matching()
    count = synthetic_shape(recipe, shape).seen
    network = meta_network(experts.network, shape)
    generator = torch.Generator().manual_seed(0)
    batches = draw_batches(count, table.batch_size, steps, generator)
    views = build_views(recipe.data.augmentation, one_per_batch=True)
    drawn = None
    if views is not None:
        drawn = [views.sample(len(batch), shape.size, generator) for batch in batches]
    parameters = parameter_layout(network).count
    with LiveBytes() as live:
        images = torch.empty(count, *shape.image, device="meta")
        labels = torch.empty(count, shape.classes, device="meta")
        start, target = (torch.empty(parameters, device="meta") for _ in range(2))
        loop = make_inner_loop(network, images, labels, batches, drawn)
        run(loop, start, target, torch.empty((), device="meta"))
    return live.peak


def _unrolled(loop: InnerLoop, start: Tensor, target: Tensor, lr: Tensor) -> object:
    """Plain automatic differentiation of all inner steps, as `synth.Unrolled` holds it."""
    images, labels = loop.images.requires_grad_(), loop.labels.requires_grad_()
    lr, parameters = lr.requires_grad_(), start.requires_grad_()
    for step, batch in enumerate(loop.batches):
        loss = loop.loss(step, loop.forward(parameters), images[batch], labels[batch])
        (gradient,) = torch.autograd.grad(loss, parameters, create_graph=True)
        parameters = parameters - lr * gradient
    distance = parameter_distance(parameters, start.detach(), target)
    return torch.autograd.grad(distance, (images, labels, lr))
