"""Inner loops never read a value: the CPU would wait for the device at every step.

The meta device refuses to be read, and to be mixed with tensors that were left on the CPU, so it
stands in for a GPU. On a GPU, torch itself refuses to wait.
"""

from contextlib import contextmanager

import pytest
import torch

from synth.augment import Augmentation, dsa, parse_families
from synth.committee.relabel import StoredMixes, StoredVotes, relabel_epoch
from synth.images import HardLogits
from synth.losses import hard_logits
from synth.matching.directional import Eager, double_backward
from synth.matching.gradients import replay
from synth.matching.inner_loop import draw_batches, make_inner_loop
from synth.matching.recorded_steps import PassChooser
from synth.networks import ConvNet
from synth.parameters import parameter_vector
from synth.recovery import (
    NormAim,
    RecoverProblem,
    RecoverSettings,
    SharedViews,
    Teacher,
    class_statistics,
    first_state,
    teachers_gradient,
)
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.sharpness import Sharpness

SIZE = (16, 16)
DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.cuda)]


class LoopIsOver(Exception):
    """All batches were used."""


@contextmanager
def never_waiting(device):
    """Torch refuses to wait for the device inside the block."""
    if device == "meta":
        yield
        return
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    # Kernels that are chosen or loaded at their first use may wait; nothing else may.
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def images_on(device, count=12):
    drawn = torch.randn(count, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    return drawn.to(device)


def network_on(device, **options):
    torch.manual_seed(0)
    return ConvNet(1, SIZE, 10, width=8, depth=2, **options).to(device)


def trained(device, batches, settings, warm):
    """Go through `batches`, and stop before the epoch's loss is read."""
    network = network_on(device, norm="batch")

    def once(epoch):
        yield from batches()
        raise LoopIsOver

    if warm:
        with pytest.raises(LoopIsOver):
            next(train(network, once, settings))
    with never_waiting(device), pytest.raises(LoopIsOver):
        next(train(network, once, settings))


SETTINGS = {
    "sgd": {},
    "adamw": {"optimizer": "adamw"},
    "sharpness": {"sharpness": Sharpness(0.1, 0.3)},
    "average": {"average": 0.9},
    "cosine": {"loss": "cosine"},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("device", DEVICES)
def test_training_reads_nothing_between_batches(device, name, generator):
    images = images_on(device)
    labels = HardLogits(torch.arange(12).remainder(10).to(device), 10)
    views = Augmentation(parse_families("colour_crop_cutout_flip_scale_rotate"))

    def batches():
        return shuffled_batches(images, labels, 4, views, generator)

    trained(device, batches, TrainSettings(1, 0.01, **SETTINGS[name]), warm=device == "cuda")


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup"])
@pytest.mark.parametrize("device", DEVICES)
def test_students_of_stored_votes_read_nothing(device, mix, generator):
    views = Augmentation(("crop", "scale"))
    on_cpu = images_on("cpu")
    epoch = relabel_epoch(on_cpu, lambda seen: torch.randn(len(seen), 10), 4, views, generator, mix)
    votes = StoredVotes(
        epoch.ids[None],
        epoch.views[None],
        epoch.logits[None],
        views.families,
        4,
        2.0,
        batch_statistics=False,
        mixes=StoredMixes.stack([epoch.mixes]),
    )
    images = images_on(device)
    settings = TrainSettings(1, 0.01)
    trained(device, lambda: votes.batches(images, 0), settings, warm=device == "cuda")


@pytest.mark.parametrize("snapshots", ["all", "sqrt"])
@pytest.mark.parametrize(
    ("device", "recorded"),
    [("meta", False), *(pytest.param("cuda", r, marks=pytest.mark.cuda) for r in (False, True))],
)
def test_the_inner_loop_of_matching_reads_nothing(device, recorded, snapshots, generator):
    network = network_on(device, norm="instance")
    labels = hard_logits(torch.arange(12).remainder(10), 10).to(device)
    batches = draw_batches(12, 5, 4, generator)
    views = [dsa().sample(5, SIZE, generator) for _ in batches]
    loop = make_inner_loop(network, images_on(device), labels, batches, views)
    start = parameter_vector(network)
    lr = torch.full((), 0.01, device=device)
    passes = PassChooser().passes(loop) if recorded else Eager(double_backward)

    def gradient():
        return replay(loop, start, start + 1, lr, snapshots=snapshots, damping=1.0, passes=passes)

    if device == "cuda":
        # A kind of step is recorded when it comes for the third time.
        for _ in range(3):
            gradient()
    with never_waiting(device):
        found = gradient()
    assert found.images.device.type == found.end.device.type == device


@pytest.mark.parametrize("device", DEVICES)
def test_the_teachers_of_recovery_read_nothing(device, generator):
    teachers = []
    for weight in (0.3, 0.7):
        network = network_on("cpu", norm="batch")
        targets = class_statistics(network, images_on("cpu"), torch.zeros(12).long(), 1)
        network.to(device)
        own = [
            type(layer)(layer.mean[0].to(device), layer.variance[0].to(device)) for layer in targets
        ]
        teachers.append(Teacher(network.eval(), weight, NormAim(own)))
    view = SharedViews().sample(SIZE, generator)
    labels = torch.arange(12).remainder(10).to(device)
    problem = RecoverProblem(teachers, labels, lambda step: view, lambda images, before: images)
    state, settings = first_state(images_on(device)), RecoverSettings()
    if device == "cuda":
        teachers_gradient(state, problem, settings)
    with never_waiting(device):
        gradient, parts = teachers_gradient(state, problem, settings)
    assert gradient.shape == state.images.shape
    assert parts.shape == (2,)
    assert gradient.device.type == parts.device.type == device


def test_a_value_that_is_read_would_be_noticed(generator):
    labels = HardLogits(torch.zeros(12, dtype=torch.long, device="meta"), 10)

    def batches():
        for batch in shuffled_batches(images_on("meta"), labels, 4, None, generator):
            float(batch.images.sum())
            yield batch

    with pytest.raises(RuntimeError, match="meta"):
        trained("meta", batches, TrainSettings(1, 0.01), warm=False)
