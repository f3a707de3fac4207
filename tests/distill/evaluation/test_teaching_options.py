"""What students of soft labels do with them, each a recipe key, on digits."""

import json

import pytest
import torch

from distill.errors import RecipeError
from distill.evaluation import students
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import StudentJob
from distill.evaluation.students import student_settings
from distill.recipes.loading import load_recipe
from distill.recipes.tables.evaluate import EvaluateTable
from distill.sets.set_file import read_set
from synth.parameters import parameter_vector
from synth.training.temperatures import Annealing
from tests.distill.cases import STUDENT, read_json

KEYS = {
    "discriminator": ("evaluate.discriminator=1", "relabel.aggregate=probabilities"),
    "steps": ("evaluate.anneal=step", "evaluate.anneal_every=1", "evaluate.anneal_factor=0.5"),
    "cosine": ("evaluate.anneal=cosine", "evaluate.anneal_least=2", "evaluate.calibrated=true"),
    "gift": ("evaluate.gift=0.1",),
    "hard": ("evaluate.hard_share=0.5", "evaluate.hard_smoothing=0.5"),
    "self-mix": ("evaluate.self_mix=true",),
}
WORDS = {
    "discriminator": "KL at temperature 4",
    "steps": "KL at temperature 4, step to 1",
    "cosine": "KL at temperature 4, cosine to 2.5, the student's calibrated",
    "gift": "cosine, with refined labels (GIFT), at temperature 4",
    "hard": "KL at temperature 4",
    "self-mix": "KL at temperature 4",
}


def trained(command, recipe, run, *changes):
    """The summary of a run whose students learn from votes alone."""
    words = [word for change in changes for word in ("--set", change)]
    words += ["--set", "evaluate.labels=votes", "--set", "evaluate.seeds=1"]
    outcome = command("run", recipe, "--out", run, "--quiet", *words)
    assert outcome.code == 0, outcome.err
    return read_json(run / "summary.json")


@pytest.mark.parametrize("name", KEYS)
def test_students_of_votes_train_by_the_key(name, run_copy, recipe, command, monkeypatch):
    weights, seen = [], {}
    plain = students.train

    def recorded(network, batches, settings, told=None):
        seen["settings"], seen["told"] = settings, told
        yield from plain(network, batches, settings, told)
        weights.append(parameter_vector(network).clone())

    monkeypatch.setattr(students, "train", recorded)
    aggregate = KEYS[name][1:] if name == "discriminator" else ()
    usual = trained(command, recipe, run_copy, *aggregate)
    count = len(weights)
    found = trained(command, recipe, run_copy, *KEYS[name])
    assert not torch.equal(weights[0], weights[count])
    assert usual["protocol"]["votes"]["loss"] == "KL at temperature 4"
    assert found["protocol"]["votes"]["loss"] == WORDS[name]
    assert found["protocol"]["votes"].get("discriminator") == (
        1.0 if name == "discriminator" else None
    )
    assert set(found["students"][STUDENT]) == {"votes"}


def test_keys_reach_the_students_of_soft_labels_alone(finished):
    table = EvaluateTable(
        students=[STUDENT], anneal="step", anneal_every=5, anneal_factor=0.9, calibrated=True
    )
    judged = EvaluatedSet(read_set(finished / "set.h5"))
    soft = student_settings(table, judged, StudentJob("students", STUDENT, "votes", 0))
    assert (soft.annealing, soft.calibrated) == (Annealing("step", 5, 0.9, 1.0), True)
    hard = student_settings(table, judged, StudentJob("students", STUDENT, "hard", 0))
    assert (hard.annealing, hard.calibrated) == (None, False)


def test_the_published_setting_is_a_recipe_of_keys():
    changes = ["encode.codec=lpqld:tail=renormalised:unit=batch-to-epoch", "relabel.temperature=20"]
    changes += ["relabel.mix=cutmix", "evaluate.anneal=step", "evaluate.calibrated=true"]
    recipe = load_recipe("digits", changes)
    assert (recipe.evaluate.anneal_every, recipe.evaluate.anneal_factor) == (30, 0.7)


REFUSED = [
    (["evaluate.gift=0.1", "evaluate.anneal=step"], "evaluate.anneal moves temperatures"),
    (["evaluate.self_mix=true", "evaluate.calibrated=true"], "evaluate.calibrated moves"),
    (["evaluate.anneal=linear"], "evaluate.anneal: it should be 'none', 'step' or 'cosine'"),
    (["evaluate.anneal_factor=0"], "evaluate.anneal_factor: it should be greater than 0"),
    (["evaluate.discriminator=-1"], "evaluate.discriminator: it should be greater than or"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=[json.dumps(c) for c, _ in REFUSED])
def test_wrong_keys_are_refused(changes, words):
    with pytest.raises(RecipeError) as found:
        load_recipe("digits", changes)
    assert words in str(found.value)
    assert "\n" not in str(found.value)
