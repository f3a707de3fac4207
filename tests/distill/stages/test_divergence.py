"""NaN and explosions in any stage: noticed at once, exit 3, and the last good state survives."""

import json

import pytest
import torch

import projectors.fitting.loop
import synth.matching.mean_gradient
import synth.recovery.loop
import synth.training.loop
from distill.store.experts import read_info
from projectors.model.projector import Projector
from synth.matching.outer_loop import MatchSettings
from tests.distill.cases import TINY, artefacts, outputs_of, rewrite_manifest, write_recipe
from tests.distill.making_cases import RECOVER

BAD = pytest.mark.parametrize("value", [float("nan"), 1e30], ids=["nan", "explosion"])


class Poison:
    """Calls a function as ever, but the `at`-th call finds a value in its network's last bias."""

    def __init__(self, real, at, value):
        self.real, self.at, self.value, self.calls = real, at, value, 0

    def __call__(self, network, *rest):
        self.calls += 1
        if self.calls == self.at:
            with torch.no_grad():
                list(network.parameters())[-1][0] = self.value
        return self.real(network, *rest)


def poison_training(monkeypatch, at, value):
    poison = Poison(synth.training.loop._backward, at, value)
    monkeypatch.setattr(synth.training.loop, "_backward", poison)
    return poison


def unfinished(run_copy, stage, output):
    """A finished run as it was before one of its stages."""
    manifest = json.loads((run_copy / "manifest.json").read_text())
    del manifest["stages"][stage]
    rewrite_manifest(run_copy, manifest)
    if output is not None:
        (run_copy / output).unlink()


# Batches: 5 an epoch; an expert has 3 epochs and a member 10. The poison is in the second one.
@pytest.mark.parametrize(
    ("stage", "output", "at", "batches"),
    [("experts", "experts.h5", 22, 25), ("committee", "committee.h5", 63, 65)],
)
@BAD
def test_training_that_diverges_keeps_what_was_finished(
    stage, output, at, batches, value, run_copy, finished, recipe, command, refused, monkeypatch
):
    unfinished(run_copy, stage, output)
    words = ("run", recipe, "--out", run_copy, "--quiet")
    with monkeypatch.context() as patch:
        poison = poison_training(patch, at, value)
        assert f"{stage} diverged: " in refused(3, *words)
    assert poison.calls == batches, "the epoch that it happened in is the last"
    assert not (run_copy / output).exists()
    assert len(list((run_copy / "checkpoints").glob(f"{stage}-*/*"))) == 1
    assert command(*words).code == 0
    assert outputs_of(run_copy) == outputs_of(finished)
    assert artefacts(run_copy) == artefacts(finished)


def test_update_that_breaks_a_weight_is_noticed_in_its_epoch():
    """The loss of the last batch is well, and what the update makes of the weights is not."""
    network = torch.nn.Linear(2, 2)
    network.weight.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    batch = synth.training.loop.Batch(torch.ones(3, 2), torch.zeros(3, 2))
    settings = synth.training.loop.TrainSettings(epochs=1, lr=0.1)
    with pytest.raises(FloatingPointError, match="a weight is not finite in epoch 1"):
        list(synth.training.loop.train(network, lambda epoch: [batch], settings))


@BAD
def test_matching_refuses_the_first_bad_step_and_stops(
    value, run_copy, recipe, command, refused, monkeypatch
):
    real, calls = synth.matching.mean_gradient._gradients, []

    def poisoned(now, choices, problem, method):
        calls.append(now)
        found, labels = real(now, choices, problem, method)
        if len(calls) > 3:
            for part in found:
                images, _, _, distance, *_ = part
                images.fill_(value)
                distance.mul_(value)
        return found, labels

    words = ("match", recipe, "--out", run_copy, "--quiet", "--set")
    with monkeypatch.context() as patch:
        patch.setattr(synth.matching.mean_gradient, "_gradients", poisoned)
        line = refused(3, *words, "match.iterations=20")
    patience = MatchSettings().patience
    assert f"match diverged at outer step {2 + patience}" in line
    assert len(calls) == 3 + patience
    rows = map(json.loads, (run_copy / "metrics.jsonl").read_text().splitlines())
    applied = [row["applied"] for row in rows if row["stage"] == "match"]
    assert applied == [True] * 3 + [False] * (patience - 1)
    # The set of the run before stands, and the checkpoint is one to go on from.
    assert command("verify", run_copy / "set.h5").code == 0
    assert list((run_copy / "checkpoints").glob("match-*/state.safetensors"))
    assert command(*words, "match.iterations=20").code == 0


@BAD
def test_recovery_that_diverges_keeps_its_last_checkpoint(
    value, command, refused, monkeypatch, tmp_path
):
    real, calls = synth.recovery.loop.teachers_gradient, []

    def poisoned(state, problem, settings):
        calls.append(state.step)
        gradient, parts = real(state, problem, settings)
        if len(calls) == 6:
            gradient.fill_(value)
            parts[0] = value
        return gradient, parts

    path = write_recipe(tmp_path, RECOVER)
    words = ("recover", path, "--out", tmp_path / "run", "--quiet")
    assert command("run", *words[1:], "--stage", "committee").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(synth.recovery.loop, "teachers_gradient", poisoned)
        assert "recover diverged at step 5 of batch 0" in refused(3, *words)
    assert len(calls) == 6
    assert not (tmp_path / "run" / "set.h5").exists()
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            synth.recovery.loop, "teachers_gradient", lambda *rest: calls.append(1) or real(*rest)
        )
        assert command(*words).code == 0
    # The sixth step of the first batch, and the six of the second.
    assert len(calls) == 7


@BAD
def test_projector_that_diverges_leaves_the_earlier_one(
    value, run_copy, finished, recipe, refused, monkeypatch
):
    real, calls = projectors.fitting.loop.projector_loss, []

    def poisoned(logits, wanted, hard, settings):
        calls.append(1)
        loss = real(logits, wanted, hard, settings)
        return loss * value if len(calls) == 3 else loss

    monkeypatch.setattr(projectors.fitting.loop, "projector_loss", poisoned)
    words = ("project", recipe, "--out", run_copy, "--quiet", "--set", "projector.steps=6")
    assert "project diverged at step 2" in refused(3, *words)
    assert len(calls) == 3
    assert isinstance(projectors.load(run_copy / "projector"), Projector)
    now, before = artefacts(run_copy), artefacts(finished)
    assert {name: now[name] for name in now if "projector/" in name} == {
        name: before[name] for name in before if "projector/" in name
    }


@BAD
def test_student_that_diverges_keeps_those_before(
    value, run_copy, finished, recipe, command, refused, monkeypatch
):
    unfinished(run_copy, "evaluate", "evaluation.json")
    words = ("run", recipe, "--out", run_copy, "--quiet")
    with monkeypatch.context() as patch:
        # A student of the set has 3 epochs of one batch: the poison is in the third one.
        poison = poison_training(patch, 8, value)
        assert "evaluate diverged: " in refused(3, *words)
    assert poison.calls == 8
    (log,) = (run_copy / "checkpoints").glob("evaluate-*/jobs.jsonl")
    assert len(log.read_text().splitlines()) == 2
    assert read_info(run_copy / "experts.h5").count == 2
    assert command(*words).code == 0
    assert artefacts(run_copy) == artefacts(finished)


def test_recipes_of_these_tests_are_the_tiny_one():
    """The numbers of batches above are those of 100 images in batches of 20."""
    for line in ("subset = 100", "batch_size = 20", "count = 2", "epochs = 10"):
        assert line in TINY
