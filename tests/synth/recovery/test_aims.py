"""What recovery aims at, against definitions written out: anchors, directions, groups."""

import math

import pytest
import torch
from torch import nn

from synth.formation import decode_images
from synth.recovery import (
    AnchorAim,
    DirectionAim,
    RecoverProblem,
    RecoverSettings,
    SharedViews,
    Teacher,
    class_statistics,
    difficulty_groups,
    first_state,
    gradient_directions,
    precision_scores,
    recover_images,
)
from tests.synth.recovery.test_loop import KINDS, SIZE, WHOLE, make_network, slow_statistics

VIEW = SharedViews(0.5, True, 2).sample(SIZE, torch.Generator().manual_seed(3))


def middle_outputs(network, images):
    """The outputs of the middle convolution, by running the network up to an exception."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    found = []
    handle = layers[len(layers) // 2].register_forward_hook(lambda m, a, out: found.append(out))
    network(images)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_anchors_are_compared_cell_by_cell_under_one_view(kind, options, factor, generator):
    network = make_network(kind, options)
    images = torch.randn(3, 1, *SIZE, generator=generator)
    anchors = torch.randn(3 * factor**2, 1, *SIZE, generator=generator)
    logits, distance = AnchorAim(anchors, factor)(network, images, VIEW, "float32")
    torch.testing.assert_close(logits, network(VIEW.apply(images)), atol=1e-4, rtol=1e-4)
    gaps = []
    for cell, anchor in zip(decode_images(images, factor), anchors, strict=True):
        pair = [middle_outputs(network, VIEW.apply(one[None])) for one in (cell, anchor)]
        gaps.append(float((pair[0] - pair[1]).abs().mean()))
    assert float(distance) == pytest.approx(sum(gaps) / len(gaps), rel=1e-4)


def slow_gradients(network, images):
    """Y X^T / p - mean(X)^T of each convolution, column by column."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    passes = []
    handles = [
        layer.register_forward_hook(lambda m, a, out: passes.append((m, a[0], out)))
        for layer in layers
    ]
    network(images)
    for handle in handles:
        handle.remove()
    found = []
    for layer, inputs, outputs in passes:
        pad = layer.padding[0]
        padded = nn.functional.pad(inputs, (pad, pad, pad, pad)).double()
        side, stride, columns = layer.kernel_size[0], layer.stride[0], []
        for image in padded:
            for row in range(outputs.shape[2]):
                for column in range(outputs.shape[3]):
                    top, left = row * stride, column * stride
                    columns.append(image[:, top : top + side, left : left + side].flatten())
        met = torch.stack(columns, dim=1)
        given = outputs.double().permute(1, 0, 2, 3).flatten(1)
        found.append(given @ met.T / met.shape[1] - met.mean(dim=1))
    return found


def slow_direction(matrix):
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_directions_are_those_of_a_singular_value_decomposition(kind, options, generator):
    network = make_network(kind, options)
    real = torch.randn(12, 1, *SIZE, generator=generator)
    found = gradient_directions(network, real.split(5))
    for direction, matrix in zip(found, slow_gradients(network, real), strict=True):
        values = torch.linalg.svdvals(matrix)
        # A singular value next to none has no direction to speak of.
        if float(values[-1] / values.norm()) > 0.01:
            torch.testing.assert_close(
                direction.double(), slow_direction(matrix), atol=1e-2, rtol=0
            )
        assert float(torch.linalg.matrix_norm(direction, 2)) < 1.01


def test_distance_of_directions_equals_the_formula_written_out(generator):
    network = make_network(*KINDS[0])
    real, images = (torch.randn(n, 1, *SIZE, generator=generator) for n in (12, 5))
    targets = gradient_directions(network, [real])
    logits, distance = DirectionAim(targets)(network, images, VIEW, "float32")
    seen = VIEW.apply(images)
    torch.testing.assert_close(logits, network(seen))
    wanted = [
        (slow_direction(own) - slow_direction(target)).square().sum()
        for own, target in zip(
            slow_gradients(network, seen), slow_gradients(network, real), strict=True
        )
    ]
    assert float(distance) == pytest.approx(float(sum(wanted)), rel=0.02)
    _, none = DirectionAim(gradient_directions(network, [seen]))(network, images, VIEW, "float32")
    assert float(none) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("aim", ["anchors", "directions"])
def test_recovery_comes_nearer_to_its_aim(aim, generator):
    network = make_network(*KINDS[0])
    real, images = (torch.randn(n, 1, *SIZE, generator=generator) for n in (6, 6))
    found = (
        AnchorAim(real) if aim == "anchors" else DirectionAim(gradient_directions(network, [real]))
    )
    problem = RecoverProblem(
        [Teacher(network, 1.0, found)],
        torch.arange(6),
        lambda step: WHOLE.sample(SIZE, torch.Generator()),
        lambda images, _: images.clamp(-3, 3),
    )
    steps = recover_images(first_state(images), 30, problem, RecoverSettings(0.1, 10.0))
    losses = [step.statistics for _, step in steps]
    assert losses[-1] < 0.7 * losses[0]


def test_precision_scores_are_distances_of_single_images(generator):
    network = make_network(*KINDS[0])
    images = torch.randn(4, 1, *SIZE, generator=generator)
    found = precision_scores(network, images, batch_size=3)
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for image, score in zip(images, found.tolist(), strict=True):
        inputs = []
        handles = [
            layer.register_forward_pre_hook(lambda m, a, into=inputs: into.append(a[0]))
            for layer in layers
        ]
        network(image[None])
        for handle in handles:
            handle.remove()
        total = 0.0
        for layer, own in zip(layers, inputs, strict=True):
            rows = own[0].flatten(1).tolist()
            means = [sum(row) / len(row) for row in rows]
            squares = [
                sum((value - mean) ** 2 for value in row) / len(row)
                for row, mean in zip(rows, means, strict=True)
            ]
            away = math.dist(means, layer.running_mean.tolist())
            logs = [
                math.log((square + 1e-6) / (float(known) + 1e-6))
                for square, known in zip(squares, layer.running_var, strict=True)
            ]
            total += (away + math.hypot(*logs)) / math.sqrt(len(rows)) / len(layers)
        assert score == pytest.approx(total, rel=1e-4)


def test_groups_are_equal_parts_of_the_mean_rank_within_a_class():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    scores = [torch.randn(24, generator=generator) for _ in range(3)]
    found = difficulty_groups(scores, labels, 2, 3)
    for label in range(2):
        members = [place for place in range(24) if int(labels[place]) == label]
        ranks = {
            place: sum(
                sum(float(own[other]) < float(own[place]) for other in members) for own in scores
            )
            for place in members
        }
        order = sorted(members, key=ranks.get)
        assert [int(found[place]) for place in order] == [0] * 4 + [1] * 4 + [2] * 4


def test_more_groups_than_images_are_refused():
    with pytest.raises(
        ValueError, match="class 1 has 2 images, but 3 groups are needed; lower ipc"
    ):
        difficulty_groups([torch.zeros(5)], torch.tensor([0, 0, 0, 1, 1]), 2, 3)


def test_statistics_of_a_group_are_those_of_its_images_of_all_classes(generator):
    network = make_network(*KINDS[0])
    images = torch.randn(12, 1, *SIZE, generator=generator)
    groups = difficulty_groups([precision_scores(network, images)], torch.arange(12) % 2, 2, 3)
    targets = class_statistics(network, images, groups, 3)
    for group in range(3):
        own = images[groups == group]
        layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for layer, target in zip(layers, targets, strict=True):
            layer.running_mean.copy_(target.mean[group])
            layer.running_var.copy_(target.variance[group])
            break
        # The first layer alone: what goes into later ones has moved with it.
        _, distance = slow_statistics(nn.Sequential(layers[0]), _first_inputs(network, own), 1.0)
        assert float(distance) == pytest.approx(0, abs=1e-4)


def _first_inputs(network, images):
    found = []
    layer = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    handle = layer.register_forward_pre_hook(lambda m, a: found.append(a[0]))
    network(images)
    handle.remove()
    return found[0]
