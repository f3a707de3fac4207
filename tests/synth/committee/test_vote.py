"""The committee's vote."""

import copy

import pytest
import torch
from torch import nn

from synth.committee.vote import Committee
from synth.networks import MLP, ConvNet


def make_member(seed: int, *, dropout: bool = False) -> nn.Module:
    """A BatchNorm network whose running statistics are not those of the test images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ConvNet(1, (8, 8), 4, depth=2, width=4, norm="batch")
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
    if dropout:
        network.features.append(nn.Dropout(0.5))
    return network.eval()


@pytest.fixture
def images(generator):
    return 2 + torch.randn(6, 1, 8, 8, generator=generator)


def test_vote_is_the_weighted_mean_of_logits(images):
    members = (make_member(1), make_member(2), make_member(3))
    found = Committee(members, torch.tensor([0.5, 0.3, 0.2])).vote(images)
    parts = [member(images).detach() for member in members]
    torch.testing.assert_close(found, 0.5 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2])
    assert not found.requires_grad


def test_vote_uses_members_in_evaluation_mode(images):
    member = make_member(1)
    expected = member(images).detach()
    found = Committee((member.train(),), torch.ones(1)).vote(images)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("members", "weights", "words"),
    [
        (0, [], "got no members"),
        (1, [1.0, 1.0], r"weights of shape \(2,\) for 1 members"),
        (2, [1.0], r"weights of shape \(1,\) for 2 members"),
        (1, [[1.0]], r"weights of shape \(1, 1\)"),
        (2, [-1.0, 2.0], "negative or not finite"),
        (1, [float("nan")], "negative or not finite"),
        (1, [1e308], "negative or not finite"),
    ],
)
def test_committee_that_cannot_vote_is_refused(members, weights, words):
    with pytest.raises(ValueError, match=words):
        Committee(tuple(map(make_member, range(members))), torch.tensor(weights))


def test_batch_statistics_are_those_of_the_batch(images):
    members = (make_member(1), make_member(2))
    committee = Committee(members, torch.tensor([0.6, 0.4]))
    found = committee.vote(images, batch_statistics=True)
    parts = [copy.deepcopy(member).train()(images).detach() for member in members]
    torch.testing.assert_close(found, 0.6 * parts[0] + 0.4 * parts[1])
    assert float((found - committee.vote(images)).abs().max()) > 0.01


def test_batch_statistics_leave_the_members_as_they_were(images):
    member = make_member(1, dropout=True)
    buffers = {name: buffer.clone() for name, buffer in member.named_buffers()}
    assert any(name.endswith("num_batches_tracked") for name in buffers)
    Committee((member,), torch.ones(1)).vote(images, batch_statistics=True)
    for name, buffer in member.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    for module in member.modules():
        assert not module.training
        assert getattr(module, "track_running_stats", True)


def test_batch_statistics_keep_dropout_off(images):
    member = make_member(1, dropout=True)
    committee = Committee((member,), torch.ones(1))
    found = committee.vote(images, batch_statistics=True)
    assert torch.equal(found, committee.vote(images, batch_statistics=True))
    member.features[-1] = nn.Identity()
    torch.testing.assert_close(found, committee.vote(images, batch_statistics=True))


def test_batch_statistics_are_given_back_when_a_member_fails(images):
    member = make_member(1)
    with pytest.raises(RuntimeError):
        Committee((member,), torch.ones(1)).vote(images[:, :, :5], batch_statistics=True)
    for module in member.modules():
        assert not module.training
        assert getattr(module, "track_running_stats", True)


def test_batch_statistics_change_nothing_without_batch_norm(images):
    committee = Committee((MLP(1, (8, 8), 4, depth=1, width=4),), torch.ones(1))
    assert not committee.has_batch_norm
    assert torch.equal(committee.vote(images, batch_statistics=True), committee.vote(images))


def test_committee_has_batch_norm_if_one_member_has():
    plain = MLP(1, (8, 8), 4, depth=1, width=4)
    assert Committee((plain, make_member(1)), torch.ones(2)).has_batch_norm
