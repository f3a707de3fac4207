"""Recovery against its formulas written out slowly, its memory, its repeatability, its errors."""

import math
import weakref
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from synth.errors import DivergedError
from synth.recovery import (
    NormAim,
    RecoverProblem,
    RecoverSettings,
    SharedViews,
    Teacher,
    ValidImages,
    class_statistics,
    first_state,
    recover_images,
    running_statistics,
    statistics_distance,
    watch_batch_norms,
)
from synth.updates import Adam
from tests.synth.cases import build

KINDS = (("ConvNet", {"width": 4, "depth": 2}), ("ResNet18", {"width": 4}))
SIZE = (8, 8)
MOVING, WHOLE = SharedViews(0.5, True, 2), SharedViews(1.0, False, 0)
DEFAULTS = RecoverSettings()


def make_network(kind: str, options: dict, seed: int = 0) -> nn.Module:
    """A BatchNorm network with running statistics of its own and a head that tells images apart."""
    network = build(kind, size=SIZE, norm="batch", **options)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    network.head.weight.data *= 10
    return network.eval().requires_grad_(False)


def make_problem(members: int = 2, weights=(0.7, 0.3), views=MOVING):
    networks = [make_network(*KINDS[index % 2], seed=index) for index in range(members)]
    weights = list(weights) if members == 2 else [1 / members] * members
    teachers = [
        Teacher(network, weight, NormAim(running_statistics(network)))
        for network, weight in zip(networks, weights, strict=True)
    ]

    def view(step):
        return views.sample(SIZE, torch.Generator().manual_seed(step))

    return RecoverProblem(teachers, torch.arange(10), view, lambda images, _: images.clamp(-2, 2))


@pytest.fixture
def images(generator):
    return torch.randn(10, 1, *SIZE, generator=generator)


def run(problem, images, steps=5, settings=DEFAULTS):
    return list(recover_images(first_state(images), steps, problem, settings))


def slow_statistics(network, images, first):
    """Every BatchNorm layer's input, taken by calling the layers by hand through hooks."""
    inputs = {}
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [
        layer.register_forward_hook(lambda m, a, out: inputs.__setitem__(m, a[0]))
        for layer in layers
    ]
    logits = network(images)
    for hook in hooks:
        hook.remove()
    total = 0
    for index, layer in enumerate(layers):
        features = inputs[layer].double()
        n, _, h, w = features.shape
        mean = features.sum(dim=(0, 2, 3)) / (n * h * w)
        squares = (features - mean.view(1, -1, 1, 1)).square().sum(dim=(0, 2, 3)) / (n * h * w)
        scale = first if index == 0 else 1
        total += scale * (squares - layer.running_var).square().sum().sqrt()
        total += scale * (mean - layer.running_mean).square().sum().sqrt()
    return logits, total


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_statistics_distance_equals_the_formula_written_out(kind, options, images):
    network = make_network(kind, options)
    with watch_batch_norms(network) as seen:
        network(images)
    found = statistics_distance(seen, running_statistics(network), 10.0)
    _, wanted = slow_statistics(network, images, 10.0)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_watching_ends_with_the_block_even_after_an_error(images):
    network = make_network(*KINDS[0])
    with watch_batch_norms(network) as seen:
        network(images)
    assert len(seen) == 2
    with pytest.raises(RuntimeError), watch_batch_norms(network):
        network(images[:, :, :0])
    network(images)
    assert len(seen) == 2
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_class_statistics_are_those_of_each_class_apart(generator):
    images = torch.randn(30, 1, *SIZE, generator=generator)
    labels = torch.arange(30) % 3
    network = make_network(*KINDS[1])
    found = class_statistics(network, images, labels, 3, batch_size=4)
    for label in range(3):
        with torch.no_grad(), watch_batch_norms(network) as seen:
            network(images[labels == label])
        assert len(seen) == len(found)
        for entry in seen:
            variance, mean = torch.var_mean(entry.features, dim=(0, 2, 3), correction=0)
            layer = found[entry.layer].of_class(label)
            torch.testing.assert_close(layer.mean, mean, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(layer.variance, variance, atol=1e-5, rtol=1e-4)


def slow_recovery(problem, images, steps, settings):
    """One loss over all teachers, torch's own Adam and cosine."""
    learned = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([learned], lr=settings.lr, betas=(0.5, 0.9), eps=1e-8)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        view = problem.view(step)
        loss = 0
        for teacher in problem.teachers:
            seen = view.apply(learned)
            logits, distance = slow_statistics(teacher.network, seen, 10.0)
            entropy = cross_entropy(logits, problem.labels)
            loss = loss + teacher.weight * (entropy + settings.bn_weight * distance)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            learned.clamp_(-2, 2)
    return learned.detach()


@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_recovery_equals_one_loss_over_all_teachers(weight, images):
    settings = RecoverSettings(lr=0.1, bn_weight=weight)
    problem = make_problem()
    (state, _) = run(problem, images, 4, settings)[-1]
    wanted = slow_recovery(problem, images, 4, settings)
    torch.testing.assert_close(state.images, wanted, atol=2e-4, rtol=1e-3)


def test_recovery_lowers_its_loss_and_keeps_images_valid(images):
    settings = RecoverSettings(lr=0.2, bn_weight=0.05)
    found = run(make_problem(views=WHOLE), 3 * images, 40, settings)
    first, last = found[0][1], found[-1][1]
    assert last.cross_entropy < 0.9 * first.cross_entropy
    assert last.statistics < 0.8 * first.statistics
    assert float(found[-1][0].images.abs().max()) <= 2


def test_kept_background_stays_black_and_the_rest_is_recovered_in_its_range(images):
    valid = ValidImages(torch.full((1, 1, 1), -2.0), torch.full((1, 1, 1), 2.0), "kept")
    images[:, :, :4] = -2
    end = run(replace(make_problem(views=WHOLE), constrain=valid), images, 5)[-1][0].images
    free = replace(valid, background="free")
    freed = run(replace(make_problem(views=WHOLE), constrain=free), images, 5)[-1][0].images
    assert torch.equal(end[:, :, :4], images[:, :, :4])
    assert bool((end[:, :, 4:] != images[:, :, 4:]).float().mean() > 0.9)
    assert float(end.abs().max()) <= 2
    assert bool((freed[:, :, :4] > -2).float().mean() > 0.2)


def test_recovery_repeats_to_the_bit_and_goes_on_from_any_state(images):
    whole = run(make_problem(), images, 6)
    again = run(make_problem(), images, 6)
    middle = whole[2][0]
    rest = list(recover_images(middle, 6, make_problem(), RecoverSettings()))
    assert len(rest) == 3
    for state in (again[-1][0], rest[-1][0]):
        assert torch.equal(state.images, whole[-1][0].images)
        assert torch.equal(state.moments.square, whole[-1][0].moments.square)
    assert [step.index for _, step in whole] == list(range(6))


def test_weight_of_a_teacher_counts_for_both_parts(images):
    problem = make_problem()
    alone = [replace(teacher, weight=1.0) for teacher in problem.teachers]
    parts = [run(replace(problem, teachers=[t]), images, 1)[0][1] for t in alone]
    both = run(problem, images, 1)[0][1]
    for name in ("cross_entropy", "statistics"):
        wanted = 0.7 * getattr(parts[0], name) + 0.3 * getattr(parts[1], name)
        assert getattr(both, name) == pytest.approx(wanted, rel=1e-5)


def test_recovery_puts_teachers_into_evaluation_mode_and_leaves_their_statistics(images):
    problem = make_problem()
    before = [t.network.state_dict() for t in problem.teachers]
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in before]
    for teacher in problem.teachers:
        teacher.network.train()
    wanted = run(make_problem(), images, 2)[-1][0].images
    assert torch.equal(run(problem, images, 2)[-1][0].images, wanted)
    for teacher, state in zip(problem.teachers, before, strict=True):
        for name, tensor in teacher.network.state_dict().items():
            assert torch.equal(tensor, state[name])


class Held:
    def __init__(self, tensor):
        self.tensor = tensor


def peak_held_bytes(members: int, images) -> int:
    """The most that graphs keep at once in one step with so many equal members."""
    now, peak = 0, 0

    def add(count):
        nonlocal now, peak
        now += count
        peak = max(peak, now)

    def pack(tensor):
        held = Held(tensor)
        add(tensor.nbytes)
        weakref.finalize(held, add, -tensor.nbytes)
        return held

    network = make_network(*KINDS[0])
    teacher = Teacher(network, 1 / members, NormAim(running_statistics(network)))
    problem = replace(make_problem(), teachers=[teacher] * members)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        run(problem, images, 1)
    assert now == 0
    return peak


def test_memory_does_not_grow_with_the_committee(images):
    one = peak_held_bytes(1, images)
    assert one > 0
    assert peak_held_bytes(6, images) == one


def test_diverging_recovery_says_where(images):
    problem = replace(make_problem(), constrain=lambda images, before: images)
    with pytest.raises(DivergedError, match=r"lower recover\.lr") as caught:
        run(problem, images, 5, RecoverSettings(lr=math.inf))
    assert caught.value.step == 0


def test_network_without_statistics_is_refused():
    plain = build("ConvNet", width=4, norm="instance")
    with pytest.raises(ValueError, match="has no BatchNorm layer"):
        running_statistics(plain)
    with pytest.raises(ValueError, match="has no BatchNorm layer"):
        class_statistics(plain, torch.zeros(1, 1, 16, 16), torch.zeros(1).long(), 1)
    bare = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False))
    with pytest.raises(ValueError, match="keeps no running statistics"):
        running_statistics(bare)


def test_class_without_images_is_refused(images):
    with pytest.raises(ValueError, match="class 1 has no image"):
        class_statistics(make_network(*KINDS[0]), images, torch.zeros(10).long(), 2)


def test_network_without_batch_norm_is_recovered_by_cross_entropy_alone(images):
    plain = build("ConvNet", size=SIZE, width=4, norm="instance")
    plain.head.weight.data *= 10
    problem = replace(make_problem(views=WHOLE), teachers=[Teacher(plain, 1.0)])
    found = run(problem, images, 20, RecoverSettings(lr=0.2, bn_weight=0.0))
    assert found[-1][1].cross_entropy < found[0][1].cross_entropy
    assert all(step.statistics == 0 for _, step in found)


def test_step_falls_to_zero_along_a_cosine(images):
    problem = replace(make_problem(views=WHOLE), constrain=lambda images, before: images)
    sizes = []

    def rule(value, gradient, moments, size, count):
        sizes.append(size)
        return Adam(0.5, 0.9, 1e-8)(value, gradient, moments, size, count)

    run(problem, images, 4, RecoverSettings(lr=1.0, rule=rule))
    assert sizes[0] == 1
    assert all(later < earlier for earlier, later in pairwise(sizes))
    assert sizes == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)])
