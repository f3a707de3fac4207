"""Pruned pools: LPLD's counts, and where each training label comes from."""

import pytest
import torch

from projectors.codecs import CodecError, Dense, Labels, LabelSpec, Pool, Pruned, TopK
from tests.projectors.codecs.checks import make_labels

UNITS = ["epoch", "batch", "batch-to-epoch"]


@pytest.mark.parametrize(
    ("ratio", "epochs", "batches"), [(0.0, 300, 30000), (0.9, 30, 3000), (0.95, 15, 1500),
                                     (0.97, 9, 900), (0.975, 7, 750)]
)  # fmt: skip
def test_the_ratios_of_lpld_keep_their_counts(ratio, epochs, batches):
    spec = LabelSpec(300, 10_000, 1000)
    assert Pool(ratio, "epoch").kept(spec) == epochs
    assert Pool(ratio, "batch", batch_size=100).kept(spec) == batches
    assert Pool(ratio, "batch-to-epoch", batch_size=100).kept(spec) == batches


def test_a_partial_batch_is_kept_by_batch_and_dropped_by_batch_to_epoch():
    spec = LabelSpec(4, 7, 10)
    assert Pool(0.5, "batch", batch_size=3).spec(spec).labels == 14
    assert Pool(0.25, "batch", batch_size=3).spec(spec).labels == 21
    assert Pool(0.5, "batch-to-epoch", batch_size=3).spec(spec).labels == 12


def numbered(epochs, images):
    """Labels [epochs, images, 2] that name their epoch and place."""
    epoch = torch.arange(epochs)[:, None].expand(-1, images)
    place = torch.arange(images).expand(epochs, -1)
    return Labels(torch.stack((epoch, place), dim=-1).float())


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.6])
@pytest.mark.parametrize(("images", "batch_size"), [(12, 3), (7, 3), (4, 4)])
def test_sources_name_the_label_that_was_read(unit, ratio, images, batch_size):
    codec = Pruned(Dense(), ratio, unit, batch_size, seed=1)
    labels = numbered(6, images)
    decoded = codec.decode(codec.encode(labels))
    assert torch.equal(decoded.sources.epochs, decoded.logits[..., 0].long())
    assert torch.equal(decoded.sources.places, decoded.logits[..., 1].long())
    places = torch.arange(images).expand(6, -1)
    if unit != "batch-to-epoch":
        assert torch.equal(decoded.sources.places, places)
    else:
        assert torch.equal(decoded.sources.places % batch_size, places % batch_size)


@pytest.mark.parametrize("unit", UNITS)
def test_only_the_first_units_are_kept_and_all_of_them_are_read(unit):
    spec = LabelSpec(200, 6, 10)
    pool = Pool(0.95, unit, batch_size=2, seed=0)
    reads = pool.reads(spec)
    assert set(reads.flatten().tolist()) == set(range(pool.kept(spec)))
    assert reads.shape == (200, 1 if unit == "epoch" else 3)


def test_batches_of_mixed_epochs_keep_their_positions():
    spec = LabelSpec(50, 9, 10)
    pool = Pool(0.95, "batch", batch_size=3, seed=0)  # 7 of 150: batch 0 three times, others two
    assert pool.kept(spec) == 7
    reads = pool.reads(spec)
    assert torch.equal(reads % 3, torch.arange(3).expand(50, -1))
    assert reads.amax(dim=0).tolist() == [6, 4, 5]


def test_draws_are_uniform_and_follow_the_seed():
    spec = LabelSpec(4000, 4, 10)
    pool = Pool(0.9995, "batch-to-epoch", batch_size=2, seed=9)
    counts = torch.bincount(pool.reads(spec).flatten())
    assert counts.tolist() == pytest.approx([2000] * 4, abs=5 * (8000 * 3 / 16) ** 0.5)
    assert torch.equal(pool.reads(spec), pool.reads(spec))
    other = Pool(0.9995, "batch-to-epoch", batch_size=2, seed=10)
    assert not torch.equal(pool.reads(spec), other.reads(spec))


def test_draws_never_change():
    spec = LabelSpec(5, 4, 10)
    assert Pool(0.5, "batch-to-epoch", 2, seed=0).reads(spec).tolist() == PINNED


PINNED = [[3, 1], [0, 0], [4, 4], [3, 3], [2, 4]]


def test_the_pool_is_decoded_alone():
    codec = Pruned(TopK(2), 0.5, "epoch")
    labels = make_labels(4, 5, 10)
    pool = codec.decode_pool(codec.encode(labels))
    assert pool.spec == codec.pool.spec(labels.spec)
    reads = codec.pool.reads(labels.spec)
    expanded = codec.decode(codec.encode(labels))
    assert torch.equal(expanded.logits, pool.logits[reads[:, 0]])
    assert expanded.temperature == labels.temperature


@pytest.mark.parametrize(
    ("unit", "ratio", "message"),
    [
        ("epoch", 0.9, "4 epochs keeps 0, but 1"),
        ("batch", 0.9, "12 batches keeps 1, but 3"),
        ("batch-to-epoch", 0.99, "keeps 0"),
    ],
)
def test_a_pool_that_keeps_too_little_is_refused(unit, ratio, message):
    with pytest.raises(CodecError, match=message):
        Pruned(Dense(), ratio, unit, batch_size=2).encode(make_labels(4, 5, 10))


def test_a_pool_is_not_pruned_twice():
    with pytest.raises(CodecError, match="raise the ratio"):
        Pruned(Pruned(Dense(), 0.5), 0.5)
