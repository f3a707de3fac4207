"""The product quantiser: words against slow searches, its bounds, and what words cost."""

import itertools
import math

import pytest
import torch

from projectors.codecs import CodecError, Labels, LowRank, ProductQuantised, Roots
from projectors.codecs.words import (
    balanced_order,
    learn_words,
    least_divergent,
    nearest_words,
    part_widths,
)
from tests.projectors.codecs.checks import make_labels


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def centred(labels):
    rows = labels.logits.double().flatten(0, 1)
    return rows - rows.mean(dim=1, keepdim=True)


def coded(codec, labels):
    """Bytes, and the mean squared error of centred logits."""
    payload = codec.encode(labels)
    error = (centred(codec.decode(payload)) - centred(labels)).square().mean()
    return len(payload), float(error)


def test_words_are_the_means_of_what_is_nearest_to_them():
    points = torch.randn(60, 3, generator=seeded(0))
    words = learn_words(points, 5, seed=0)
    own = [[] for _ in range(5)]
    for point in points.tolist():
        gaps = [math.dist(point, word) for word in words.tolist()]
        own[gaps.index(min(gaps))].append(point)
    for word, members in zip(words, own, strict=True):
        torch.testing.assert_close(word, torch.tensor(members).mean(dim=0))
    found = nearest_words(points, words).tolist()
    assert [found.count(number) for number in range(5)] == [len(members) for members in own]


def test_words_beat_random_ones_and_repeat_with_the_seed():
    points = torch.randn(500, 2, generator=seeded(1))

    def error(words):
        return float((points - words[nearest_words(points, words)]).square().sum(dim=1).mean())

    learned = [learn_words(points, 16, seed) for seed in (0, 0, 1)]
    assert torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[0], learned[2])
    assert max(error(words) for words in learned) < 0.6 * error(points[:16])


def test_fewer_points_than_words_are_words_themselves():
    points = torch.tensor([[1.0], [3.0], [1.0]])
    words = learn_words(points, 5, seed=0)
    assert sorted(words.flatten().tolist()) == [0.0, 0.0, 0.0, 1.0, 3.0]


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_slices_vary_alike_as_in_the_slow_allocation(parts):
    variances = torch.rand(8, generator=seeded(parts)) + 0.1
    widths, slices = part_widths(8, parts), [[] for _ in range(parts)]
    for dimension in sorted(range(8), key=lambda place: -float(variances[place])):
        products = [
            (bool(own), math.prod(float(variances[place]) for place in own), number)
            for number, own in enumerate(slices)
            if len(own) < widths[number]
        ]
        slices[min(products)[2]].append(dimension)
    assert balanced_order(variances, parts) == [place for own in slices for place in own]


def test_enough_words_give_every_label_back():
    labels = make_labels(2, 20, 12, torch.float32)
    codec = ProductQuantised(parts=1, words=64, rank=11)
    decoded = centred(codec.decode(codec.encode(labels)))
    torch.testing.assert_close(decoded, centred(labels), atol=0.12, rtol=0)


def slow_loss(error, weights):
    """What a label loses, class by class, with a twentieth of the weight the same for all."""
    even = [0.95 * p + 0.05 / len(weights) for p in weights]
    mean = sum(p * e for p, e in zip(weights, error, strict=True))
    return sum(w * e * e for w, e in zip(even, error, strict=True)) - 0.95 * mean**2


def slow_descent(point, shapes, weights, codebooks, numbers):
    """Three passes over the parts, all logits of all words written out."""
    numbers = list(numbers)

    def error(chosen):
        words = [codebook[number] for codebook, number in zip(codebooks, chosen, strict=True)]
        gap = [a - b for a, b in zip(point, itertools.chain(*words), strict=True)]
        return [
            sum(g * row[c] for g, row in zip(gap, shapes, strict=True))
            for c in range(len(shapes[0]))
        ]

    for part in [*range(len(codebooks))] * 3:
        words = range(len(codebooks[part]))
        tried = [[*numbers[:part], word, *numbers[part + 1 :]] for word in words]
        losses = [slow_loss(error(chosen), weights) for chosen in tried]
        numbers[part] = losses.index(min(losses))
    return numbers


def test_words_are_chosen_by_what_labels_lose():
    points = torch.randn(12, 6, generator=seeded(0), dtype=torch.float64)
    shapes = torch.randn(6, 7, generator=seeded(1), dtype=torch.float64)
    weights = (3 * torch.randn(12, 7, generator=seeded(2), dtype=torch.float64)).softmax(dim=1)
    codebooks = [torch.randn(4, 2, generator=seeded(s), dtype=torch.float64) for s in (3, 4, 5)]
    parts = zip(points.split(2, dim=1), codebooks, strict=True)
    start = torch.stack([nearest_words(own, words) for own, words in parts], dim=1)
    found = least_divergent(points, shapes, weights, codebooks, start)
    books = [words.tolist() for words in codebooks]
    rows = zip(points.tolist(), weights.tolist(), start.tolist(), strict=True)
    wanted = [slow_descent(point, shapes.tolist(), p, books, own) for point, p, own in rows]
    assert found.tolist() == wanted
    assert not torch.equal(found, start)


def test_chosen_words_lose_less_than_the_nearest_ones(monkeypatch):
    labels = make_labels(10, 60, 40, torch.float32)
    codec = ProductQuantised(parts=10, words=16, rank=39)

    def divergence():
        payload = codec.encode(labels)
        found, wanted = (part.probabilities() for part in (codec.decode(payload), labels))
        return len(payload), float((wanted * (wanted / found).log()).sum(dim=-1).mean())

    chosen = divergence()
    monkeypatch.setattr("projectors.codecs.product.least_divergent", lambda *args: args[-1])
    nearest = divergence()
    assert chosen[1] < 0.75 * nearest[1]
    assert chosen[0] < 1.02 * nearest[0]


def test_fewer_bytes_than_roots_at_the_same_divergence_where_logits_lie_in_a_plane():
    generator = seeded(0)
    features = torch.randn(40 * 50, 12, generator=generator)
    labels = Labels((features @ torch.randn(12, 60, generator=generator)).view(40, 50, 60), 2.0)

    def rate(codec):
        payload = codec.encode(labels)
        found, wanted = (part.probabilities() for part in (codec.decode(payload), labels))
        return len(payload), float((wanted * (wanted / found).log()).sum(dim=-1).mean())

    product, roots = rate(ProductQuantised(12, 16, 12)), rate(Roots(0.1))
    assert product[0] < 0.5 * roots[0]
    assert product[1] < roots[1]


def test_with_all_words_only_what_lies_off_the_plane_is_lost():
    labels = make_labels(2, 60, 20, torch.float32)
    best = coded(LowRank(3), labels)[1]
    assert coded(ProductQuantised(parts=1, words=128, rank=3), labels)[1] == pytest.approx(
        best, rel=0.01
    )


def test_more_words_and_more_parts_come_nearer():
    labels = make_labels(20, 40, 30, torch.float32)
    by_words = [coded(ProductQuantised(4, words, 29), labels)[1] for words in (4, 16, 64)]
    by_parts = [coded(ProductQuantised(parts, 16, 29), labels)[1] for parts in (2, 6, 20)]
    for errors in (by_words, by_parts):
        assert all(later < 0.9 * before for before, later in itertools.pairwise(errors))


def test_labels_that_hardly_change_cost_fewer_bytes():
    still = make_labels(1, 40, 20, torch.float32, seed=3).logits
    noise = 0.1 * torch.randn(30, 40, 20, generator=seeded(0))
    order = torch.randperm(1200, generator=seeded(1))
    steady = still + noise
    mixed = steady.flatten(0, 1)[order].view(30, 40, 20)
    codec = ProductQuantised(4, 16, 19)
    sizes = [coded(codec, Labels(logits))[0] for logits in (steady, mixed)]
    assert sizes[0] < 0.6 * sizes[1]


def test_fewer_classes_than_directions_are_enough():
    labels = make_labels(2, 30, 3, torch.float32)
    few = ProductQuantised(parts=2, words=16, rank=2)
    many = ProductQuantised(parts=8, words=16, rank=64)
    assert torch.equal(
        few.decode(few.encode(labels)).logits, many.decode(many.encode(labels)).logits
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": 1}, "words=1"),
        ({"words": 257}, "words=257, but at most 256 fit; raise parts"),
        ({"parts": 0}, "parts=0"),
        ({"rank": 0}, "rank=0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(CodecError, match=message):
        ProductQuantised(**options)
