"""Blends between blocks of steps, and patches chosen for them, against slow references."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv2d, cross_entropy, pad

from synth.recovery import (
    Blending,
    RecoverSettings,
    edge_complexity,
    first_state,
    fit_complexity,
    nearest_patches,
    recover_images,
)
from tests.synth.recovery.test_loop import (
    SIZE,
    WHOLE,
    make_problem,
    slow_recovery,
    slow_statistics,
)

SETTINGS = RecoverSettings(lr=0.1, bn_weight=0.05)


@pytest.mark.parametrize(
    ("steps", "times", "due"),
    [(8, 3, [2, 4, 6]), (10, 3, [2, 4, 6]), (9, 1, [4]), (3, 5, [1, 2]), (1, 2, [])],
)
def test_blends_lie_between_equal_blocks(steps, times, due):
    blending = Blending(times, 0.5, lambda images: images)
    assert [taken for taken in range(steps + 1) if blending.due(taken, steps)] == due
    for taken in range(steps):
        before = [blend for blend in due if blend <= taken]
        assert blending.since(taken, steps) == taken - (before[-1] if before else 0)


def test_recovery_with_a_blend_equals_two_recoveries(generator):
    images, patches = (torch.randn(10, 1, *SIZE, generator=generator) for _ in range(2))
    problem = make_problem(views=WHOLE)
    blended = replace(problem, blending=Blending(1, 0.25, lambda own: patches))
    state = list(recover_images(first_state(images), 6, blended, SETTINGS))[-1][0]

    def slow(start, first):
        """Three steps of torch's own Adam, the cosine of all six going on."""
        learned = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([learned], lr=0.1, betas=(0.5, 0.9), eps=1e-8)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
        for _ in range(first):
            optimizer.step()
            schedule.step()
        return slow_steps(problem, learned, optimizer, schedule, first)

    half = slow(images, 0)
    wanted = slow(0.25 * half + 0.75 * patches, 3)
    torch.testing.assert_close(state.images, wanted, atol=3e-4, rtol=1e-3)
    plain = slow_recovery(problem, images, 6, SETTINGS)
    assert float((plain - wanted).abs().mean()) > 0.1


def slow_steps(problem, learned, optimizer, schedule, first):
    for step in range(first, first + 3):
        optimizer.zero_grad()
        loss = 0
        for teacher in problem.teachers:
            seen = problem.view(step).apply(learned)
            logits, distance = slow_statistics(teacher.network, seen, 10.0)
            loss = loss + teacher.weight * (cross_entropy(logits, problem.labels) + 0.05 * distance)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            learned.clamp_(-2, 2)
    return learned.detach()


def test_recovery_with_blends_goes_on_from_any_state(generator):
    images, patches = (torch.randn(10, 1, *SIZE, generator=generator) for _ in range(2))
    problem = replace(make_problem(), blending=Blending(2, 0.5, lambda own: patches))
    whole = list(recover_images(first_state(images), 7, problem, SETTINGS))
    for state, _ in whole[:-1]:
        rest = list(recover_images(state, 7, problem, SETTINGS))
        assert torch.equal(rest[-1][0].images, whole[-1][0].images)


def test_the_nearest_patch_is_near_and_has_few_edges():
    generator = torch.Generator().manual_seed(0)
    features, pool = (torch.randn(n, 4, generator=generator) for n in (3, 7))
    complexity = torch.rand(7, generator=generator)
    found = fit_complexity(features, pool, complexity, 0.1)
    average = float(complexity.mean())
    for row, own in zip(features, found, strict=True):
        for place, score in enumerate(own.tolist()):
            gap = row / row.norm() - pool[place] / pool[place].norm()
            wanted = 0.9 * float(gap.square().sum()) + 0.1 * float(complexity[place]) / average
            assert score == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert nearest_patches(features, pool, complexity, 0.1).tolist() == found.argmin(1).tolist()
    simplest = int(complexity.argmin())
    assert nearest_patches(features, pool, complexity, 1.0).tolist() == [simplest] * 3


def test_edge_complexity_equals_its_definition(generator):
    images = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64)
    places = torch.arange(-3, 4, dtype=torch.float64)
    bell = torch.exp(-places.square() / 2)
    kernel = torch.outer(bell, bell) / bell.sum() ** 2
    for image, found in zip(images, edge_complexity(images).tolist(), strict=True):
        wide = pad(image[None], (3, 3, 3, 3), mode="replicate")
        smooth = torch.cat([conv2d(wide[:, c : c + 1], kernel[None, None]) for c in range(3)], 1)[0]
        squares = [
            sum(
                float(smooth[c, y + 1, x] - smooth[c, y, x]) ** 2
                + float(smooth[c, y, x + 1] - smooth[c, y, x]) ** 2
                for c in range(3)
            )
            for y in range(5)
            for x in range(4)
        ]
        mean = sum(squares) / len(squares)
        wanted = sum((square - mean) ** 2 for square in squares) / len(squares)
        assert found == pytest.approx(wanted, rel=1e-6)


def test_a_flat_image_is_simpler_than_a_sharp_edge():
    flat, edge = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1
    found = edge_complexity(torch.cat([flat, edge]))
    assert float(found[0]) == 0
    assert float(found[1]) > 0
