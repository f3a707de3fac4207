"""Every key and every choice of [relabel] on digits, and what a committee may not be asked."""

import json
from typing import get_args

import pytest
import torch

from distill import names as registry
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.sets.set_file import read_set
from synth.committee.strategies import CROWD_METHODS
from tests.distill.cases import copy_run, edited

AGGREGATES = ("logits", "probabilities", *CROWD_METHODS)
CHANGES = [
    ["relabel.epochs=3"],
    ["relabel.batch_size=5"],
    ["relabel.parts=2"],
    ["relabel.mix=cutmix"],
    ["relabel.mix=mixup"],
    ["relabel.bssl=off"],
    ["relabel.augmentation=flip"],
    ["relabel.views=seed"],
    ["relabel.temperature=8"],
    ["relabel.zones=ferkd"],
    ["relabel.active=random", "relabel.budget=0.4", "relabel.unasked=hard"],
    [
        "relabel.active=robust",
        "relabel.active_student=convnet2:width=4",
        "relabel.active_epochs=2",
    ],
    *([f"relabel.aggregate={name}"] for name in AGGREGATES if name != "logits"),
    ["relabel.aggregate=standard,softmax,wawa"],
]
# Tested by itself: the default is one of the others.
DEFAULTS = {"none", "stored", "auto", "logits", "reuse"}


# crowd-kit's own methods run in Python: of MACE, every batch takes half a minute.
SLOW = {f"relabel.aggregate={name}": pytest.mark.slow for name in ("glad", "mace")}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(change, marks=SLOW.get(change[0], ()), id=" ".join(change))
        for change in CHANGES
    ],
)
def test_every_option_changes_the_labels(changes, finished, tmp_path, recipe, command):
    if {"relabel.aggregate=glad", "relabel.aggregate=mace"} & set(changes):
        pytest.importorskip("crowdkit")
    before = read_set(finished / "set.h5").votes
    out = copy_run(finished, tmp_path / "run")
    words = [word for change in changes for word in ("--set", change)]
    outcome = command("run", recipe, "--out", out, "--stage", "relabel", "--quiet", *words)
    assert outcome.code == 0, outcome.err
    found = read_set(out / "set.h5").votes
    assert bool(found.logits.isfinite().all())
    about = [(v.temperature, v.parts, v.seed, v.batch_size, v.families) for v in (before, found)]
    same = found.logits.shape == before.logits.shape and torch.equal(found.logits, before.logits)
    assert not same or about[0] != about[1]


def test_every_key_and_every_choice_is_used_in_a_test():
    used = {change for changes in CHANGES for change in changes}
    keys = {change.partition("=")[0] for change in used}
    assert keys == {f"relabel.{name}" for name in RelabelTable.model_fields}
    for name, field in RelabelTable.model_fields.items():
        choices = {choice for choice in get_args(field.annotation) if isinstance(choice, str)}
        missing = {choice for choice in choices if f"relabel.{name}={choice}" not in used}
        assert missing <= DEFAULTS | {"on"}


def test_every_choice_of_labels_is_listed_as_a_strategy():
    wanted = {f"relabel.aggregate={choice}" for choice in AGGREGATES}
    wanted |= {"relabel.zones=ferkd", "relabel.active=robust", "relabel.active=random"}
    wanted |= {f"relabel.unasked={choice}" for choice in ("reuse", "hard")}
    wanted |= {"evaluate.anneal=step", "evaluate.anneal=cosine"}
    students = ("gift", "hard_share", "hard_weight", "self_mix", "discriminator", "calibrated")
    training = ("soft_eta", "soft_average")
    wanted |= {f"evaluate.{name}" for name in (*students, *training)}
    wanted |= {"committee.patience", "committee.recipes", "committee.weights", "relabel.parts"}
    assert set(registry.LABELLING) == wanted
    assert {*students, *training} <= set(EvaluateTable.model_fields)
    listed = {*registry.STRATEGIES, *registry.MAKING, *registry.LABELLING}
    others = {"relabel.bssl", "relabel.mix=cutmix", "relabel.mix=mixup", "relabel.views=seed"}
    assert others <= listed


def test_batch_statistics_without_batch_norm_do_nothing_and_that_is_said(
    finished, tmp_path, recipe, command
):
    out = copy_run(finished, tmp_path / "run")
    member = ("--set", "committee.members=mlp:width=16", "--set", "relabel.bssl=on")
    stages = ("--stage", "committee", "--stage", "relabel")
    outcome = command("run", recipe, "--out", out, *stages, *member)
    assert outcome.code == 0, outcome.err
    assert "no member has BatchNorm, so relabel.bssl does nothing" in outcome.err
    assert not read_set(out / "set.h5").votes.batch_statistics


@pytest.mark.parametrize("attribute", ["data", "class_names"])
def test_committee_of_other_data_or_another_class_order_is_refused(
    attribute, run_copy, recipe, refused
):
    with edited(run_copy / "committee.h5") as file:
        names = json.loads(file.attrs["class_names"])
        file.attrs[attribute] = "0" * 64 if attribute == "data" else json.dumps(names[::-1])
    line = refused(1, "evaluate", run_copy, "--labels", "votes", "--quiet", "--json")
    assert "committee.h5 was trained on other data or classes; run the stage committee" in line
