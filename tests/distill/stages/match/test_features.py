"""Features along the experts in a run: what is drawn, what is learned, plans and refusals."""

import json
from itertools import islice

import pytest
import torch
from torch import nn

from distill.__main__ import run
from distill.recipes.loading import load_recipe
from distill.report.curves import curves
from distill.sets.set_file import read_set
from distill.stages.match.problem import match_problem, outer_steps
from distill.stages.match.start import starting_state
from distill.stages.match.units import match_units
from distill.stages.units.networks import Units
from distill.stages.units.shapes import data_shape
from distill.store.jsonl import read_lines
from synth import Adjoint, Unrolled, matching_gradient
from synth.matching.mean_gradient import mean_gradient
from tests.distill.cases import (
    TINY,
    CountingStop,
    artefacts,
    copy_run,
    listen_with,
    outputs_of,
    reading_context,
    write_recipe,
)
from tests.synth.cases import slow_features

NETWORKS = ["convnet2:width=4", "mlp:depth=1:width=8"]
TEXT = TINY.partition("[committee]")[0].replace(
    "span = 1", 'span = 1\nobjective = "features"\nreal_batch = 5'
)
BOTH = ["match.objective=both", "match.labels=learned"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The tiny recipe, whose set is made by features alone."""
    return write_recipe(tmp_path_factory.mktemp("recipe"), TEXT)


@pytest.fixture(scope="module")
def experts(alone, tmp_path_factory):
    """Experts of two networks, of which a recipe may name the first alone."""
    out = tmp_path_factory.mktemp("experts") / "run"
    several = ["--set", f"experts.networks={','.join(NETWORKS)}"]
    assert run(["experts", str(alone), "--out", str(out), "--quiet", *several]) == 0
    return out


@pytest.fixture
def opened(alone, experts):
    """The context of the recipe with changes, on these experts."""

    def open_with(*changes):
        names = f"experts.networks={','.join(NETWORKS)}"
        return reading_context(experts, load_recipe(str(alone), [names, *changes]))

    return open_with


@pytest.fixture
def match(alone, experts, command, tmp_path):
    """Match in a copy of the experts' run; gives its folder."""

    def call(*changes):
        out = copy_run(experts, tmp_path / "run")
        names = f"experts.networks={','.join(NETWORKS)}"
        settings = [word for change in (names, *changes) for word in ("--set", change)]
        outcome = command("match", alone, "--out", out, "--quiet", *settings)
        assert outcome.code == 0, outcome.err
        return out

    return call


@pytest.mark.parametrize("changes", [[], BOTH], ids=["alone", "both"])
def test_gradient_on_digits_equals_one_graph_of_everything(changes, opened):
    context = opened(*changes, "match.ipc=2", "match.segments=2", "match.inner_steps=2")
    table = context.recipe.match
    state = starting_state(context, table)
    problem = match_problem(context, table, len(state.labels), None)
    choices, real = problem.choose(0), context.split("train")[0]
    found = mean_gradient(state.now, choices, problem, Adjoint())
    wanted, features = 0.0, 0.0
    for choice in choices:
        segment = problem.read(choice)
        drawn = choice.features
        hard = context.split("train")[1]
        assert [set(hard[places].tolist()) for places in drawn.real] == [{c} for c in range(10)]
        assert [batch.tolist() for batch in drawn.batches] == [
            [2 * c, 2 * c + 1] for c in range(10)
        ]
        distance, _, slope = slow_features(segment, drawn, state.images, state.labels, real)
        features += distance / 2
        wanted = wanted + (1.0 if not changes else table.feature_weight) * slope / 2
        if changes:
            inner = matching_gradient(
                segment.network,
                *(segment.start, segment.target, state.images, state.labels),
                torch.tensor(table.student_lr),
                *(choice.batches, Unrolled(), choice.views),
            )
            wanted = wanted + inner.images / 2
    assert {choice.network for choice in choices} == {0, 1}
    assert float((found.gradients[0] - wanted).norm() / wanted.norm()) < 1e-5
    assert found.features == pytest.approx(features, rel=1e-5)
    assert (found.distance is None) == (not changes)


def test_what_is_matched_decides_the_set(opened):
    first, found = starting_state(opened(), opened().recipe.match), {}
    for change in ([], BOTH, ["match.objective=parameters", "match.labels=learned"]):
        context = opened(*change)
        start = starting_state(context, context.recipe.match)
        *_, (state, step) = islice(outer_steps(context, None, start), 3)
        found[context.recipe.match.objective] = state
        assert step.applied
        assert torch.equal(state.labels, start.labels) == (not change)
    assert torch.equal(found["features"].student_lr, first.student_lr)
    images = [state.images for state in found.values()]
    assert not any(torch.equal(images[i], images[i - 1]) for i in range(3))


def test_a_run_that_is_stopped_and_goes_on_makes_the_same_set(
    alone, experts, match, command, monkeypatch, tmp_path
):
    whole = match()
    rows = [row for row in read_lines(whole / "metrics.jsonl") if row["stage"] == "match"]
    assert [set(row) for row in rows] == [
        {"stage", "step", "student_lr", "applied", "features", "cross_entropy"}
    ] * 6
    assert len(curves(rows)) == 3
    out = copy_run(experts, tmp_path / "other")
    names = ("--set", f"experts.networks={','.join(NETWORKS)}")
    with monkeypatch.context() as patch:
        patch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(3)))
        assert command("match", alone, "--out", out, "--quiet", *names).code == 130
    assert command("match", alone, "--out", out, "--quiet", *names).code == 0
    assert outputs_of(out) == outputs_of(whole)
    assert artefacts(out) == artefacts(whole)


def test_images_may_be_formed_and_coded_within_a_budget(match):
    content = read_set(
        match("match.images=frequency:step=0.4", "match.budget_bytes=1000", "match.factor=2")
        / "set.h5"
    )
    assert content.coded is not None
    assert len(content.coded) < 1000


@pytest.mark.parametrize("changes", [[], BOTH], ids=["alone", "both"])
def test_a_plan_counts_the_features_of_every_class(changes, alone):
    recipe = load_recipe(str(alone), [*changes, "match.ipc=2"])
    units = Units(recipe, data_shape(recipe.data), torch.device("cpu"))
    (task,) = match_units(units, recipe.match)
    *inner, part = task.parts
    assert len(inner) == (1 if changes else 0)
    assert part.times == 6 * 10
    assert part.unit.batch == 5 + 2
    assert part.unit.what == f"feature step of {NETWORKS[0]}, colour_crop_cutout_scale_rotate"
    small, large = (part.unit.cost(size) for size in (7, 70))
    assert 0 < small.flops < large.flops
    assert small.peak_bytes < large.peak_bytes
    call, count = part.unit.work(7)
    call()
    assert count == 1


def test_a_plan_of_features_alone_has_no_gradient_of_inner_steps(alone, command):
    plan = json.loads(command("plan", alone, "--json").out)
    assert "matching" not in plan["memory"]
    assert plan["memory"]["stages"]["match"]["peak"] > 0
    (part,) = plan["time"]["stages"]["match"]["parts"]
    assert part["what"].startswith("feature step of")
    assert command("plan", alone).code == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["match.labels=learned"], 'match.objective = "features" learns no labels'),
        (["match.labels=target"], 'match.labels = "target" are those of the later snapshot'),
        (
            ["match.labels=votes", "match.later_weight=0", "match.label_init=hard"],
            'match.labels = "votes" label views for the cross-entropy',
        ),
        (["match.objective=feature"], "match.objective: it should be"),
        (["match.feature_weight=0"], "match.feature_weight: it should be greater than 0"),
    ],
)
def test_what_features_cannot_do_is_refused(changes, words, alone, refused, tmp_path):
    settings = [word for change in changes for word in ("--set", change)]
    assert words in refused(2, "run", alone, "--out", tmp_path / "out", *settings)
    assert not (tmp_path / "out").exists()


def test_experts_without_a_linear_layer_are_refused(alone, monkeypatch, refused, tmp_path):
    def convolution(spec, channels, size, classes, seed):
        return nn.Sequential(nn.Conv2d(channels, classes, size), nn.Flatten())

    monkeypatch.setattr("distill.recipes.checks.build_network", convolution)
    message = refused(2, "run", alone, "--out", tmp_path / "out")
    assert f"match.objective, network {NETWORKS[0]}: the network has no linear layer" in message


def test_a_last_linear_layer_that_is_not_the_head_is_refused(alone, monkeypatch, refused, tmp_path):
    class Unused(nn.Module):
        def __init__(self, pixels, classes):
            super().__init__()
            self.head = nn.Linear(pixels, classes)
            self.other = nn.Linear(3, 3)

        def forward(self, images):
            return self.head(images.flatten(1))

    def unused(spec, channels, size, classes, seed):
        return Unused(channels * size[0] * size[1], classes)

    monkeypatch.setattr("distill.recipes.checks.build_network", unused)
    message = refused(2, "run", alone, "--out", tmp_path / "out")
    assert "last linear layer is not what gives its logits" in message
