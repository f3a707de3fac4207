"""Small matching problems, and the slow and obvious gradient that the others must equal."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import synth.networks
from distill.names import NETWORKS, resolve
from synth import MatchingGradient, matching_gradient
from synth.augment import FAMILIES, Augmentation, View
from synth.cuda_graphs import Work
from synth.matching.features import FeatureChoice
from synth.matching.inner_loop import InnerLoop, make_inner_loop
from synth.matching.segments import Segment
from synth.parameters import load_vector, parameter_vector

ALL_FAMILIES = tuple(FAMILIES)
GRADIENTS = ("images", "labels", "lr")
# Networks so deep that a few inner steps must do: experts are rarely any of them.
DEEP = ("resnet50", "shufflenetv2", "mobilenetv2", "densenet121", "vit-tiny")


def build_registered(
    name: str, channels: int = 1, size: tuple[int, int] = (16, 16), **changes: int | str
) -> nn.Module:
    """The registered network `name`, 4 wide, with a norm that matching can use."""
    options = dict(NETWORKS[name].options)
    if "width" in options:
        options["width"] = 4
    if options.get("norm") == "batch":
        options["norm"] = "instance"
    family = resolve(NETWORKS[name]).__name__
    return build(family, channels, size, **{**options, **changes})


def build(
    kind: str, channels: int = 1, size: tuple[int, int] = (16, 16), **options: int | str
) -> nn.Module:
    """A network of `synth.networks` for ten classes whose weights are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(synth.networks, kind)(channels, size, 10, **options)


def tame_lr(name: str) -> float:
    """A student learning rate at which the inner loop of a registered network is not chaotic.

    Where lr times the sharpness passes 2, rounding errors double at every inner step, and two
    exact methods part. A narrow ResNet with instance norm is the sharpest of the networks.
    """
    return 0.001 if name.startswith("resnet") else 0.02


@dataclass(frozen=True)
class Problem:
    """The arguments of `matching_gradient`."""

    network: nn.Module
    start: Tensor
    target: Tensor
    images: Tensor
    labels: Tensor
    lr: Tensor
    batches: Sequence[Tensor]
    views: Sequence[View] | None

    def solve(self, gradient: object = None) -> MatchingGradient:
        """Distance and gradients by `gradient`."""
        return matching_gradient(
            self.network,
            self.start,
            self.target,
            self.images,
            self.labels,
            self.lr,
            self.batches,
            gradient,  # type: ignore[arg-type]
            self.views,
        )

    def distance(self, **changes: Tensor) -> float:
        """The distance alone, of this problem with `changes`."""
        return float(replace(self, **changes).solve().distance)

    def loop(self) -> InnerLoop:
        """The checked inner loop."""
        return make_inner_loop(self.network, self.images, self.labels, self.batches, self.views)


def make_problem(
    network: nn.Module,
    steps: int,
    *,
    lr: float = 0.02,
    size: tuple[int, int] = (16, 16),
    families: Sequence[str] = ALL_FAMILIES,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """12 images of noise in batches of 5; `families` take turns, one per inner step.

    The target lies half in a random direction and half where the first inner step leads, as an
    expert's does: with noise alone, dL/dlr would be a difference of large numbers.
    """
    generator = torch.Generator().manual_seed(steps)
    network = network.to(dtype)
    start = parameter_vector(network)
    noise = torch.randn(start.shape, generator=generator).to(dtype)
    batches = [torch.randperm(12, generator=generator)[:5] for _ in range(steps)]
    views = None
    if families:
        turns = [Augmentation((families[step % len(families)],)) for step in range(steps)]
        views = [turn.sample(5, size, generator) for turn in turns]
    images = torch.randn((12, 1, *size), generator=generator).to(dtype)
    labels = torch.randn((12, 10), generator=generator).to(dtype)
    problem = Problem(
        network, start, start, images, labels, torch.tensor(lr, dtype=dtype), batches, views
    )
    downhill = -make_inner_loop(network, images, labels, batches, views).gradient(0, start)
    way = noise / noise.norm() + downhill / downhill.norm()
    return replace(problem, target=start + 0.05 * len(start) ** 0.5 * way)


def relative(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|."""
    return float((found - expected).norm() / expected.norm())


def differences(found: MatchingGradient, expected: MatchingGradient) -> dict[str, float]:
    """Relative differences of the gradients, by name."""
    return {name: relative(getattr(found, name), getattr(expected, name)) for name in GRADIENTS}


def check_same(found: MatchingGradient, expected: MatchingGradient, tolerance: float) -> None:
    """Both have the same distance, end and gradients, to a relative `tolerance`."""
    for name in ("distance", "end", *GRADIENTS):
        value = getattr(found, name)
        assert value.shape == getattr(expected, name).shape, name
        assert not value.requires_grad, name
        assert relative(value, getattr(expected, name)) <= tolerance, name


def naive_gradient(problem: Problem) -> MatchingGradient:
    """The inner loop as one formula, differentiated by autograd; shares no code with synth."""
    images = problem.images.clone().requires_grad_()
    labels = problem.labels.clone().requires_grad_()
    lr = problem.lr.clone().requires_grad_()
    shapes = {name: p.shape for name, p in problem.network.named_parameters()}
    current = problem.start.clone().requires_grad_()
    for step, batch in enumerate(problem.batches):
        named, place = {}, 0
        for name, shape in shapes.items():
            named[name] = current[place : place + shape.numel()].reshape(shape)
            place += shape.numel()
        seen = images[batch]
        if problem.views is not None:
            seen = problem.views[step].apply(seen)
        logits = functional_call(problem.network, named, (seen,))
        loss = functional.cross_entropy(logits, labels[batch].softmax(dim=1))
        (slope,) = torch.autograd.grad(loss, current, create_graph=True)
        current = current - lr * slope
    left = (current - problem.target).square().sum()
    distance = left / (problem.start - problem.target).square().sum()
    found = torch.autograd.grad(distance, (images, labels, lr))
    return MatchingGradient(distance.detach(), *found, current.detach())


class Tape:
    """Stands in for `GraphRecorder`: work runs again on the tensors it was recorded with.

    As with a graph, all calls of recorded work write into the same outputs.
    """

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work: Work, inputs: Sequence[Tensor]) -> Work:
        """See `synth.cuda_graphs.Record`."""
        self.recorded += 1
        kept = [tensor.clone() for tensor in inputs]
        outputs = [output.clone() for output in work(kept)]

        def again(inputs: Sequence[Tensor]) -> list[Tensor]:
            self.replayed += 1
            for own, given in zip(kept, inputs, strict=True):
                own.copy_(given)
            for output, fresh in zip(outputs, work(kept), strict=True):
                output.copy_(fresh)
            return outputs

        return again


class Cube(torch.autograd.Function):
    """x^3 without a forward-mode rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


class Cubed(nn.Module):
    """A layer around `Cube`, or another function of its form."""

    def __init__(self, function=Cube):
        super().__init__()
        self.function = function

    def forward(self, features):
        return self.function.apply(features)


def seeded(*makers: Callable[[], nn.Module]) -> list[nn.Module]:
    """Networks in float64, drawn one after the other from one seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [make().double() for make in makers]


def near_snapshots(networks: Sequence[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of networks, and targets not far from them."""
    generator = torch.Generator().manual_seed(3)
    starts = [parameter_vector(network) for network in networks]
    targets = [
        start + 0.05 * torch.randn(len(start), generator=generator, dtype=torch.float64)
        for start in starts
    ]
    return starts, targets


def slow_features(
    segment: Segment,
    drawn: FeatureChoice,
    images: Tensor,
    labels: Tensor | list[Tensor],
    real: Tensor,
    *,
    later_weight: float = 1.0,
    temperature: float = 1.0,
) -> tuple[float, float, Tensor]:
    """F, C and the gradient of F + later_weight * C of `synth.matching.features`, in one graph.

    `labels` are [m, k] logits, or for each class those of its images.
    """
    early, late = copy.deepcopy(segment.network), copy.deepcopy(segment.network)
    assert early is not None
    assert late is not None
    load_vector(early, segment.start)
    load_vector(late, segment.target)
    # Without its head a network gives its features.
    name = [name for name, part in early.named_modules() if isinstance(part, nn.Linear)][-1]
    parent, _, last = name.rpartition(".")
    setattr(early.get_submodule(parent), last, nn.Identity())
    images = images.detach().requires_grad_()
    means, wanted, losses = [], [], []
    for label, batch in enumerate(drawn.batches):
        own, others = images[batch], real[drawn.real[label]]
        if drawn.views is not None:
            # One by one, so that all are seen alike.
            view = drawn.views[label]
            own, others = (torch.cat([view.apply(x[None]) for x in part]) for part in (own, others))
        means.append(early(own).flatten(1).mean(0))
        wanted.append(early(others).flatten(1).mean(0).detach())
        given = labels[label] if isinstance(labels, list) else labels[batch]
        logs = functional.log_softmax(late(own) / temperature, dim=1)
        chances = functional.softmax(given / temperature, dim=1)
        losses.append(-(temperature**2) * (chances * logs).sum(1))
    middle = torch.stack(wanted).mean(0)
    spread = (torch.stack(wanted) - middle).square().sum()
    distance = (torch.stack(means) - torch.stack(wanted)).square().sum() / spread
    entropy = torch.cat(losses).mean()
    (slope,) = torch.autograd.grad(distance + later_weight * entropy, images)
    return float(distance.detach()), float(entropy.detach()), slope
