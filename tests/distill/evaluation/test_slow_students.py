"""Students on digits as protocols and optimisers train them, against trainings written out."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import StudentJob, Way
from distill.evaluation.students import trained_student
from distill.recipes.build import choose_device
from distill.recipes.loading import load_recipe
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.context import Context
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.progress import Progress
from distill.sets.set_file import read_set
from distill.teachers.loading import load_committee
from synth.training.loop import train
from tests.distill.cases import STUDENT

EPOCHS = 4


@pytest.fixture
def trained(recipe, finished, monkeypatch):
    """Train a student of a table; gives it before and after, with the batches of each epoch."""
    context = Context(
        Run(finished, read_only=True),
        load_recipe(str(recipe)),
        choose_device("cpu"),
        Progress(quiet=True),
        Stop(),
    )
    judged = EvaluatedSet(read_set(finished / "set.h5"), load_committee(context))

    def call(labels, way=None, **keys):
        seen = []

        def spied(network, batches, settings, discriminator=None):
            epochs = []

            def recorded(epoch):
                epochs.append(list(batches(epoch)))
                return epochs[-1]

            seen.append((copy.deepcopy(network), epochs))
            return train(network, recorded, settings, discriminator)

        monkeypatch.setattr("distill.evaluation.students.train", spied)
        table = EvaluateTable(students=[STUDENT], labels=[labels], **keys)
        job = StudentJob("students", STUDENT, labels, 0, epochs=EPOCHS, way=way or Way())
        after = trained_student(context, table, judged, job)
        ((before, epochs),) = seen
        assert len(epochs) == EPOCHS
        return before, after, epochs

    return call


def sgd(weight, gradient, memory, lr, decay):
    """Momentum 0.9, and L2 decay."""
    velocity = 0.9 * memory.get("velocity", 0.0) + gradient + decay * weight
    memory["velocity"] = velocity
    return weight - lr * velocity


def adam(weight, gradient, memory, lr, decay):
    """Kingma and Ba 2015."""
    gradient = gradient + decay * weight
    memory["count"] = count = memory.get("count", 0) + 1
    memory["mean"] = 0.9 * memory.get("mean", 0.0) + 0.1 * gradient
    memory["square"] = 0.999 * memory.get("square", 0.0) + 0.001 * gradient**2
    mean = memory["mean"] / (1 - 0.9**count)
    return weight - lr * mean / ((memory["square"] / (1 - 0.999**count)).sqrt() + 1e-8)


def adamw(weight, gradient, memory, lr, decay):
    """The decay beside the step: Loshchilov and Hutter 2019."""
    return adam(weight, gradient, memory, lr, 0.0) - lr * decay * weight


def muon(weight, gradient, memory, lr, decay):
    """Nesterov momentum, five Newton-Schulz steps, AdamW's size: Jordan et al. and Liu et al."""
    flat = gradient.flatten(1)
    memory["mean"] = mean = 0.95 * memory.get("mean", 0.0) + 0.05 * flat
    found = (0.05 * flat + 0.95 * mean).bfloat16()
    tall = found.shape[0] > found.shape[1]
    found = found.T if tall else found
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = found @ found.T
        found = 3.4445 * found + (-4.775 * gram + 2.0315 * gram @ gram) @ found
    found = (found.T if tall else found).float().view_as(weight)
    size = 0.2 * math.sqrt(max(flat.shape))
    return weight - lr * decay * weight - lr * size * found


def written_out(network, epochs, rule, rates, decay, temperature):
    """Weights after the batches of each epoch; biases and norms do not decay."""
    names = [name for name, p in network.named_parameters() if p.ndim > 1]
    memories = {name: {} for name, _ in network.named_parameters()}
    network.train()
    for lr, batches in zip(rates, epochs, strict=True):
        for batch in batches:
            own = torch.softmax(batch.labels / temperature, 1)
            logs = torch.log_softmax(network(batch.images) / temperature, 1)
            loss = -(own * logs).sum() / len(own)
            parameters = dict(network.named_parameters())
            slopes = torch.autograd.grad(loss, list(parameters.values()))
            for (name, weight), slope in zip(parameters.items(), slopes, strict=True):
                step = rule
                if rule is muon and name not in names[:-1]:
                    step = adamw
                with torch.no_grad():
                    lowered = decay if name in names else 0.0
                    weight.copy_(step(weight, slope, memories[name], lr, lowered))
    return network


def gap(network, other):
    """How far apart two networks are, besides biases that the norm behind them takes out again.

    Their gradients are rounding errors, by which Adam moves them as far as by any other.
    """
    pairs = zip(network.named_parameters(), other.parameters(), strict=True)
    lost = ("features.0.bias", "features.4.bias")
    own = [(a - b).detach().flatten() for (name, a), b in pairs if name not in lost]
    return float(torch.cat(own).norm())


def cosine(peak, length=EPOCHS):
    return [peak * 0.5 * (1 + math.cos(math.pi * epoch / length)) for epoch in range(EPOCHS)]


@pytest.mark.parametrize(
    ("protocol", "labels", "rule", "rates", "decay", "temperature"),
    [
        ("dc", "hard", sgd, [0.01, 0.01, 0.001, 0.001], 5e-4, 1),
        ("dsa", "learned", sgd, [0.01, 0.01, 0.001, 0.001], 5e-4, 1),
        ("rded", "votes", adamw, cosine(0.001, 2 * EPOCHS), 0.01, 20),
        ("cda", "votes", adamw, cosine(0.001), 0.01, 20),
        ("rd3", "votes", adam, cosine(0.001), 0.0, 20),
    ],
)
def test_a_protocol_trains_as_its_paper_says(
    protocol, labels, rule, rates, decay, temperature, trained
):
    before, after, epochs = trained(labels, protocol=protocol)
    slow = written_out(copy.deepcopy(before), epochs, rule, rates, decay, temperature)
    assert gap(slow, before) > 0.01
    assert gap(after, slow) < 1e-3 * gap(slow, before)
    assert all(len(batch.images) == 10 for batches in epochs for batch in batches)


def test_muon_trains_a_student_as_its_steps_written_out(trained):
    before, after, epochs = trained("votes", soft_optimizer="muon", soft_lr=0.003)
    slow, other = (
        written_out(copy.deepcopy(before), epochs, rule, cosine(0.003), 0.01, 4)
        for rule in (muon, adamw)
    )
    # Newton-Schulz steps are taken in bfloat16, whose products may round differently.
    assert gap(after, slow) < 0.03 * gap(slow, before)
    assert gap(other, slow) > 0.3 * gap(slow, before)


def test_a_way_that_validation_chose_is_trained_in(trained):
    """Optimiser, rate, temperature and weight of the class, as [evaluate] searches them."""
    way = Way("adamw", 3.0, 2.0, 0.4)
    before, after, epochs = trained("votes", way=way, soft_lr=0.002)
    _, _, plain = trained("votes", way=replace(way, hard_weight=None), soft_lr=0.002)
    for batch, without in zip(epochs[0], plain[0], strict=True):
        classes = torch.eye(10)[batch.ids.long()]
        mixed = 0.6 * torch.softmax(without.labels.float() / 2, 1) + 0.4 * classes
        torch.testing.assert_close(torch.softmax(batch.labels / 2, 1), mixed, atol=1e-5, rtol=0)
    slow = written_out(copy.deepcopy(before), epochs, adamw, cosine(0.006), 0.01, 2)
    assert gap(after, slow) < 1e-3 * gap(slow, before)
