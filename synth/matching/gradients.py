"""Gradients of the parameter distance through N inner steps.

The distance is L = |theta_N - target|^2 / |start - target|^2, where theta_0 = start and
theta_{i+1} = theta_i - lr * g_i, with g_i the gradient of the loss of inner step i. With
lambda_N = dL/dtheta_N and, from the last step to the first,

    s_i = <lambda_{i+1}, g_i>        dL/dlr    -= s_i
    dL/dimages -= lr * ds_i/dimages  dL/dlabels -= lr * ds_i/dlabels
    lambda_i = lambda_{i+1} - lr * ds_i/dtheta_i

gives the exact gradient while the graph of one inner step lives at a time. Freezing lambda_i at
lambda_N gives the gradient of TESLA's published code (Cui et al. 2023), which is exact for N = 1
only. Unrolled is plain automatic differentiation (MTT, Cazenavette et al. 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from synth.augment import View
from synth.matching.directional import StepPasses
from synth.matching.inner_loop import InnerLoop, StepLabels, make_inner_loop
from synth.matching.parameter_path import InnerPath, Snapshots
from synth.matching.recorded_steps import PassChooser
from synth.parameters import load_vector
from synth.precision import full_float32


@dataclass(frozen=True)
class MatchingGradient:
    """The distance of one matched segment and its gradients.

    Attributes:
        distance: parameter distance, scalar; 1.0 is no progress, 0.0 is a perfect match.
        images: dL/dimages [n, c, h, w].
        labels: dL/dlabels [n, k], with respect to the label logits; zeros where each inner step
            has labels of its own.
        lr: dL/dlr, scalar.
        end: theta_N [p], where the inner loop ended.
    """

    distance: Tensor
    images: Tensor
    labels: Tensor
    lr: Tensor
    end: Tensor


class GradientMethod(Protocol):
    """Computes a MatchingGradient from an inner loop."""

    def __call__(
        self, loop: InnerLoop, start: Tensor, target: Tensor, lr: Tensor
    ) -> MatchingGradient:
        """Run the inner loop from `start` [p] and differentiate its distance to `target` [p]."""
        ...


def matching_gradient(
    network: nn.Module,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor | StepLabels,
    lr: Tensor,
    batches: Sequence[Tensor],
    gradient: GradientMethod | None = None,
    views: Sequence[View] | None = None,
) -> MatchingGradient:
    """The parameter distance after the inner loop, and its gradient in images, labels and lr.

    Args:
        network: called functionally; its own parameters are left as they are.
        start: [p] flat parameters, in the order of `network.named_parameters()`.
        target: [p] flat parameters that the student should reach.
        images: [n, c, h, w] of the synthetic set.
        labels: [n, k] label logits, or those of each inner step's own batch, which are constants;
            the inner loss is soft cross-entropy, mean over the batch.
        lr: student learning rate, scalar > 0.
        batches: for each inner step, the indices [b] of its images.
        gradient: Adjoint() when None, FrozenAdjoint() or Unrolled().
        views: one sampled view per inner step, or None.

    Returns:
        Distance, gradients and the end of the inner loop, all detached.

    Raises:
        ValueError: if start equals target, lr is not above zero, or the shapes do not fit.
    """
    start, target = start.detach(), target.detach()
    lr = torch.as_tensor(lr, dtype=start.dtype, device=start.device).detach()
    if lr.numel() != 1 or not float(lr) > 0:
        raise ValueError(f"the student learning rate is {lr.tolist()}; it must be one number > 0")
    if start.shape != target.shape:
        raise ValueError(f"start has shape {tuple(start.shape)}, target {tuple(target.shape)}")
    loop = make_inner_loop(network, images, labels, batches, views)
    loop.layout.unflatten(start)
    if float((start - target).square().sum()) == 0:
        raise ValueError(
            "start equals target; choose a longer span, or experts that learn: more epochs, or a "
            "higher learning rate"
        )
    method = Adjoint() if gradient is None else gradient
    with full_float32():
        return method(loop, start, target, lr.reshape(()))


def parameter_distance(end: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """Squared distance left to `target`, as a fraction of the distance from `start` (1.0: none).

    Source: Cazenavette et al. 2022, eq. 2.
    """
    return (end - target).square().sum() / (start - target).square().sum()


def replay(
    loop: InnerLoop,
    start: Tensor,
    target: Tensor,
    lr: Tensor,
    *,
    snapshots: Snapshots,
    damping: float,
    passes: StepPasses,
) -> MatchingGradient:
    """The formulas at the head of this module, with `damping` on the Hessian term of lambda.

    `passes` say how g_i and the derivatives of s_i are computed; all give the same numbers.
    """
    path = InnerPath(loop, lr, snapshots, passes)
    end = path.run(start)
    adjoint = 2 * (end - target) / (start - target).square().sum()
    images, labels = torch.zeros_like(loop.images), torch.zeros_like(loop.set_labels)
    lr_gradient = torch.zeros_like(lr)
    for step, parameters in path.backwards():
        part = passes.directional(loop, step, parameters, adjoint, damping > 0)
        batch = loop.batches[step]
        images.index_add_(0, batch, part.images * -lr)
        if isinstance(loop.labels, Tensor):
            labels.index_add_(0, batch, part.labels * -lr)
        lr_gradient -= part.value
        if part.parameters is not None:
            adjoint = adjoint - damping * lr * part.parameters
    distance = parameter_distance(end, start, target)
    return MatchingGradient(distance, images, labels, lr_gradient, end)


def _check_snapshots(snapshots: str) -> None:
    if snapshots not in ("all", "sqrt", "offload"):
        raise ValueError(f"snapshots is {snapshots!r}; choose all, sqrt or offload")


@dataclass(frozen=True)
class Adjoint:
    """The exact gradient, with the activations of one inner step in memory at a time.

    The derivatives of s_i are taken by a forward-mode pass along lambda and one reverse pass
    where the network supports it (checked against double backward once per network), and by
    double backward elsewhere. On CUDA, an object that is used again records its inner steps as
    CUDA graphs and replays them, see `synth.matching.recorded_steps`.

    Args:
        snapshots: where the N+1 parameter vectors live: "all" on the device, "sqrt" about
            2 sqrt(N) of them with most inner steps computed twice, "offload" in host memory.
        damping: factor on the Hessian term of lambda. 1.0 is exact; 0.0 is TESLA's gradient;
            between them the far past of the inner loop counts less, and the result is no
            longer the gradient of the distance.
        compiled: compile the inner steps on a CPU, see `synth.compiling`: about half the time a
            gradient, after a minute or two at an object's first use with a network and a batch
            size. Needs a C++ compiler. Rounding errors differ from those of plain steps.
    """

    snapshots: Snapshots = "all"
    damping: float = 1.0
    compiled: bool = False
    _chooser: PassChooser = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_snapshots(self.snapshots)
        object.__setattr__(self, "_chooser", PassChooser(self.compiled))
        if not 0 <= self.damping <= 1:
            raise ValueError(f"damping is {self.damping}; it must lie in [0, 1]")

    def __call__(
        self, loop: InnerLoop, start: Tensor, target: Tensor, lr: Tensor
    ) -> MatchingGradient:
        """Run the inner loop from `start` and replay it backwards."""
        return replay(
            loop,
            start,
            target,
            lr,
            snapshots=self.snapshots,
            damping=self.damping,
            passes=self._chooser.passes(loop),
        )


@dataclass(frozen=True)
class FrozenAdjoint:
    """TESLA's gradient: lambda stays at lambda_N, so it is exact for one inner step only.

    Args:
        snapshots: as for Adjoint.
        compiled: as for Adjoint.
    """

    snapshots: Snapshots = "all"
    compiled: bool = False
    _chooser: PassChooser = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_snapshots(self.snapshots)
        object.__setattr__(self, "_chooser", PassChooser(self.compiled))

    def __call__(
        self, loop: InnerLoop, start: Tensor, target: Tensor, lr: Tensor
    ) -> MatchingGradient:
        """Run the inner loop from `start` and replay it backwards with a frozen lambda."""
        passes = self._chooser.passes(loop)
        return replay(loop, start, target, lr, snapshots=self.snapshots, damping=0.0, passes=passes)


@dataclass(frozen=True)
class Unrolled:
    """Plain MTT: automatic differentiation through all inner steps, by the library `higher`.

    Memory grows with every inner step. This is the reference that Adjoint must equal.
    """

    def __call__(
        self, loop: InnerLoop, start: Tensor, target: Tensor, lr: Tensor
    ) -> MatchingGradient:
        """Differentiate the whole inner loop at once."""
        import higher

        images = loop.images.detach().requires_grad_()
        labels = loop.set_labels.detach().requires_grad_()
        lr = lr.clone().requires_grad_()
        student = copy.deepcopy(loop.network)
        load_vector(student, start)
        optimizer = torch.optim.SGD(student.parameters(), lr=float(lr.detach()))
        with higher.innerloop_ctx(student, optimizer, override={"lr": [lr]}) as (network, sgd):
            for step, batch in enumerate(loop.batches):
                own = loop.batch_labels(step, labels)
                sgd.step(loop.loss(step, network, images[batch], own))
            end = torch.cat([p.reshape(-1) for p in network.parameters()])
            distance = parameter_distance(end, start, target)
            inputs = (images, labels, lr)
            parts = torch.autograd.grad(distance, inputs, materialize_grads=True)
        return MatchingGradient(distance.detach(), parts[0], parts[1], parts[2], end.detach())
