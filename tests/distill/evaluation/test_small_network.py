"""The network that is a control: rounded, as wide as fits, its bits chosen aside."""

import pytest
import torch

from distill.evaluation import small_network
from distill.evaluation.confusion import Grade
from distill.evaluation.jobs import NETWORK, plan_jobs
from distill.evaluation.small_network import (
    BITS,
    WIDEST,
    SmallNetwork,
    best_bits,
    describe_networks,
    network_spec,
    plan_bits,
    plan_networks,
    round_weights,
    widest,
)
from distill.recipes.build import build_network


def network_of(width):
    return build_network(network_spec(width), 1, (8, 8), 10, seed=0)


@pytest.mark.parametrize("coder", ["arithmetic", "lzma"])
@pytest.mark.parametrize("bits", BITS)
def test_weights_lie_on_a_grid_of_so_many_bits(bits, coder, monkeypatch):
    if coder == "arithmetic":
        pytest.importorskip("constriction", reason="pip install 'limbeck[compact]'")
    monkeypatch.setattr(small_network, "best_coder", lambda: coder)
    network = network_of(16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    size = round_weights(network, bits)
    weights = sum(value.numel() for value in before.values() if value.dim() > 1)
    # Without the extra, a header and tables of frequencies take a kilobyte.
    most = 450 if coder == "arithmetic" else 1200
    assert weights * bits / 8 * 0.9 < size < weights * bits / 8 + most
    for name, value in network.state_dict().items():
        rows = value.flatten(1) if value.dim() > 1 else value[None]
        found = min(len(row.unique()) for row in (rows if len(rows) <= rows.shape[1] else rows.T))
        assert value.dim() == 1 or found <= 2**bits - 1
        # A scale is at most a row's largest weight, and may clip a few at four bits.
        largest = before[name].abs().max()
        torch.testing.assert_close(value, before[name], rtol=0, atol=0.6 * float(largest))
        error = (value - before[name]).square().mean().sqrt()
        assert float(error) <= float(largest) / (2**bits - 2)


@pytest.mark.parametrize("bits", BITS)
def test_one_wider_does_not_fit(bits, context):
    budget = 3000
    found = widest(context, bits, budget)
    assert found.bits == bits
    assert 1 < found.width < WIDEST
    fresh = context.network(network_spec(found.width), "evaluate", 0)
    assert round_weights(fresh, bits) <= budget
    wider = context.network(network_spec(found.width + 1), "evaluate", 0)
    assert round_weights(wider, bits) > budget


def test_one_of_width_1_stands_where_none_fits_and_none_is_wider_than_the_literature_s(context):
    assert widest(context, 4, 20) == SmallNetwork(1, 4)
    assert widest(context, 4, 1 << 20) == SmallNetwork(WIDEST, 4)


def test_bits_are_chosen_among_what_fits():
    jobs = plan_jobs(["a", "b"], 2, ["hard", "learned"], ["hard", "learned"], [])
    offered = {
        "hard": [SmallNetwork(9, 4), SmallNetwork(6, 8)],
        "learned": [SmallNetwork(12, 4), SmallNetwork(8, 8)],
    }
    search = plan_bits(jobs, 20, offered)
    assert [job.name for job, _ in search] == [
        "network/convnet3:width=9/hard/0/bits=4/epochs=4/trial",
        "network/convnet3:width=6/hard/0/bits=8/epochs=4/trial",
        "network/convnet3:width=12/learned/0/bits=4/epochs=4/trial",
        "network/convnet3:width=8/learned/0/bits=8/epochs=4/trial",
    ]
    grades = [Grade(0.9, None, 101), Grade(0.7, None, 99), Grade(0.8, None, 9), Grade(0.9, None, 9)]
    graded = [(job, network, grade) for (job, network), grade in zip(search, grades, strict=True)]
    best = best_bits(graded, {"hard": 100, "learned": 100})
    assert best == {"hard": SmallNetwork(6, 8), "learned": SmallNetwork(8, 8)}
    final = plan_networks(jobs, best)
    assert [job.name for job in final] == [
        "network/convnet3:width=6/hard/0/bits=8",
        "network/convnet3:width=8/learned/0/bits=8",
        "network/convnet3:width=6/hard/1/bits=8",
        "network/convnet3:width=8/learned/1/bits=8",
    ]
    controls = {network_spec(6): {"hard": {}}, network_spec(8): {"learned": {}}}
    sizes = [90, 80, 95, 70]
    graded = [(job, Grade(0.5, None, size)) for job, size in zip(final, sizes, strict=True)]
    assert all(job.group == NETWORK for job in final)
    describe_networks(controls, graded, best, 13)
    assert controls == {
        network_spec(6): {"hard": {"width": 6, "bits": 8, "bytes": 108}},
        network_spec(8): {"learned": {"width": 8, "bits": 8, "bytes": 93}},
    }
