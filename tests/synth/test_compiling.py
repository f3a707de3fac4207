"""Compiled inner steps give the gradients of plain ones."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from synth import Adjoint, FrozenAdjoint, Unrolled
from synth.compiling import compile_work, drop_zeros, find_compiler
from synth.cuda_graphs import Work
from synth.matching import recorded_steps as recording
from synth.matching.directional import FormChooser, forward_over_reverse
from synth.matching.recorded_steps import CompiledSteps
from tests.synth.cases import (
    ALL_FAMILIES,
    Cubed,
    build,
    build_registered,
    check_same,
    make_problem,
    tame_lr,
)

_aten = torch.ops.aten
# A sigmoid: where a rectifier is at its kink, two right gradients differ by one pixel.
SMOOTH = {"width": 8, "depth": 2, "activation": "sigmoid"}


def traced(work, inputs) -> Work:
    """`compile_work` without the compiler."""
    with torch.enable_grad():
        graph = make_fx(lambda *given: tuple(work(given)))(*inputs)
    drop_zeros(graph)
    return lambda given: graph(*given)


def need_compiler():
    if find_compiler() is None:
        pytest.skip("no C++ compiler on this machine")


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(recording, "need_compiler", lambda: None)
    monkeypatch.setattr(recording, "compile_work", traced)
    monkeypatch.setattr(CompiledSteps.__init__, "__defaults__", (traced,))


@pytest.mark.parametrize("options", [{}, {"norm": "group", "width": 16}, {"norm": "layer"}])
def test_traced_steps_give_the_gradient_of_plain_steps(uncompiled, options):
    problem = make_problem(build("ConvNet", **{**SMOOTH, **options}), len(ALL_FAMILIES))
    found = problem.solve(Adjoint("sqrt", compiled=True))
    check_same(found, problem.solve(Adjoint("sqrt")), 1e-5)


@pytest.mark.parametrize(
    ("size", "pooling"), [((16, 16), "max"), ((16, 16), "none"), ((10, 12), "avg"), ((9, 7), "avg")]
)
def test_traced_steps_serve_every_size_and_pooling(uncompiled, size, pooling):
    network = build("ConvNet", size=size, pooling=pooling, **SMOOTH).double()
    problem = make_problem(network, 2, size=size, dtype=torch.float64)
    check_same(problem.solve(Adjoint(compiled=True)), problem.solve(Unrolled()), 1e-10)


@pytest.mark.parametrize("name", ["mlp", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_traced_steps_serve_other_networks(uncompiled, name):
    network = build_registered(name).double()
    problem = make_problem(network, 2, lr=tame_lr(name), dtype=torch.float64)
    check_same(problem.solve(Adjoint(compiled=True)), problem.solve(Unrolled()), 1e-8)


def test_traced_steps_serve_a_network_without_forward_mode(uncompiled):
    problem = make_problem(nn.Sequential(nn.Flatten(), Cubed(), nn.Linear(256, 10)), 3)
    check_same(problem.solve(Adjoint(compiled=True)), problem.solve(Unrolled()), 1e-5)


def test_a_program_serves_all_views_and_numbers(uncompiled):
    made = []

    def record(work, inputs):
        made.append(1)
        return traced(work, inputs)

    problem = make_problem(build("ConvNet", **SMOOTH), 2 * len(ALL_FAMILIES))
    steps = CompiledSteps(FormChooser(), record)
    for _ in range(2):
        for step in range(len(problem.batches)):
            direction = problem.target - problem.start
            wanted = forward_over_reverse(problem.loop(), step, problem.start, direction, True)
            found = steps.directional(problem.loop(), step, problem.start, direction, True)
            for a, b in zip(found.tensors(), wanted.tensors(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        problem = replace(problem, images=problem.images + 1, start=problem.start * 0.9)
    assert len(made) == 1


def test_no_convolution_of_zeros_is_left():
    problem = make_problem(build("ConvNet", **SMOOTH), 1)
    loop, direction = problem.loop(), problem.target - problem.start

    def work(start, direction):
        return forward_over_reverse(loop, 0, start, direction, True).tensors()

    with torch.enable_grad():
        graph = make_fx(work)(problem.start, direction)

    def count():
        names = [node.target for node in graph.graph.nodes]
        return names.count(_aten.convolution.default), names.count(
            _aten.convolution_backward.default
        )

    wanted = graph(problem.start, direction)
    assert count() == (6, 6)
    drop_zeros(graph)
    assert count() == (5, 5)
    for found, value in zip(graph(problem.start, direction), wanted, strict=True):
        assert torch.equal(found, value)


def test_compiled_steps_give_the_gradient_of_plain_steps():
    need_compiler()
    problem = make_problem(build("ConvNet", **{**SMOOTH, "depth": 1}), 3)
    check_same(problem.solve(Adjoint(compiled=True)), problem.solve(Adjoint()), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "instance", "group", "layer"])
def test_compiled_steps_of_every_norm(norm):
    need_compiler()
    problem = make_problem(build("ConvNet", **{**SMOOTH, "width": 16, "norm": norm}), 3)
    for method in (Adjoint, FrozenAdjoint):
        check_same(problem.solve(method(compiled=True)), problem.solve(method()), 1e-5)


def test_work_is_compiled_once_and_keeps_no_graph():
    need_compiler()
    calls = []

    def work(inputs):
        calls.append(1)
        (x,) = inputs
        point = x.detach().requires_grad_()
        return torch.autograd.grad(point.sin().sum(), point)

    program = compile_work(work, [torch.ones(3)])
    for value in (torch.zeros(3), torch.ones(3)):
        (found,) = program([value])
        assert not found.requires_grad
        torch.testing.assert_close(found, value.cos())
    assert len(calls) == 1


def test_compiled_steps_without_a_compiler_say_so(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/compiler")
    problem = make_problem(build("ConvNet", **SMOOTH), 1)
    with pytest.raises(ValueError, match=r"need a C\+\+ compiler.*CXX"):
        problem.solve(Adjoint(compiled=True))


def test_layers_compute_the_same_in_either_order_of_memory():
    generator = torch.Generator().manual_seed(0)
    for size in ((8, 6), (7, 4)):
        images = torch.randn(3, 8, *size, generator=generator, dtype=torch.float64)
        last = images.contiguous(memory_format=torch.channels_last)
        for norm in ("instance", "group", "layer"):
            network = nn.Sequential(
                *build("ConvNet", norm=norm, width=8, size=(8, 8)).double().features[1:4]
            )
            weights = {
                name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
                for name, p in network.named_parameters()
            }
            found = torch.func.functional_call(network, weights, (last,))
            wanted = torch.func.functional_call(network, weights, (images,))
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
