"""The two forms of a directional derivative, and the choice between them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from synth import Adjoint, Unrolled
from synth.matching import directional
from synth.matching.directional import choose_form, double_backward, forward_over_reverse
from tests.synth.cases import (
    Cube,
    Cubed,
    build_registered,
    check_same,
    make_problem,
    relative,
    tame_lr,
)


class NativeGroupNorm(nn.Module):
    """PyTorch's own kernel, whose forward-mode derivative has been wrong under a reverse pass."""

    def forward(self, images):
        return functional.group_norm(images, 2)


class CubeWithWrongTangent(Cube):
    """x^3 whose forward-mode rule is half a percent off."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_forward(x)
        return Cube.forward(ctx, x)

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return 1.005 * 3 * x**2 * tangent


def network_with(layer: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            layer,
            nn.ReLU(),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear(64, 10),
        )


def arguments_of(problem):
    return problem.loop(), 0, problem.start, problem.target - problem.start


@pytest.mark.parametrize("name", ["convnet3", "resnet18", "vgg11", "alexnet", "mlp"])
def test_forward_mode_equals_double_backward(name):
    problem = make_problem(build_registered(name), 1, dtype=torch.float64)
    arguments = arguments_of(problem)
    slow = double_backward(*arguments, True)
    fast = forward_over_reverse(*arguments, True)
    for found, expected in zip(fast.tensors(), slow.tensors(), strict=True):
        assert found.shape == expected.shape
        assert relative(found, expected) < 1e-10


@pytest.mark.parametrize("form", [double_backward, forward_over_reverse])
def test_forms_leave_the_parameters_out_when_they_are_not_needed(form):
    problem = make_problem(build_registered("mlp"), 1)
    found = form(*arguments_of(problem), False)
    assert found.parameters is None
    assert len(found.tensors()) == 3


@pytest.mark.parametrize("name", ["convnet3", "resnet18", "vgg11", "alexnet", "mlp"])
def test_choose_form_takes_forward_mode_for_our_own_networks(name):
    problem = make_problem(build_registered(name), 1, lr=tame_lr(name))
    assert choose_form(*arguments_of(problem)) is forward_over_reverse


@pytest.mark.parametrize("function", [Cube, CubeWithWrongTangent])
def test_choose_form_falls_back_where_forward_mode_is_missing_or_wrong(function):
    problem = make_problem(network_with(Cubed(function)), 3)
    assert choose_form(*arguments_of(problem)) is double_backward
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), 1e-5)


def refuse_memory():
    torch.empty(2**60)


def lacks_its_type():
    raise RuntimeError("std::bad_alloc")


def cannot_start_a_thread():
    raise RuntimeError("can't start new thread")


def lacks_device_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    "fail", [refuse_memory, lacks_its_type, cannot_start_a_thread, lacks_device_memory]
)
def test_choose_form_does_not_take_a_lack_of_memory_for_a_missing_derivative(fail, monkeypatch):
    problem = make_problem(build_registered("mlp"), 1)
    monkeypatch.setattr(directional, "forward_over_reverse", lambda *arguments: fail())
    with pytest.raises(RuntimeError):
        choose_form(*arguments_of(problem))
    monkeypatch.undo()
    assert choose_form(*arguments_of(problem)) is forward_over_reverse


def test_choose_form_takes_a_native_group_norm_only_where_it_is_right():
    problem = make_problem(network_with(NativeGroupNorm()), 3)
    arguments = arguments_of(problem)
    slow = double_backward(*arguments, True).tensors()
    fast = forward_over_reverse(*arguments, True).tensors()
    right = all(relative(a, b) < 3e-4 for a, b in zip(fast, slow, strict=True))
    assert (choose_form(*arguments) is forward_over_reverse) == right
    check_same(problem.solve(Adjoint()), problem.solve(Unrolled()), 1e-5)


def test_adjoint_chooses_for_each_network_apart():
    adjoint = Adjoint()
    for network in (network_with(Cubed(Cube)), build_registered("mlp"), network_with(nn.Tanh())):
        problem = make_problem(network, 2)
        check_same(problem.solve(adjoint), problem.solve(Unrolled()), 1e-5)


def test_forward_mode_warns_of_nothing(recwarn):
    problem = make_problem(build_registered("mlp"), 1)
    forward_over_reverse(*arguments_of(problem), True)
    assert not recwarn.list
