"""Coded real images as controls: as many as fit, kept in a way that is chosen aside, or herded."""

from dataclasses import replace

import pytest
import torch

from distill.evaluation.coded import (
    CodedReal,
    best_candidates,
    candidates,
    coded_real,
    fit,
    herded_draw,
    offered_ways,
    own_way,
    plan_coded,
    plan_search,
    random_draw,
)
from distill.evaluation.jobs import CODED, HERDED, StudentJob, plan_jobs
from distill.recipes.build import build_coding
from distill.sets.coded_images import usable_ways
from distill.sets.compress import compress_set
from distill.sets.cost import hard_bytes
from distill.sets.set_file import read_set
from synth.coding import pack_images
from synth.formation import decode_images, encode_images


def packed(context, real, draw, shared):
    images = encode_images(draw(real.per_class), real.factor)
    pixels = context.preprocess.inverse(images).clamp(0, 1)
    coding = build_coding(real.coding, tuple(pixels.shape), groups=10)
    labels = torch.arange(10).repeat_interleave(real.ipc)
    return shared + len(pack_images(coding, coding.start(pixels))) + hard_bytes(labels, 10)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("herded", [False, True])
def test_as_many_images_as_fit_of_every_draw(factor, herded, context):
    random = [random_draw(context, seed) for seed in range(3)]
    draws = [herded_draw(context)] if herded else random
    # Ten images of each class are there.
    budget = 130 if factor == 2 else 152
    real = fit(context, draws, CodedReal("frequency:step=0.8", 8, 0, factor), budget, 13)
    assert real.factor == factor
    assert max(packed(context, real, draw, 13) for draw in draws) == real.bytes <= budget
    more = replace(real, ipc=real.ipc + 1)
    assert max(packed(context, more, draw, 13) for draw in draws) > budget


def test_candidates_fit_and_the_smallest_stands_where_none_does(context):
    offered = candidates(context, 700, 13)
    ways = usable_ways(context)
    assert {(real.coding, real.factor) for real in offered} <= set(ways)
    assert {real.factor for real in offered} == {1, 2}
    assert all(real.bytes <= 700 and real.ipc >= 1 for real in offered)
    (only,) = candidates(context, 20, 13)
    assert only.ipc == 1
    assert only.bytes > 20


def test_the_way_of_the_set_is_a_candidate(context, finished):
    plain = read_set(finished / "set.h5")
    assert own_way(plain) is None
    ways = offered_ways(context, None)
    assert offered_ways(context, ("rounded:depth=2", 2)) == ways
    own = own_way(compress_set(plain, 1000).content)
    assert own is not None
    assert offered_ways(context, own) == [*ways, own]
    offered = candidates(context, 700, 13, ("rounded:depth=3", 1))
    assert "rounded:depth=3" in {real.coding for real in offered}


def test_real_images_are_what_a_receiver_gets(context):
    draw = random_draw(context, 0)
    plain, same = draw(8), draw(4)
    assert torch.equal(same, plain.view(10, 8, *plain.shape[1:])[:, :4].flatten(0, 1))
    job = StudentJob(CODED, "a", "hard", 0, ipc=8, coding="rounded:depth=1")
    coded, labels = coded_real(context, draw, job)
    pixels = context.preprocess.inverse(coded)
    torch.testing.assert_close(pixels, context.preprocess.inverse(plain).clamp(0, 1).round())
    formed, again = coded_real(context, draw, replace(job, ipc=2, factor=2))
    assert torch.equal(labels, again)
    assert labels.tolist() == sorted(labels.tolist())
    stored = context.preprocess.inverse(encode_images(plain, 2)).clamp(0, 1).round()
    torch.testing.assert_close(formed, decode_images(context.preprocess(stored), 2))


def test_herded_images_have_the_mean_of_their_class(context):
    herded = herded_draw(context)(5)
    assert torch.equal(herded_draw(context)(3), herded.view(10, 5, 1, 8, 8)[:, :3].flatten(0, 1))
    images, labels = context.split("train")
    means = torch.stack([images[labels == label].mean(dim=0) for label in range(10)])

    def gap(drawn):
        return float((drawn.view(10, 5, 1, 8, 8).mean(dim=1) - means).norm())

    assert gap(herded) < min(gap(random_draw(context, seed)(5)) for seed in range(10))
    with pytest.raises(ValueError, match="class 0 has 10 candidates, but ipc is 11"):
        herded_draw(context)(11)


def test_search_trains_one_for_each_student_and_source():
    jobs = plan_jobs(["a", "b"], 3, ["hard", "learned"], ["hard", "learned"], [])
    hard, learned = [CodedReal("x", 2, 50), CodedReal("y", 1, 60, 2)], [CodedReal("x", 4, 90)]
    offered = {
        ("a", "hard"): hard, ("a", "learned"): learned,
        ("b", "hard"): hard, ("b", "learned"): learned,
    }  # fmt: skip
    whole = plan_search(jobs, offered)
    assert whole[0][0].name == "coded/a/hard/0/x/2/trial"
    search = plan_search(jobs, offered, 20)
    assert [real for _, real in search] == [real for _, real in whole]
    names = [job.name for job, _ in search]
    assert names[:3] == [
        "coded/a/hard/0/x/2/epochs=20/trial",
        "coded/a/hard/0/y/1/factor=2/epochs=20/trial",
        "coded/a/learned/0/x/4/epochs=20/trial",
    ]
    assert len(names) == len(set(names)) == 6
    values = [0.5, 0.6, 0.1, 0.5, 0.5, 0.2]
    graded = [(job, real, value) for (job, real), value in zip(search, values, strict=True)]
    both = best_candidates(graded, 5)
    assert [real.coding for real in both["a", "hard"]] == ["y", "x"]
    assert [real.coding for real in both["b", "hard"]] == ["x", "y"], "the first of equals"
    best = {key: found for key, (found,) in best_candidates(graded, 1).items()}
    assert {key: real.coding for key, real in best.items()} == {
        ("a", "hard"): "y", ("a", "learned"): "x", ("b", "hard"): "x", ("b", "learned"): "x",
    }  # fmt: skip
    coded = plan_coded(jobs, HERDED, best)
    assert len(coded) == 12
    assert {job.group for job in coded} == {HERDED}
    assert not any(job.trial or job.epochs for job in coded)
    hard = [job for job in coded if job.labels == "hard"]
    assert {(job.student, job.coding, job.ipc, job.factor) for job in hard} == {
        ("a", "y", 1, 2), ("b", "x", 2, 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "largest"),
    [
        ("frequency:step=0.1", 140),
        ("frequency:step=0.1:largest=5", 5),
        ("frequency:step=0.4", 64),
    ],
)
def test_named_steps_clip_no_pixels(spec, largest):
    assert build_coding(spec, (10, 1, 28, 28)).largest == largest
