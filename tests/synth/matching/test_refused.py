"""What `matching_gradient` and the inner loop refuse, and what they say."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from synth import Adjoint, FrozenAdjoint, matching_gradient
from synth.matching.inner_loop import draw_batches
from synth.parameters import parameter_vector
from tests.synth.cases import build, build_registered, make_problem


@pytest.fixture
def problem():
    return make_problem(build_registered("convnet1", size=(8, 8)), 2, size=(8, 8))


@pytest.mark.parametrize("lr", [0.0, -0.1, float("nan")])
def test_matching_gradient_refuses_an_lr_that_is_not_above_zero(problem, lr):
    with pytest.raises(ValueError, match=r"student learning rate is .*; it must be one number > 0"):
        replace(problem, lr=torch.tensor(lr)).solve()


def test_matching_gradient_refuses_several_lrs(problem):
    with pytest.raises(ValueError, match="must be one number"):
        replace(problem, lr=torch.tensor([0.1, 0.2])).solve()


def test_matching_gradient_refuses_a_start_that_is_its_target(problem):
    with pytest.raises(ValueError, match="start equals target; choose a longer span"):
        replace(problem, target=problem.start.clone()).solve()


def test_matching_gradient_refuses_snapshots_of_another_network(problem):
    longer = torch.cat([problem.start, problem.start])
    with pytest.raises(ValueError, match=r"got a parameter vector of shape \(\d+,\); this network"):
        replace(problem, start=longer, target=longer + 1).solve()


def test_matching_gradient_refuses_start_and_target_of_different_shapes(problem):
    with pytest.raises(ValueError, match=r"start has shape \(\d+,\), target \(1, \d+\)"):
        replace(problem, target=problem.target[None]).solve()


def test_matching_gradient_refuses_labels_of_another_number(problem):
    with pytest.raises(ValueError, match="got 12 images and 11 label rows"):
        replace(problem, labels=problem.labels[:11]).solve()


def test_matching_gradient_refuses_an_inner_loop_without_steps(problem):
    with pytest.raises(ValueError, match="got no batches"):
        replace(problem, batches=[], views=None).solve()


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)])
def test_matching_gradient_refuses_an_empty_batch(problem, empty):
    batches = [
        torch.tensor([], dtype=torch.long) if step in empty else batch
        for step, batch in enumerate(problem.batches)
    ]
    with pytest.raises(ValueError, match="got an empty batch"):
        replace(problem, batches=batches).solve()


@pytest.mark.parametrize("outside", [12, -1])
def test_matching_gradient_refuses_an_index_outside_the_set(problem, outside):
    batches = [problem.batches[0], torch.tensor([0, 1, 2, 3, outside])]
    with pytest.raises(ValueError, match=r"name images .*; indices must lie in 0 to 11"):
        replace(problem, batches=batches).solve()


def test_matching_gradient_refuses_views_of_another_number(problem):
    with pytest.raises(ValueError, match="got 1 views for 2 inner steps"):
        replace(problem, views=problem.views[:1]).solve()


def test_matching_gradient_refuses_a_view_of_another_batch_size(problem):
    views = [problem.views[0], problem.views[1].select(slice(0, 4))]
    with pytest.raises(ValueError, match="got 5 images for a view of 4"):
        replace(problem, views=views).solve()


def test_matching_gradient_refuses_batch_norm():
    network = build("ConvNet", size=(8, 8), depth=2, width=4, norm="batch")
    with pytest.raises(ValueError, match="has 2 BatchNorm layers with running statistics"):
        make_problem(network, 2, size=(8, 8)).solve()


def test_matching_gradient_takes_batch_norm_that_keeps_no_state():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()
    )
    network.append(nn.Linear(72, 10))
    assert make_problem(network, 2, size=(8, 8)).solve().images.isfinite().all()


@pytest.mark.parametrize("method", [Adjoint, FrozenAdjoint])
def test_adjoint_refuses_unknown_snapshots(method):
    with pytest.raises(ValueError, match="snapshots is 'disk'; choose all, sqrt or offload"):
        method(snapshots="disk")


@pytest.mark.parametrize("damping", [-0.1, 1.1, float("nan")])
def test_adjoint_refuses_damping_outside_its_range(damping):
    with pytest.raises(ValueError, match=r"damping is .*; it must lie in \[0, 1\]"):
        Adjoint(damping=damping)


def test_draw_batches_passes_over_the_set_before_it_repeats(generator):
    batches = draw_batches(10, 3, 8, generator)
    assert [len(batch) for batch in batches] == [3] * 8
    for first in (0, 3):
        epoch = torch.cat(batches[first : first + 3])
        assert len(set(epoch.tolist())) == 9
        assert set(epoch.tolist()) <= set(range(10))


@pytest.mark.parametrize("batch_size", [None, 4, 9])
def test_draw_batches_takes_the_whole_set_when_it_fits(generator, batch_size):
    batches = draw_batches(4, batch_size, 3, generator)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3]] * 3


def test_draw_batches_repeats_with_the_same_seed():
    first, second = (
        torch.stack(draw_batches(10, 4, 6, torch.Generator().manual_seed(5))) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_matching_gradient_refuses_a_network_with_dropout():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    start = parameter_vector(network)
    words = [network, start, start + 1, torch.zeros(3, 1, 4, 4), torch.zeros(3, 3), 0.1]
    with pytest.raises(ValueError, match="drops units at random"):
        matching_gradient(*words, [torch.arange(3)])
    network.eval()
    assert matching_gradient(*words, [torch.arange(3)]).distance.isfinite()


def test_matching_gradient_refuses_labels_of_another_width():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    start = parameter_vector(network)
    with pytest.raises(ValueError, match="one column per class"):
        matching_gradient(
            network,
            start,
            start + 1,
            torch.zeros(3, 1, 4, 4),
            torch.zeros(3, 1),
            0.1,
            [torch.arange(3)],
        )
