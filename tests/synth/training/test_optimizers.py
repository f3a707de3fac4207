"""Optimisers by name: Muon's matrices, and what it leaves to AdamW."""

import copy

import pytest
import torch
from torch import nn

from synth.training.optimizers import Muon, make_optimizer


@pytest.fixture
def network(generator):
    """A kernel, a norm, two linear layers, and a gradient for each parameter."""
    layers = [nn.Conv2d(2, 5, 3), nn.GroupNorm(1, 5), nn.Flatten(), nn.Linear(20, 6)]
    network = nn.Sequential(*layers, nn.Linear(6, 3))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return network


def stepped(network, name, lr=0.01, steps=2, weight_decay=0.1):
    """The parameters after some steps along the same gradients, by name."""
    twin = copy.deepcopy(network)
    optimizer = make_optimizer(twin, name, lr, 0.9, weight_decay)
    for parameter, own in zip(twin.parameters(), network.parameters(), strict=True):
        parameter.grad = own.grad.clone()
    for _ in range(steps):
        optimizer.step()
    return dict(twin.named_parameters())


def test_hidden_matrices_and_flattened_kernels_are_muons(network):
    found = stepped(network, "muon")
    for name in ("0.weight", "3.weight"):
        own = network.get_parameter(name)
        matrix = nn.Parameter(own.detach().flatten(1).clone())
        matrix.grad = own.grad.flatten(1).clone()
        slow = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for _ in range(2):
            slow.step()
        torch.testing.assert_close(found[name], matrix.view_as(own), rtol=0, atol=0)
        assert found[name].shape == own.shape


def test_the_head_norms_and_biases_are_adamws(network):
    found, adamw = stepped(network, "muon"), stepped(network, "adamw")
    same = {name for name in found if torch.equal(found[name], adamw[name])}
    assert same == set(found) - {"0.weight", "3.weight"}
    # Muon moves about as far as AdamW: one learning rate does for both.
    for name in ("0.weight", "3.weight"):
        start = network.get_parameter(name).detach()
        ratio = (found[name].detach() - start).norm() / (adamw[name].detach() - start).norm()
        assert 0.1 < float(ratio) < 2


def test_muons_gradients_are_dropped_and_missing_ones_move_nothing(network):
    before = copy.deepcopy(network.state_dict())
    optimizer = make_optimizer(network, "muon", 0.1, 0.0, 0.0)
    optimizer.zero_grad(set_to_none=False)
    assert all(float(p.grad.abs().sum()) == 0 for p in network.parameters())
    optimizer.zero_grad()
    assert all(p.grad is None for p in network.parameters())
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_rate_that_is_set_in_the_groups_is_used_by_both(network):
    before = copy.deepcopy(network.state_dict())
    optimizer = make_optimizer(network, "muon", 0.1, 0.0, 0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_of_one_matrix_is_adamws_alone():
    linear = nn.Linear(3, 2)
    assert len(Muon([linear.weight], [linear.bias], 0.1, 0.0).param_groups) == 2


def test_an_older_pytorch_is_named(network, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"PyTorch has from 2\.9 on, and this is .*choose adamw"):
        make_optimizer(network, "muon", 0.1, 0.0, 0.0)
