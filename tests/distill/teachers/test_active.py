"""Teachers label a part of the views, chosen by the max-min formula or at random, on digits."""

import json
from dataclasses import replace

import pytest
import torch

from distill.errors import RecipeError
from distill.recipes.loading import load_recipe
from distill.sets.cost import teacher_passes
from distill.sets.network_labels import LabelSources
from distill.sets.set_file import read_set
from distill.teachers import active
from synth.committee.strategies import max_min_weights
from synth.committee.strategies.stored import with_unlabelled
from tests.distill.cases import STUDENT, read_json
from tests.distill.sets.cases import make_votes

HARD = torch.tensor([0, 0, 1, 1, 2, 2])
ACTIVE = ("active=robust", "budget=0.5", "active_student=convnet2:width=4", "active_epochs=3")


def relabelled(command, recipe, run, *changes):
    """The set after `distill relabel` with other keys of [relabel], and what was logged."""
    words = [word for change in changes for word in ("--set", f"relabel.{change}")]
    outcome = command("run", recipe, "--out", run, "--stage", "relabel", "--quiet", *words)
    assert outcome.code == 0, outcome.err
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    logged = {}
    for row in rows:
        if row["stage"] == "relabel":
            logged.update(row)
    return read_set(run / "set.h5"), logged


@pytest.mark.parametrize("bssl", ["off", "on"])
def test_chosen_views_have_the_labels_of_the_teachers_and_others_their_class(
    bssl, run_copy, recipe, command
):
    full, _ = relabelled(command, recipe, run_copy, f"bssl={bssl}")
    content, logged = relabelled(
        command, recipe, run_copy, f"bssl={bssl}", *ACTIVE, "unasked=hard", "views=seed"
    )
    votes = content.votes
    assert torch.equal(votes.ids, full.votes.ids)
    assert torch.equal(votes.views, full.votes.views)
    top = torch.softmax(votes.logits.float() / votes.temperature, dim=2).amax(dim=2)
    hard = top > 1 - 1e-6
    assert int((~hard).sum()) == logged["chosen"] == 20
    torch.testing.assert_close(votes.logits[~hard], full.votes.logits[~hard], atol=2e-2, rtol=1e-2)
    classes = content.hard[votes.ids]
    assert torch.equal(votes.logits.argmax(dim=2)[hard], classes[hard])
    # With their own batch statistics the teachers see whole batches, of which each has a choice.
    passes = 20 if bssl == "off" else 40
    assert (logged["views"], logged["teacher_passes"], votes.queried) == (40, passes, passes)


def test_labels_are_asked_by_the_max_min_weights_of_a_students_gains(
    run_copy, recipe, command, monkeypatch
):
    seen = {}

    def recorded(gains, mistakes):
        seen.update(gains=gains, mistakes=mistakes)
        return max_min_weights(gains, mistakes)

    monkeypatch.setattr(active, "max_min_weights", recorded)
    monkeypatch.setattr(active, "_error_rate", lambda *_: 0.3)
    content, logged = relabelled(command, recipe, run_copy, *ACTIVE, "budget=0.2", "unasked=hard")
    assert seen["gains"].shape == (40,)
    assert bool(((seen["gains"] > 0) & (seen["gains"] <= 1)).all())
    assert seen["mistakes"] == logged["mistakes"] == 12
    weights = max_min_weights(seen["gains"], 12)
    votes = content.votes
    top = torch.softmax(votes.logits.float() / votes.temperature, dim=2).amax(dim=2)
    chosen = (top < 1 - 1e-6).flatten()
    assert int(chosen.sum()) == 8
    assert bool((weights[chosen] > 0).all())


def test_random_choice_keeps_the_budget_and_trains_no_student(
    run_copy, recipe, command, monkeypatch
):
    monkeypatch.setattr(active, "_student", lambda *_: pytest.fail("a student was trained"))
    content, logged = relabelled(command, recipe, run_copy, "active=random", "budget=0.3")
    assert (logged["active"], logged["chosen"]) == ("random", 12)
    assert content.votes.queried == logged["teacher_passes"]


def test_students_learn_from_reused_labels_of_whole_epochs(run_copy, recipe, command):
    words = [word for change in ACTIVE for word in ("--set", f"relabel.{change}")]
    words += ["--set", "evaluate.labels=votes"]
    outcome = command("run", recipe, "--out", run_copy, "--quiet", *words)
    assert outcome.code == 0, outcome.err
    found = read_json(run_copy / "summary.json")
    assert found["students"][STUDENT]["votes"]["mean"] > 0.05
    votes = read_set(run_copy / "set.h5").votes
    assert all(sorted(row.tolist()) == list(range(10)) for row in votes.ids)


def test_unasked_views_are_replaced_by_the_next_labelled_view_of_their_image():
    votes = make_votes()
    chosen = torch.ones(2, 6, dtype=torch.bool)
    chosen[0, 0] = False
    lost = int(votes.ids[0, 1])
    chosen |= votes.ids == lost
    chosen &= votes.ids != lost
    image = int(votes.ids[0, 0])
    found = with_unlabelled(votes, chosen, HARD, "reuse")
    if image != lost:
        other = int((votes.ids[1] == image).nonzero())
        assert torch.equal(found.logits[0, 0], votes.logits[1, other])
        assert torch.equal(found.views[0, 0], votes.views[1, other])
    # Of the lost image no view was labelled: it keeps its own, with its class.
    assert torch.equal(found.views[0, 1], votes.views[0, 1])
    soft = torch.softmax(found.logits[0, 1].float() / votes.temperature, dim=0)
    assert float(soft[HARD[lost]]) == pytest.approx(1, abs=1e-6)
    hard = with_unlabelled(votes, chosen, HARD, "hard")
    assert torch.equal(hard.views, votes.views)
    assert torch.equal(hard.logits[chosen], votes.logits[chosen])


def test_teacher_passes_of_a_budget_are_counted(run_copy, recipe, command):
    relabelled(command, recipe, run_copy, *ACTIVE, "bssl=off")
    outcome = command("encode", run_copy, "--codec", "dense", "--quiet")
    assert outcome.code == 0, outcome.err
    content = read_set(run_copy / "set.h5")
    three = LabelSources((torch.nn.Identity(),) * 3, (), None)
    found = teacher_passes(content.encoded["dense"], content.votes, three)
    assert found == {"maker": 20 * 3, "each student": 0}
    whole = replace(content.votes, queried=None)
    assert teacher_passes(content.encoded["dense"], whole, three)["maker"] == 40 * 3


REFUSED = [
    (["relabel.active=robust", "relabel.mix=cutmix"], "active = robust labels views by themselves"),
    (["relabel.active=random", "relabel.views=seed"], "active = random changes which views there"),
    (["relabel.zones=ferkd", "relabel.mix=mixup"], "zones = ferkd labels views by themselves"),
    (["relabel.zones=ferkd", "relabel.views=seed"], "zones = ferkd changes which views there"),
    (["relabel.budget=0"], "relabel.budget: it should be greater than 0"),
    (["relabel.budget=1.5"], "relabel.budget: it should be less than or equal to 1"),
    (["relabel.unasked=skip"], "relabel.unasked: it should be 'reuse' or 'hard'"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=[str(c) for c, _ in REFUSED])
def test_wrong_choices_are_refused(changes, words):
    with pytest.raises(RecipeError) as found:
        load_recipe("digits", changes)
    assert words in str(found.value)
    assert "\n" not in str(found.value)


def test_student_that_does_not_exist_is_refused(recipe, refused, tmp_path):
    changes = ("--set", "relabel.active=robust", "--set", "relabel.active_student=convnet9")
    line = refused(2, "run", recipe, "--out", tmp_path / "out", *changes)
    assert "there is no network convnet9" in line
