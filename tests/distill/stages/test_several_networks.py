"""Experts of several networks: one file, turns in matching, a set of the first network."""

import json

import pytest
import torch

from distill.__main__ import run
from distill.errors import WorkError
from distill.recipes.loading import load_recipe
from distill.sets.set_file import read_set
from distill.stages.match.problem import match_problem
from distill.store.experts import NetworkExperts, read_info, read_last_snapshots, write_experts
from distill.store.trajectories import Trajectory
from synth.networks import MLP, ConvNet
from synth.parameters import ParameterLayout
from tests.distill.cases import TINY, reading_context, write_recipe

NETWORKS = ["convnet2:width=4", "mlp:depth=1:width=8"]
SEVERAL = TINY.replace('network = "convnet2:width=4"', f"networks = {NETWORKS}", 1)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), SEVERAL)


@pytest.fixture(scope="module")
def matched(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("several") / "run"
    stages = ("--stage", "experts", "--stage", "match")
    assert run(["run", str(recipe), *stages, "--out", str(out), "--quiet"]) == 0
    return out


def test_the_file_holds_the_experts_of_all_networks(matched):
    info = read_info(matched / "experts.h5")
    assert info.count == 4
    assert [own.network for own in info.networks] == NETWORKS
    assert [own.experts for own in info.networks] == [range(2), range(2, 4)]
    assert len(read_last_snapshots(matched / "experts.h5")) == 2


def test_the_set_is_of_the_first_network(matched):
    assert read_set(matched / "set.h5").manifest["network"] == NETWORKS[0]


@pytest.mark.parametrize("segments", [1, 3])
def test_networks_take_turns(segments, recipe, matched):
    changed = load_recipe(str(recipe), [f"match.segments={segments}"])
    problem = match_problem(reading_context(matched, changed), changed.match, 10, None)
    choices = [choice for step in range(4) for choice in problem.choose(step)]
    assert [choice.network for choice in choices] == [i % 2 for i in range(4 * segments)]
    for choice in choices:
        segment = problem.read(choice)
        assert isinstance(segment.network, (ConvNet, MLP)[choice.network])
        count = sum(p.numel() for p in segment.network.parameters())
        assert len(segment.start) == len(segment.target) == count
        assert choice.expert // 2 == choice.network


def test_one_network_beside_several_is_refused(refused, tmp_path):
    text = SEVERAL.replace("networks =", 'network = "mlp"\nnetworks =')
    message = refused(2, "run", write_recipe(tmp_path, text), "--out", tmp_path / "run")
    assert "experts.network is mlp, experts.networks are convnet2:width=4" in message


def test_experts_that_do_not_fit_their_networks_are_refused(tmp_path):
    first = ParameterLayout(("a",), (torch.Size([4]),))
    other = ParameterLayout(("b",), (torch.Size([3]),))
    experts = [Trajectory(torch.zeros(2, 4), [0.0]), Trajectory(torch.zeros(2, 4), [0.0])]
    path = tmp_path / "experts.h5"
    others = [NetworkExperts("mlp", other, range(1, 2))]
    write_experts(path, "convnet2", "digest", first, experts, others=others)
    with pytest.raises(WorkError, match="fit its own network"):
        read_info(path)


def test_the_plan_counts_every_network(recipe, command):
    outcome = command("plan", recipe, "--json")
    assert outcome.code == 0, outcome.err
    plan = json.loads(outcome.out)
    assert plan["disk"]["experts"]["experts"] == 4
