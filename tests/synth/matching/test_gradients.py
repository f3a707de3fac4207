"""The gradients of the parameter distance: which are exact, and which are not."""

from dataclasses import replace

import pytest
import torch

from distill.names import NETWORKS
from synth import Adjoint, FrozenAdjoint, Unrolled, matching_gradient, parameter_distance
from synth.augment import Augmentation
from tests.synth.cases import (
    ALL_FAMILIES,
    DEEP,
    GRADIENTS,
    build,
    build_registered,
    check_same,
    differences,
    make_problem,
    naive_gradient,
    relative,
    tame_lr,
)

FLOAT32 = 1e-5
FLOAT64 = 1e-10


@pytest.mark.parametrize("steps", [1, 5, 20])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in (*DEEP, "torchvision")])
def test_adjoint_equals_unrolled(name, steps):
    problem = make_problem(build_registered(name), steps, lr=tame_lr(name))
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), FLOAT32)


@pytest.mark.parametrize("name", ["convnet3", "resnet18", "vgg11", "alexnet", "mlp"])
def test_adjoint_equals_unrolled_in_double_precision(name):
    network = build_registered(name)
    problem = make_problem(network, 5, lr=tame_lr(name), dtype=torch.float64)
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), FLOAT64)


@pytest.mark.parametrize("name", DEEP)
def test_adjoint_equals_unrolled_for_deep_networks(name):
    problem = make_problem(build_registered(name), 2, lr=tame_lr(name), dtype=torch.float64)
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), FLOAT64)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "none"},
        {"norm": "layer"},
        {"norm": "group", "width": 16},
        {"pooling": "max"},
        {"pooling": "none", "depth": 2},
        {"activation": "leaky"},
        {"activation": "sigmoid"},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_adjoint_equals_unrolled_for_every_layer_of_a_convnet(options):
    problem = make_problem(build("ConvNet", **{"width": 4, **options}), 5)
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), FLOAT32)


@pytest.mark.parametrize("family", [*ALL_FAMILIES, "none"])
def test_adjoint_equals_unrolled_under_each_augmentation(family):
    families = () if family == "none" else (family,)
    problem = make_problem(build_registered("convnet2"), 3, families=families)
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), FLOAT32)


def test_adjoint_equals_unrolled_when_every_family_acts_on_every_image(generator):
    problem = make_problem(build_registered("convnet2"), 3)
    together = Augmentation(ALL_FAMILIES)
    views = [together.sample(5, (16, 16), generator) for _ in problem.batches]
    problem = replace(problem, views=views)
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), FLOAT32)


def test_adjoint_sums_over_an_image_that_a_batch_names_twice():
    problem = make_problem(build_registered("mlp"), 2)
    batches = [torch.tensor([3, 3, 0, 1, 2]), torch.tensor([3, 4, 4, 4, 5])]
    problem = replace(problem, batches=batches)
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), FLOAT32)


@pytest.mark.parametrize("gradient", [Unrolled(), Adjoint()], ids=["unrolled", "adjoint"])
@pytest.mark.parametrize("name", ["convnet3", "mlp"])
def test_exact_gradients_equal_a_naive_reference(name, gradient):
    problem = make_problem(build_registered(name), 4, dtype=torch.float64)
    check_same(problem.solve(gradient), naive_gradient(problem), FLOAT64)


def test_adjoint_agrees_with_finite_differences_of_the_distance():
    # Sigmoid and mean pooling have no kinks, so that a finite difference is a fair judge.
    network = build("ConvNet", size=(8, 8), depth=2, width=4, activation="sigmoid")
    problem = make_problem(network, 4, lr=0.5, size=(8, 8), dtype=torch.float64)
    found = problem.solve(Adjoint())
    for name in GRADIENTS:
        value, gradient = getattr(problem, name), getattr(found, name)
        for place in gradient.abs().flatten().topk(min(3, gradient.numel())).indices.tolist():
            nudge = torch.zeros_like(value).flatten()
            nudge[place] = 1e-4
            nudge = nudge.view_as(value)
            above = problem.distance(**{name: value + nudge})
            below = problem.distance(**{name: value - nudge})
            slope = float(gradient.flatten()[place])
            assert (above - below) / 2e-4 == pytest.approx(slope, rel=1e-5), (name, place)


@pytest.mark.parametrize("name", ["convnet3", "mlp"])
def test_frozen_adjoint_is_exact_for_one_inner_step(name):
    problem = make_problem(build_registered(name), 1)
    check_same(problem.solve(FrozenAdjoint()), problem.solve(Unrolled()), FLOAT32)


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("name", ["convnet3", "mlp"])
def test_frozen_adjoint_is_wrong_for_several_inner_steps(name, steps):
    problem = make_problem(build_registered(name), steps)
    frozen, exact = problem.solve(FrozenAdjoint()), problem.solve(Unrolled())
    assert relative(frozen.end, exact.end) <= FLOAT32
    assert min(differences(frozen, exact).values()) > 1e-3


@pytest.mark.parametrize("steps", [1, 7, 16])
@pytest.mark.parametrize("method", [Adjoint, FrozenAdjoint])
def test_snapshots_wherever_they_live_give_the_same_bits(method, steps):
    problem = make_problem(build_registered("convnet2"), steps)
    reference = problem.solve(method(snapshots="all"))
    for place in ("sqrt", "offload"):
        found = problem.solve(method(snapshots=place))
        for name in ("distance", "end", *GRADIENTS):
            assert torch.equal(getattr(found, name), getattr(reference, name)), (place, name)


def test_damping_of_zero_is_the_frozen_adjoint():
    problem = make_problem(build_registered("convnet2"), 8)
    damped, frozen = problem.solve(Adjoint(damping=0.0)), problem.solve(FrozenAdjoint())
    for name in GRADIENTS:
        assert torch.equal(getattr(damped, name), getattr(frozen, name)), name


def test_damping_between_its_ends_lies_between_frozen_and_exact():
    problem = make_problem(build_registered("convnet2"), 8)
    exact, frozen = problem.solve(Adjoint()), problem.solve(FrozenAdjoint())
    damped = [problem.solve(Adjoint(damping=damping)) for damping in (0.25, 0.5, 0.75)]
    for name in GRADIENTS:
        path = [relative(getattr(part, name), getattr(exact, name)) for part in (frozen, *damped)]
        assert path == sorted(path, reverse=True), name
        assert path[-1] > 1e-4, name


def test_matching_gradient_uses_the_adjoint_unless_told_otherwise():
    problem = make_problem(build_registered("mlp"), 3)
    default, adjoint = problem.solve(), problem.solve(Adjoint())
    assert torch.equal(default.images, adjoint.images)


@pytest.mark.parametrize("gradient", [Adjoint(), FrozenAdjoint(), Unrolled()], ids=repr)
def test_matching_gradient_leaves_its_inputs_as_they_were(gradient):
    problem = make_problem(build_registered("convnet1"), 3)
    inputs = [problem.start, problem.target, problem.images, problem.labels, problem.lr]
    inputs += list(problem.network.parameters())
    before = [tensor.detach().clone() for tensor in inputs]
    problem.solve(gradient)
    for tensor, old in zip(inputs, before, strict=True):
        assert torch.equal(tensor, old)
        assert tensor.grad is None


@pytest.mark.parametrize("gradient", [Adjoint(), FrozenAdjoint(), Unrolled()], ids=repr)
def test_matching_gradient_takes_inputs_that_require_gradients(gradient):
    problem = make_problem(build_registered("convnet1"), 2)
    leaves = {
        name: getattr(problem, name).clone().requires_grad_()
        for name in ("start", "target", "images", "labels", "lr")
    }
    check_same(replace(problem, **leaves).solve(gradient), problem.solve(gradient), 0.0)
    assert all(leaf.grad is None for leaf in leaves.values())


def test_matching_gradient_is_zero_for_images_that_no_batch_names():
    problem = make_problem(build_registered("convnet1"), 1)
    found = problem.solve(Adjoint())
    unseen = [i for i in range(12) if i not in problem.batches[0].tolist()]
    assert unseen
    assert float(found.images[unseen].abs().max()) == 0
    assert float(found.labels[unseen].abs().max()) == 0


def test_matching_gradient_takes_lr_as_a_plain_number():
    problem = make_problem(build_registered("mlp"), 2)
    arguments = {**vars(problem), "lr": float(problem.lr)}
    assert torch.equal(matching_gradient(**arguments).images, problem.solve().images)


def test_parameter_distance_is_one_without_progress_and_zero_at_the_target():
    start, target = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
    assert float(parameter_distance(start, start, target)) == 1
    assert float(parameter_distance(target, start, target)) == 0
    assert float(parameter_distance((start + target) / 2, start, target)) == pytest.approx(0.25)
