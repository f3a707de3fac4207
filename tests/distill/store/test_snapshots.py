"""Snapshots in the experts' file."""

import pytest
import torch

from distill.errors import WorkError
from distill.store.experts import (
    check_snapshots,
    read_info,
    read_last_snapshots,
    read_snapshots,
    write_experts,
)
from distill.store.trajectories import Trajectory
from synth.parameters import ParameterLayout


def make_experts(path, count=2):
    layout = ParameterLayout(("a", "b"), (torch.Size([2, 2]), torch.Size([3])))
    experts = [
        Trajectory(torch.arange(28.0).reshape(4, 7) + 100 * index, [0.1, 0.2, 0.3])
        for index in range(count)
    ]
    write_experts(path, "mlp", "digest", layout, experts)
    return layout, experts


def test_experts_round_trip(tmp_path):
    path = tmp_path / "experts.h5"
    layout, experts = make_experts(path)
    info = read_info(path)
    assert (info.network, info.data, info.count, info.epochs) == ("mlp", "digest", 2, 3)
    assert info.layout == layout
    start, target = read_snapshots(path, 1, (0, 2))
    assert torch.equal(start, experts[1].snapshots[0])
    assert torch.equal(target, experts[1].snapshots[2])
    assert torch.equal(torch.stack(read_last_snapshots(path)), torch.stack(
        [expert.snapshots[-1] for expert in experts]
    ))  # fmt: skip
    check_snapshots(path)


@pytest.mark.parametrize(
    ("expert", "epochs", "words"),
    [
        (2, (0, 1), "there is no expert 2"),
        (0, (0, 4), "holds epochs 0-3 of expert 0, not 4"),
        (0, (-1, 0), "not -1"),
    ],
)
def test_snapshot_that_is_not_there_is_refused(expert, epochs, words, tmp_path):
    make_experts(tmp_path / "experts.h5")
    with pytest.raises(WorkError, match=words):
        read_snapshots(tmp_path / "experts.h5", expert, epochs)


def test_experts_that_do_not_fit_their_network_are_refused(tmp_path):
    path = tmp_path / "experts.h5"
    layout = ParameterLayout(("a",), (torch.Size([2]),))
    write_experts(path, "mlp", "digest", layout, [Trajectory(torch.zeros(4, 7), [0.0])])
    with pytest.raises(WorkError, match="no experts that fit its own network"):
        read_info(path)
    write_experts(path, "mlp", "digest", layout, [])
    with pytest.raises(WorkError, match="no experts that fit its own network"):
        read_info(path)
