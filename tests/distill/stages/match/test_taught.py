"""Matching on labels that teachers give to the views of inner steps."""

import pytest
import torch

from distill.__main__ import run
from distill.errors import WorkError
from distill.recipes.loading import load_recipe
from distill.run.context import handle_of, open_context
from distill.run.folder import Run
from distill.sets.set_file import read_set
from distill.stages.match.problem import match_problem, outer_steps
from distill.stages.match.start import starting_state
from distill.stages.match.taught import taught_keys, view_labels
from distill.store.seals import unsealed
from distill.teachers.loading import load_committee
from synth import Adjoint, Unrolled, matching_gradient
from tests.distill.cases import (
    TINY,
    CountingStop,
    artefacts,
    copy_run,
    listen_with,
    outputs_of,
    read_json,
    reading_context,
    write_recipe,
)

ONE = "match.iterations=1"
TEXT = TINY.replace("span = 1", 'span = 1\nsegments = 2\nlabels = "votes"\nclass_share = 0.2')


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """The tiny recipe, matched through votes."""
    return write_recipe(tmp_path_factory.mktemp("recipe"), TEXT)


@pytest.fixture(scope="module")
def matched(voted, finished, tmp_path_factory):
    """The tiny run, whose experts, committee and projector made another set."""
    out = copy_run(finished, tmp_path_factory.mktemp("matched") / "run")
    assert run(["match", str(voted), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def opened(voted, finished):
    """The context of the recipe with changes, on the tiny run."""

    def open_with(*changes):
        return reading_context(finished, load_recipe(str(voted), list(changes)))

    return open_with


@pytest.fixture
def match(voted, finished, command, tmp_path):
    """Match into a copy of the tiny run; gives its folder."""

    def call(*changes, folder="run"):
        out = tmp_path / folder
        if not out.exists():
            copy_run(finished, out)
        settings = [word for change in changes for word in ("--set", change)]
        outcome = command("match", voted, "--out", out, "--quiet", *settings)
        assert outcome.code == 0, outcome.err
        return out

    return call


@pytest.mark.parametrize("labels", ["votes", "projector"])
def test_gradient_on_digits_equals_the_unrolled_one_on_the_same_labels(labels, opened):
    context = opened(f"match.labels={labels}", "match.inner_steps=6", "match.ipc=2")
    table = context.recipe.match
    state = starting_state(context, table)
    problem = match_problem(context, table, len(state.labels), None)
    (choice, _), lr = problem.choose(0), torch.tensor(0.05)
    segment = problem.read(choice)
    given = problem.view_labels.of_steps(state.images, choice.batches, choice.views)
    assert given.temperature == 4.0, "that of [relabel]"
    exact, slow = (
        matching_gradient(
            problem.network,
            segment.start,
            segment.target,
            state.images,
            given,
            lr,
            choice.batches,
            method,
            choice.views,
        )
        for method in (Adjoint(), Unrolled())
    )
    for name in ("images", "lr", "end", "distance"):
        found, wanted = getattr(exact, name), getattr(slow, name)
        assert float((found - wanted).norm() / wanted.norm()) <= 1e-5, name
    assert float(exact.images.abs().max()) > 0


def test_votes_are_those_that_the_set_is_labelled_with(opened):
    """The vote of a step is [relabel]'s: with batch statistics where this has them."""
    for bssl in ("on", "off"):
        context = opened(f"relabel.bssl={bssl}", "match.class_share=0", "data.augmentation=none")
        table = context.recipe.match
        images = context.split("train")[0][:10]
        problem = match_problem(context, table, 10, None)
        (found,) = problem.view_labels.of_steps(images, [torch.arange(10)], None).logits
        committee = load_committee(context)
        wanted = committee.vote(images, batch_statistics=bssl == "on")
        other = committee.vote(images, batch_statistics=bssl != "on")
        assert torch.equal(found, wanted)
        assert not torch.allclose(found, other)


@pytest.mark.parametrize("gradient", ["adjoint", "frozen", "unrolled"])
def test_every_gradient_takes_voted_steps(gradient, opened):
    context = opened(f"match.gradient={gradient}", "match.iterations=2")
    steps = list(outer_steps(context, None, starting_state(context, context.recipe.match)))
    assert len(steps) == 2
    first, last = steps[0][0], steps[-1][0]
    assert all(step.applied for _, step in steps)
    assert not torch.equal(first.images, last.images)
    assert torch.equal(first.labels, last.labels), "the classes, which are not learned"


def test_the_set_has_hard_labels_and_can_be_voted_on(voted, matched, command, tmp_path):
    out = copy_run(matched, tmp_path / "run")
    assert read_set(out / "set.h5").learned is None
    assert command("run", voted, "--out", out, "--quiet").code == 0
    judged = read_json(out / "evaluation.json")["students"]["convnet2:width=4"]
    assert set(judged) == {"hard", "votes", "projector"}


def test_a_run_that_is_stopped_and_goes_on_makes_the_same_set(
    voted, finished, matched, command, monkeypatch, tmp_path
):
    for at in (2, 5):
        out = copy_run(finished, tmp_path / str(at))
        with monkeypatch.context() as patch:
            stop = CountingStop(at)
            patch.setattr("distill.stages.run_recipe.listen", listen_with(stop))
            assert command("match", voted, "--out", out, "--quiet").code == 130
        assert outputs_of(out)["match"] == outputs_of(finished)["match"]
        assert command("match", voted, "--out", out, "--quiet").code == 0
        assert outputs_of(out) == outputs_of(matched)
        assert artefacts(out) == artefacts(matched)


def last_images(context):
    """The images after the outer steps of a context's recipe."""
    start = starting_state(context, context.recipe.match)
    return [state for state, _ in outer_steps(context, None, start)][-1].images


def test_the_same_images_come_of_the_same_labels_in_any_process(opened):
    first, others = last_images(opened(ONE)), []
    assert torch.equal(last_images(open_context(handle_of(opened(ONE)))), first)
    for change in ("labels=projector", "class_share=0", "label_temperature=1"):
        others.append(last_images(opened(ONE, f"match.{change}")))
    assert not any(torch.equal(images, first) for images in others)


def test_what_decides_the_labels_is_part_of_the_inputs(voted):
    def keys(*changes):
        return taught_keys(load_recipe(str(voted), list(changes)))

    first = keys()
    for change in ("relabel.epochs=9", "relabel.augmentation=crop", "committee.epochs=9"):
        assert keys(change) == first
    for change in ("committee.vote=equal", "relabel.temperature=2", "relabel.bssl=off"):
        assert keys(change) != first
    measured, other = "committee.vote=measured", "relabel.augmentation=crop"
    assert keys(measured, other) != keys(measured), "measured by students that see these views"
    # The temperature that matching is told is its own.
    own = "match.label_temperature=2"
    assert keys(own, "relabel.temperature=3") == keys(own)
    fixed = ("match.labels=fixed", "match.class_share=0")
    assert keys(*fixed) is None
    projector = keys("match.labels=projector")
    assert keys("match.labels=projector", "committee.vote=equal") == projector


def test_images_may_be_coded_within_a_budget(match):
    changes = ["match.images=frequency:step=0.4", "match.budget_bytes=1000", "match.factor=2"]
    content = read_set(match(*changes, "match.iterations=3") / "set.h5")
    assert content.learned is None
    assert content.coded is not None
    assert len(content.coded) < 1000


def test_measured_scores_are_kept_for_the_votes_of_inner_steps(match):
    changes = ["committee.vote=measured", "committee.measure_epochs=1", "committee.measure_ipc=2"]
    out = match(*changes, "committee.measure_student=convnet2:width=4")
    assert len(unsealed(read_json(out / "votes.json"))) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["match.labels=vote"], "match.labels: it should be"),
        (["match.class_share=1"], "match.class_share: it should be less than 1"),
        (["match.label_temperature=0"], "match.label_temperature: it should be greater than 0"),
        (["match.label_init=experts"], 'match.labels = "votes" labels views'),
        (["match.labels=learned"], "match.class_share is of labels that teachers give"),
        (
            ["match.labels=target", "match.class_share=0", "match.label_temperature=2"],
            "match.label_temperature is of labels that teachers give",
        ),
        (["match.labels=projector", "data.zca=true"], "a projector reads pixels"),
    ],
)
def test_labels_that_cannot_be_given_are_refused(changes, words, voted, refused, tmp_path):
    settings = [word for change in changes for word in ("--set", change)]
    assert words in refused(2, "run", voted, "--out", tmp_path / "out", *settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "words"), [("votes", "needs teachers"), ("projector", "needs a projector")]
)
def test_teachers_that_a_recipe_lacks_are_asked_for(labels, words, refused, tmp_path):
    text = TEXT.partition("[committee]")[0].replace('"votes"', f'"{labels}"')
    recipe = write_recipe(tmp_path / "recipe", text)
    assert words in refused(2, "run", recipe, "--out", tmp_path / "out")


def test_matching_before_its_teachers_are_trained_is_refused(voted, refused, tmp_path):
    out = tmp_path / "run"
    assert run(["experts", str(voted), "--out", str(out), "--quiet"]) == 0
    assert "stage match needs the outputs of committee" in refused(
        1, "match", voted, "--out", out, "--quiet"
    )


def test_a_damaged_projector_is_refused_before_the_first_step(opened, finished, tmp_path):
    context = opened("match.labels=projector")
    context.run = Run(copy_run(finished, tmp_path / "run"), read_only=True)
    path = next((context.run.path / "projector").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorkError, match=r"^projector .*run/projector: "):
        view_labels(context, context.recipe.match)
