"""A set in a given number of bytes: the budget is kept by the file's own count."""

import json
import math
from dataclasses import replace

import pytest
import torch

import distill
from distill.errors import WorkError
from distill.recipes.build import build_coding
from distill.sets.coded_set import class_runs, coding_spec, pack_labels, unpack_labels
from distill.sets.coding_ways import coding_ways
from distill.sets.compress import LABEL_SHARE, compress_set
from distill.sets.cost import count_bytes, hard_bytes
from distill.sets.set_file import read_set, write_set
from synth.coding import Frequency, Palette, Pixels, Rounded, unpack_images
from tests.distill.sets.cases import MANIFEST, make_set, make_votes

SHAPE = (6, 1, 8, 8)


def counted_by_hand(path):
    """What the file itself holds, not what was counted while it was made."""
    content = read_set(path)
    learned = 0 if content.coded_labels is None else len(content.coded_labels)
    hard = min(len(content.hard), len(content.manifest["class_names"]))
    return len(content.coded) + learned + hard + 8 * content.images.shape[1] + 4 + 1


@pytest.mark.parametrize("budget", [150, 250, 400, 700, 1200, 5000])
def test_budget_is_kept_by_the_count_of_the_file(budget, tmp_path):
    made = compress_set(make_set(classes=5, ipc=4), budget)
    made.save(tmp_path / "set.h5")
    assert made.bytes["total"] == counted_by_hand(tmp_path / "set.h5") <= budget
    found = read_set(tmp_path / "set.h5")
    pixels, coding = unpack_images(found.coded)
    assert coding == made.coding
    original = make_set(classes=5, ipc=4)
    truth = original.preprocess.inverse(original.images)
    assert made.error == pytest.approx(float((pixels - truth).square().mean()), rel=1e-4)


def test_more_bytes_bring_the_images_nearer():
    content = replace(make_set(classes=5, ipc=4), learned=None)
    errors = [compress_set(content, budget).error for budget in (120, 250, 500, 1000, 2500)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9 < errors[-2]


@pytest.mark.parametrize("budget", [150, 250, 400, 700])
def test_refinement_brings_images_nearer_within_the_budget(budget):
    content = replace(make_set(classes=5, ipc=4), learned=None)
    plain, refined = compress_set(content, budget), compress_set(content, budget, steps=20)
    assert refined.bytes["total"] <= budget
    assert plain.error == plain.plain_error == refined.plain_error
    assert refined.error <= plain.error
    if refined.coding == plain.coding:
        assert refined.content.coded == plain.content.coded
    else:
        assert refined.error < plain.error


def test_refinement_helps_where_there_are_many_settings():
    content = smooth_set()
    plain, refined = compress_set(content, 450), compress_set(content, 450, steps=30)
    assert refined.error < 0.95 * plain.error
    assert refined.coding.step < plain.coding.step
    assert max(refined.bytes["total"], plain.bytes["total"]) <= 450
    assert refined.content.images.shape == content.images.shape


def test_what_refinement_makes_worse_is_left_as_it_was():
    """A distance that only the plain coding meets keeps it."""
    content = smooth_set()
    plain = compress_set(content, 300)
    wanted = unpack_images(plain.content.coded)[0]
    kept = compress_set(
        content, 300, 2, lambda pixels, factor: lambda found: (found - wanted).square().mean()
    )
    assert kept.content.coded == plain.content.coded
    assert kept.error == kept.plain_error


def test_without_the_arithmetic_coder_the_budget_is_kept_too(monkeypatch):
    for name in ("compress", "coded_set"):
        monkeypatch.setattr(f"distill.sets.{name}.best_coder", lambda: "lzma")
    made = compress_set(smooth_set(), 450, steps=5)
    assert made.bytes["total"] <= 450
    assert made.error <= made.plain_error


def smooth_set():
    """60 images of 8x8 in which neighbours are alike, black at one border."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(60, 1, 3, 3, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear")
    pixels[..., 0] = 0
    content = make_set(classes=5, ipc=12)
    return replace(content, images=content.preprocess(pixels), learned=None)


def test_budget_that_cannot_be_met_gets_one_line(finished, refused, tmp_path):
    line = refused(1, "compress", finished, "--bytes", "10", "--out", tmp_path / "small.h5")
    assert "a budget of 10 bytes, but these 10 images take at least" in line
    assert not (tmp_path / "small.h5").exists()
    assert "is not in the range x>=1" in refused(
        2, "compress", finished, "--bytes", "0", "--out", tmp_path / "small.h5"
    )


def test_command_says_what_it_made_and_leaves_the_set(finished, command, refused, tmp_path):
    before, out = (finished / "set.h5").read_bytes(), tmp_path / "small.h5"
    outcome = command("compress", finished, "--bytes", "600", "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["total"] == found["bytes"]["total"] <= 600
    assert build_coding(found["coding"], (10, 1, 8, 8)) == unpack_images(read_set(out).coded)[1]
    assert (finished / "set.h5").read_bytes() == before
    assert f"{out} exists" in refused(1, "compress", finished, "--bytes", "600", "--out", out)
    text = command("compress", finished, "--bytes", "900", "--out", tmp_path / "b.h5").out
    assert f"{found['coding'].split(':')[0]}" in text or " of 900 bytes, " in text
    judged = json.loads(
        command("evaluate", out, "--seeds", "1", "--epochs", "1", "--quiet", "--json").out
    )
    assert judged["bytes"]["total"] == min(judged["bytes"]["totals"].values()) <= 600


def test_python_gives_the_same_set(finished, command, tmp_path):
    made = distill.compress(finished, budget_bytes=600)
    made.save(tmp_path / "a.h5")
    command("compress", finished, "--bytes", "600", "--out", tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_loaded_set_is_compressed_like_its_file(finished):
    loaded = distill.load(finished)
    for given in (loaded, str(finished), finished / "set.h5"):
        made = distill.compress(given, 600, steps=2)
        assert made.content.coded == distill.compress(finished, 600, steps=2).content.coded
    again = distill.compress(loaded, 400)
    assert again.bytes["total"] <= 400


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((b"runs", 600), "compress got a bytes; give a set.h5, the folder of a run, or what"),
        ((None, 600), "compress got a NoneType; give"),
        (("nowhere", 600), "nowhere"),
        (("{set}", 0), "budget_bytes is 0; give a whole number of at least 1"),
        (("{set}", "600"), "budget_bytes is '600'; give a whole number"),
        (("{set}", 600.5), "budget_bytes is 600.5; give a whole number"),
        (("{set}", True), "budget_bytes is True; give a whole number"),
        (("{set}", 600, -1), "steps is -1; give a whole number of at least 0"),
        (("{set}", 600, "3"), "steps is '3'; give a whole number of at least 0"),
        (("{set}", 10), "a budget of 10 bytes, but these 10 images take at least"),
    ],
)
def test_wrong_arguments_get_one_line(arguments, line, finished):
    given, budget, *steps = arguments
    given = str(finished) if given == "{set}" else given
    with pytest.raises(WorkError) as caught:
        distill.compress(given, budget, **({"steps": steps[0]} if steps else {}))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_command_refines_where_asked_to(finished, command, refused, tmp_path):
    words = ("compress", finished, "--bytes", "600", "--json", "--out")
    plain = json.loads(command(*words, tmp_path / "a.h5").out)
    refined = json.loads(command(*words, tmp_path / "b.h5", "--steps", "20").out)
    assert plain["error"] == plain["plain_error"] == refined["plain_error"]
    assert refined["error"] <= plain["error"]
    assert max(refined["total"], plain["total"]) <= 600
    assert "is not in the range x>=0" in refused(2, *words, tmp_path / "c.h5", "--steps", "-1")
    assert "a budget of 10 bytes" in refused(
        1, "compress", finished, "--bytes", "10", "--steps", "3", "--out", tmp_path / "d.h5"
    )


def test_formation_is_kept_and_the_error_is_that_of_the_images_seen():
    content = replace(make_set(), images=torch.randn(6, 1, 8, 8), learned=None)
    plain = compress_set(content, 250)
    formed = compress_set(replace(content, manifest={**content.manifest, "factor": 2}), 250)
    assert formed.content.seen_images.shape == (24, 1, 8, 8)
    assert formed.content.images.shape == (6, 1, 8, 8)
    assert formed.error < plain.error  # enlarged pixels average their errors


def test_refined_images_take_the_place_of_the_stored_ones():
    content = make_set(classes=5, ipc=4)
    refined = compress_set(replace(content, refined=content.images.flip(0)), 5000)
    torch.testing.assert_close(refined.content.images, content.images.flip(0), atol=1e-5, rtol=0)
    assert refined.content.refined is None


def test_learned_labels_are_kept_where_a_quarter_of_the_budget_holds_them():
    content = make_set(classes=5, ipc=4, votes=make_votes(n=20, classes=5))
    large, small = compress_set(content, 5000).content, compress_set(content, 200).content
    assert large.coded_labels is not None
    assert len(large.coded_labels) <= LABEL_SHARE * 5000
    torch.testing.assert_close(large.learned, content.learned, atol=2e-3, rtol=1e-3)
    assert (small.coded_labels, small.learned) == (None, None)
    assert (large.votes, large.encoded, large.measured) == (None, {}, None)


def test_coded_labels_come_back_from_the_file(tmp_path):
    content = make_set()
    payload = pack_labels(content.learned, 10**6)
    coded = replace(content, learned=unpack_labels(payload), coded_labels=payload)
    write_set(tmp_path / "set.h5", coded)
    found = read_set(tmp_path / "set.h5")
    assert found.coded_labels == payload
    assert torch.equal(found.learned, coded.learned)
    assert count_bytes(found)["sources"]["learned"] == len(payload)


def test_compressing_again_only_takes_bytes_away():
    once = compress_set(make_set(classes=5, ipc=4), 700).content
    twice = compress_set(once, 400)
    assert twice.bytes["total"] <= 400
    assert once.coded != twice.content.coded


@pytest.mark.parametrize(
    "coding",
    [Rounded(SHAPE), Rounded(SHAPE, 5), Palette(SHAPE, 3), Frequency(SHAPE, 0.123, block=4)],
)
def test_spec_of_a_coding_builds_it(coding):
    assert build_coding(coding_spec(coding), SHAPE) == coding


def test_images_of_a_class_give_context_where_there_are_several():
    labels = torch.arange(3).repeat_interleave(2)
    assert [class_runs(labels, 3), class_runs(labels[:-1], 3), class_runs(labels.flip(0), 3)] == [
        3, 1, 1,
    ]  # fmt: skip
    assert build_coding("rounded", SHAPE, 3) == Rounded(SHAPE, groups=3)
    assert build_coding("rounded", SHAPE, 6) == Rounded(SHAPE)
    assert build_coding("pixels", SHAPE, 3) == Pixels(SHAPE)


@pytest.mark.parametrize("shape", [(4, 1, 28, 28), (4, 3, 32, 32), (4, 1, 9, 15), (4, 5, 8, 8)])
def test_every_shape_has_ways_from_fine_to_coarse(shape):
    ways = list(coding_ways(shape))
    names = [type(way[0]).__name__ for way in ways]
    assert names[:4] == ["Pixels", "Rounded", "Palette", "Tones"]
    assert len(names) - 4 == {28: 4, 32: 4, 15: 2, 8: 0}[shape[3]]
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    for way in ways[3:]:
        fine, coarse = (coding.decode(coding.start(images)) for coding in (way[0], way[-1]))
        error = float((fine - images).abs().max())
        assert error < 0.5 * math.prod(shape[1:]) ** 0.5 * 0.1
        assert float((coarse - images).square().mean()) > float((fine - images).square().mean())


def test_hard_labels_in_class_order_cost_a_count_for_each_class():
    ordered = torch.arange(10).repeat_interleave(50)
    assert hard_bytes(ordered, 10) == 10
    assert hard_bytes(torch.arange(10).repeat_interleave(300), 10) == 20
    assert hard_bytes(ordered.flip(0), 10) == 500
    assert hard_bytes(torch.arange(10), 10) == 10
    assert hard_bytes(torch.arange(3), 1000) == 6


def test_total_is_that_of_the_smallest_reported_labels():
    content = make_set(votes=make_votes())
    found = count_bytes(content, (100, 7), ["learned", "votes"])
    shared = 6 * 20 * 4 + 8 + 5
    assert found["totals"] == {
        "hard": shared + 3,
        "learned": shared + 6 * 3 * 4,
        "votes": shared + found["sources"]["votes"],
        "projector": shared + 100,
    }
    assert found["total"] == shared + min(72, found["sources"]["votes"])
    with pytest.raises(WorkError, match="a budget of 30 bytes"):
        compress_set(content, 30)


def test_whitened_set_counts_its_matrices(tmp_path):
    from synth.whitening import Whitening

    matrix = 2 * torch.eye(20)
    whitening = Whitening(torch.full((20,), 0.5), matrix, matrix.inverse(), (1, 4, 5))
    images = 2 * (torch.rand(6, 1, 4, 5) - 0.5)
    manifest = {**MANIFEST, "preprocess": "zca"}
    content = replace(make_set(), images=images, manifest=manifest, whitening=whitening)
    made = compress_set(content, 4000)
    matrices = 4 * (20 + 2 * 400)
    assert made.bytes["preprocess"] == matrices
    assert matrices < made.bytes["total"] <= 4000
    made.save(tmp_path / "set.h5")
    torch.testing.assert_close(read_set(tmp_path / "set.h5").images, made.content.images)
    with pytest.raises(WorkError, match="labels and settings 3,"):
        compress_set(content, 3000)
