"""Derivatives of s = <direction, g>, g the parameter gradient of one inner step's loss.

s is the derivative of the loss along `direction`. Double backward differentiates g; the other
form computes s itself by a forward-mode pass and needs one reverse pass, about 9 forward costs
instead of 12.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from synth.errors import lacks_memory
from synth.matching.inner_loop import InnerLoop


@dataclass(frozen=True)
class Directional:
    """s and its derivatives.

    Attributes:
        value: s, scalar.
        images: ds/dimages of the batch [b, c, h, w].
        labels: ds/dlabels of the batch [b, k].
        parameters: ds/dtheta [p], the Hessian-vector product; None when it was not asked for.
    """

    value: Tensor
    images: Tensor
    labels: Tensor
    parameters: Tensor | None

    def tensors(self) -> list[Tensor]:
        """The value and all derivatives that were computed."""
        parts = [self.value, self.images, self.labels]
        return parts if self.parameters is None else [*parts, self.parameters]


# (loop, step, theta_step [p], direction [p], whether ds/dtheta is needed) -> derivatives
DirectionalForm = Callable[[InnerLoop, int, Tensor, Tensor, bool], Directional]


class StepPasses(Protocol):
    """The forward and the backward pass over an inner step."""

    def gradient(self, loop: InnerLoop, step: int, parameters: Tensor) -> Tensor:
        """As `InnerLoop.gradient`."""
        ...

    @property
    def directional(self) -> DirectionalForm:
        """How the derivatives of s are taken."""
        ...


@dataclass(frozen=True)
class Eager:
    """Both passes, one operation after another.

    Attributes:
        directional: how the derivatives of s are taken.
    """

    directional: DirectionalForm

    def gradient(self, loop: InnerLoop, step: int, parameters: Tensor) -> Tensor:
        """As `InnerLoop.gradient`."""
        return loop.gradient(step, parameters)


def double_backward(
    loop: InnerLoop, step: int, parameters: Tensor, direction: Tensor, with_parameters: bool
) -> Directional:
    """Differentiate <direction, g> where g itself was made with a graph; any network can."""
    point, images, labels = _leaves(loop, step, parameters)
    loss = loop.loss(step, loop.forward(point), images, labels)
    (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
    value = torch.dot(direction, gradient)
    return _reverse(value, point, images, labels, with_parameters)


def forward_over_reverse(
    loop: InnerLoop, step: int, parameters: Tensor, direction: Tensor, with_parameters: bool
) -> Directional:
    """Carry `direction` through the loss in forward mode, then differentiate the tangent."""
    _wake_forward_mode()
    point, images, labels = _leaves(loop, step, parameters)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(point, direction)
        loss = loop.loss(step, loop.forward(dual), images, labels)
        value = forward_ad.unpack_dual(loss).tangent
    # The reverse pass must stand outside the dual level: inside, it would carry tangents too.
    if value is None:
        raise NotImplementedError("the loss carries no forward-mode tangent")
    return _reverse(value, point, images, labels, with_parameters)


@functools.cache
def _wake_forward_mode() -> None:
    """Make a first dual tensor: torch then compiles rules of its own, and warns of how it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


class FormChooser:
    """Takes the forward-mode form for networks where it equals double backward.

    Some kernels have no forward-mode derivative, or a wrong one under a further reverse pass, so
    the first use with each network compares both forms on its own numbers.
    """

    def __init__(self) -> None:
        self._chosen: WeakKeyDictionary[nn.Module, DirectionalForm] = WeakKeyDictionary()

    def __call__(
        self,
        loop: InnerLoop,
        step: int,
        parameters: Tensor,
        direction: Tensor,
        with_parameters: bool,
    ) -> Directional:
        """See `DirectionalForm`."""
        form = self.form(loop, step, parameters, direction)
        return form(loop, step, parameters, direction, with_parameters)

    def form(
        self, loop: InnerLoop, step: int, parameters: Tensor, direction: Tensor
    ) -> DirectionalForm:
        """The form for the loop's network, chosen at its first use on these numbers."""
        form = self._chosen.get(loop.network)
        if form is None:
            form = choose_form(loop, step, parameters, direction)
            self._chosen[loop.network] = form
        return form


def choose_form(
    loop: InnerLoop, step: int, parameters: Tensor, direction: Tensor
) -> DirectionalForm:
    """`forward_over_reverse` if it agrees with `double_backward` here, else `double_backward`.

    Raises:
        RuntimeError: if memory is short. That says nothing of the network, and the other form
            rounds otherwise: results would depend on how much was free at the first step.
    """
    # What fails here is not the network's either.
    _wake_forward_mode()
    reference = double_backward(loop, step, parameters, direction, True)
    try:
        candidate = forward_over_reverse(loop, step, parameters, direction, True)
    except RuntimeError as error:
        if lacks_memory(error):
            raise
        return double_backward
    tolerance = torch.finfo(parameters.dtype).eps ** 0.5
    pairs = zip(candidate.tensors(), reference.tensors(), strict=True)
    agrees = all(
        float((a - b).norm()) <= tolerance * float(b.norm()) + torch.finfo(b.dtype).tiny
        for a, b in pairs
    )
    return forward_over_reverse if agrees else double_backward


def _leaves(loop: InnerLoop, step: int, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        parameters.detach().requires_grad_(),
        loop.images[loop.batches[step]].detach().requires_grad_(),
        loop.batch_labels(step).detach().requires_grad_(),
    )


def _reverse(
    value: Tensor, point: Tensor, images: Tensor, labels: Tensor, with_parameters: bool
) -> Directional:
    inputs = (images, labels, point) if with_parameters else (images, labels)
    parts = torch.autograd.grad(value, inputs)
    return Directional(value.detach(), parts[0], parts[1], parts[2] if with_parameters else None)
