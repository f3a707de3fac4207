"""The committee's file."""

import torch

from distill.store.committee import Member, read_committee, write_committee


def test_committee_round_trip(tmp_path):
    path = tmp_path / "committee.h5"
    state = {"z.weight": torch.rand(2, 3), "a.count": torch.tensor(7)}
    write_committee(path, [Member("resnet18", 0.5, state)], "digest", ("a", "b"))
    (member,), data, names = read_committee(path)
    assert (member.spec, member.accuracy, data, names) == ("resnet18", 0.5, "digest", ["a", "b"])
    assert list(member.state) == list(state)
    for name, value in state.items():
        assert torch.equal(member.state[name], value)
        assert member.state[name].dtype == value.dtype
