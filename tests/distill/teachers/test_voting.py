"""Stored and seeded views, mixes and parts, and the training from them, on digits."""

import json

import h5py
import pytest
import torch

from distill.errors import RecipeError
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import StudentJob
from distill.evaluation.students import label_temperature, student_settings
from distill.plan.sizes import label_bytes
from distill.recipes.loading import load_recipe
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.sets.cost import count_bytes
from distill.sets.set_file import read_set, write_set
from distill.stages.units.shapes import DataShape
from synth.committee.strategies.stored import aggregated_vote
from tests.distill.cases import STUDENT, edited, read_json

# Batches of four, and the last one of six: ten images.
BATCHES = ("relabel.batch_size=4", "relabel.parts=2")


def relabelled(command, recipe, run, *changes):
    """The votes of the run after `distill relabel` with other keys."""
    words = [word for change in changes for word in ("--set", change)]
    outcome = command("run", recipe, "--out", run, "--stage", "relabel", *words)
    assert outcome.code == 0, outcome.err
    return read_set(run / "set.h5")


def batches_of(content):
    images = content.seen_images
    return [batch for epoch in range(4) for batch in content.votes.batches(images, epoch)]


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup"])
def test_views_from_the_seed_give_the_batches_that_stored_views_give(
    mix, run_copy, recipe, command
):
    changes = (*BATCHES, f"relabel.mix={mix}")
    stored = relabelled(command, recipe, run_copy, *changes)
    seeded = relabelled(command, recipe, run_copy, *changes, "relabel.views=seed")
    sizes = [count_bytes(content)["sources"]["votes"] for content in (seeded, stored)]
    assert sizes[0] < sizes[1]
    assert (stored.votes.seed, seeded.votes.seed) == (None, 0)
    found, expected = batches_of(seeded), batches_of(stored)
    assert len(found) == 4 * 3
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.parts == other.parts == 2


@pytest.mark.parametrize(
    ("mix", "views"),
    [("none", "stored"), ("cutmix", "stored"), ("mixup", "stored"), ("cutmix", "seed")],
)
def test_bytes_of_votes_are_those_of_what_is_stored(mix, views, run_copy, recipe, command):
    changes = (*BATCHES, f"relabel.mix={mix}", f"relabel.views={views}")
    content = relabelled(command, recipe, run_copy, *changes)
    logits, ids, parameters = 4 * 10 * 10 * 2, 4 * 10, 4 * 10 * 5 * 2
    mixes = {"none": 0, "cutmix": 4 * 10 + 4 * 3 * 4 * 2, "mixup": 4 * 10 + 4 * 3 * 1 * 2}
    expected = logits + (ids + parameters + mixes[mix] if views == "stored" else 0)
    assert count_bytes(content, (0, 0))["sources"]["votes"] == expected
    with h5py.File(run_copy / "set.h5") as file:
        group = file["labels/full-fp16"]
        assert sum(group[name].nbytes for name in group) == expected
        assert set(group) >= {"logits"}
        assert len(group) == 1 or views == "stored"
    # `distill plan` foretells the same.
    plan = load_recipe(str(recipe), list(changes))
    shape = DataShape(10, 1, (8, 8), 90, 10, 597)
    assert label_bytes(plan, shape)["votes"] == expected


def test_seeded_votes_are_written_again_to_the_same_bytes(run_copy, recipe, command, tmp_path):
    content = relabelled(command, recipe, run_copy, *BATCHES, "relabel.mix=cutmix")
    for name, views in (("stored", None), ("seed", 0)):
        from dataclasses import replace

        changed = replace(content, votes=replace(content.votes, seed=views))
        write_set(tmp_path / f"{name}.h5", changed)
        again = read_set(tmp_path / f"{name}.h5")
        write_set(tmp_path / f"{name}2.h5", again)
        first, second = ((tmp_path / f"{name}{n}.h5").read_bytes() for n in ("", "2"))
        assert first == second
        assert torch.equal(again.votes.mixes.partners, content.votes.mixes.partners)


def test_seed_that_draws_other_views_is_refused(run_copy, recipe, command, refused):
    relabelled(command, recipe, run_copy, "relabel.views=seed")
    with edited(run_copy / "set.h5") as file:
        file["labels/full-fp16"].attrs["seed"] = 1
    line = refused(1, "show", run_copy / "set.h5")
    assert "seed 1 does not draw the views of its labels on this machine" in line
    assert "relabel.views = stored" in line


@pytest.mark.parametrize(
    ("name", "value"), [("partners", 200), ("mixes", float("nan"))], ids=["partners", "mixes"]
)
def test_mixes_that_do_not_fit_are_refused(name, value, run_copy, recipe, command, refused):
    relabelled(command, recipe, run_copy, *BATCHES, "relabel.mix=cutmix")
    with edited(run_copy / "set.h5") as file:
        array = file[f"labels/full-fp16/{name}"]
        array[0] = value
    line = refused(1, "show", run_copy / "set.h5")
    assert "the voted labels do not fit the images" in line


def test_students_train_on_mixed_parts_beside_a_control_that_is_mixed_alike(
    run_copy, recipe, command
):
    changes = (*BATCHES, "relabel.mix=cutmix", "relabel.views=seed", "relabel.temperature=20")
    soft = ("soft_eta=2", "soft_average=0.9", "soft_lr=0.001", "soft_optimizer=adam")
    words = [w for c in changes for w in ("--set", c)]
    words += [w for c in soft for w in ("--set", f"evaluate.{c}")]
    words += ["--set", "evaluate.labels=votes", "--set", "evaluate.whole_epochs=1"]
    outcome = command("run", recipe, "--out", run_copy, "--quiet", *words)
    assert outcome.code == 0, outcome.err
    found = read_json(run_copy / "summary.json")
    assert set(found["students"][STUDENT]) == {"votes"}
    assert set(found["controls"]["random"][STUDENT]) == {"hard", "votes"}
    votes = found["protocol"]["votes"]
    assert votes["loss"] == "KL at temperature 20"
    assert (votes["batch_size"], votes["parts"], votes["mix"]) == (4, 2, "cutmix")
    assert (votes["schedule"], votes["average"], votes["optimizer"]) == (
        "cosine, eta 2",
        0.9,
        "adam",
    )
    weights = [
        row["weight"]
        for row in map(json.loads, (run_copy / "metrics.jsonl").read_text().splitlines())
        if row["stage"] == "relabel"
    ]
    assert len(weights) == 3
    assert sum(weights) == pytest.approx(1)


def test_evaluation_keys_reach_the_students_of_votes_alone(finished):
    table = EvaluateTable(
        students=[STUDENT], soft_eta=2, soft_average=0.5, soft_weight_decay=0.02, soft_lr=0.001
    )
    judged = EvaluatedSet(read_set(finished / "set.h5"))
    for labels in ("votes", "projector"):
        found = student_settings(table, judged, StudentJob("students", STUDENT, labels, 0))
        assert (found.eta, found.average, found.weight_decay, found.lr) == (2, 0.5, 0.02, 0.001)
    hard = student_settings(table, judged, StudentJob("students", STUDENT, "hard", 0))
    assert (hard.eta, hard.average) == (1, 0)


def test_students_without_votes_take_the_temperature_of_the_recipe(finished):
    from dataclasses import replace

    content = replace(read_set(finished / "set.h5"), votes=None)
    judged = EvaluatedSet(content, relabel=RelabelTable(temperature=17))
    assert label_temperature(judged) == 17
    table = EvaluateTable(students=[STUDENT])
    job = StudentJob("students", STUDENT, "projector", 0)
    assert student_settings(table, judged, job).temperature == 17


def test_evaluation_of_a_set_without_votes_says_the_temperature_of_its_recipe(
    run_copy, recipe, command
):
    from dataclasses import replace

    content = read_set(run_copy / "set.h5")
    asked = content.manifest["recipe"]
    asked["relabel"] = {**asked["relabel"], "temperature": 17.0}
    manifest = {**content.manifest, "recipe": asked}
    write_set(run_copy / "set.h5", replace(content, votes=None, manifest=manifest))
    outcome = command(
        "evaluate", run_copy, "--labels", "projector", "--seeds", "1", "--quiet", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["protocol"]["projector"]["loss"] == "KL at temperature 17"


@pytest.mark.parametrize(("ipc", "expected"), [(1, 10), (9, 10), (10, 16), (50, 20), (80, 20)])
def test_a_key_may_be_a_table_by_images_per_class(ipc, expected):
    changes = [
        "relabel.batch_size={1 = 10, 10 = 16, 50 = 20}",
        "evaluate.soft_eta={1 = 2, 50 = 1}",
        f"match.ipc={ipc}",
    ]
    recipe = load_recipe("digits", changes)
    assert recipe.relabel.batch_size == expected
    assert recipe.evaluate.soft_eta == (2 if ipc < 50 else 1)


def test_a_table_by_images_per_class_begins_below_its_first_entry():
    recipe = load_recipe("digits", ["relabel.batch_size={10 = 16}"])
    assert recipe.relabel.batch_size == 16


REFUSED = [
    ("relabel.batch_size={few = 10}", "relabel.batch_size is a table, whose keys must be images"),
    ("relabel.batch_size={1 = 1}", "relabel.batch_size: it should be greater than or equal to 2"),
    ("relabel.batch_size={}", "got none"),
    ("relabel.mix=cutout", "relabel.mix: it should be 'none', 'cutmix' or 'mixup'"),
    ("relabel.views=drawn", "relabel.views: it should be 'stored' or 'seed'"),
    ("relabel.parts=0", "relabel.parts: it should be greater than or equal to 1"),
    ("evaluate.soft_eta=0.5", "evaluate.soft_eta: it should be greater than or equal to 1"),
    ("evaluate.soft_average=1", "evaluate.soft_average: it should be less than 1"),
    ("evaluate.soft_optimizer=lion", "evaluate.soft_optimizer: it should be 'adamw', 'adam'"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[change for change, _ in REFUSED])
def test_wrong_labels_are_refused(change, words):
    with pytest.raises(RecipeError) as found:
        load_recipe("digits", [change])
    assert words in str(found.value)
    assert "\n" not in str(found.value)


def test_votes_that_half_precision_does_not_hold_are_refused_where_they_are_made(
    run_copy, recipe, command, refused, monkeypatch
):
    """So no later stage meets them, and another recipe goes on in the same folder."""

    def explode(committee, batch, rule, own):
        return aggregated_vote(committee, batch, rule, own) * (1e6 if own else 1)

    monkeypatch.setattr("distill.teachers.voting.aggregated_vote", explode)
    words = ("run", recipe, "--out", run_copy, "--stage", "relabel", "--quiet")
    before = (run_copy / "set.h5").read_bytes()
    line = refused(1, *words, "--set", "relabel.epochs=5")
    assert "of 100 voted logits are not finite in half precision, which ends at 65,504" in line
    assert "set relabel.bssl to off, or raise relabel.batch_size" in line
    assert (run_copy / "set.h5").read_bytes() == before
    outcome = command(*words, "--set", "relabel.epochs=5", "--set", "relabel.bssl=off")
    assert outcome.code == 0, outcome.err
    assert len(read_set(run_copy / "set.h5").votes.logits) == 5
