"""Bytes on paper for ImageNet-1K, against what was published."""

import pytest

from projectors.codecs import (
    CodecError,
    Dense,
    Hard,
    LabelSpec,
    Pruned,
    Quantised,
    SampledTopK,
    TopK,
    encoded_bytes,
    imagenet_label_bytes,
)
from tests.projectors.codecs.checks import make_labels

FULL = Dense("float16")


@pytest.mark.parametrize(
    ("ipc", "published"), [(1, "0.559"), (10, "5.59"), (50, "27.9"), (200, "111.8")]
)
def test_full_labels_take_the_published_gibibytes(ipc, published):
    gibibytes = imagenet_label_bytes(FULL, ipc) / 2**30
    decimals = len(published.split(".")[1])
    assert f"{gibibytes:.{decimals}f}" == published


def test_full_labels_at_ipc1_take_572_mebibytes():
    assert round(imagenet_label_bytes(FULL, 1) / 2**20) == 572


@pytest.mark.parametrize(("ipc", "published"), [(10, 0.14), (200, 2.8)])
def test_lpld_at_40x_takes_the_published_size(ipc, published):
    lpld = Pruned(FULL, ratio=0.975, batch_size=100)
    assert imagenet_label_bytes(lpld, ipc) / 2**30 == pytest.approx(published, rel=0.01)
    ratio = imagenet_label_bytes(FULL, ipc) / imagenet_label_bytes(lpld, ipc)
    assert ratio == pytest.approx(40, rel=1e-4)


@pytest.mark.parametrize(("k", "ratio"), [(125, 40), (62, 80), (25, 200)])
def test_lpqld_multiplies_pruning_and_topk(k, ratio):
    lpqld = Pruned(TopK(k), ratio=0.9, unit="epoch")
    full = imagenet_label_bytes(FULL, 10)
    assert full / imagenet_label_bytes(lpqld, 10) == pytest.approx(ratio, rel=0.01)


def test_a_topk_label_of_fkd_takes_20_bytes():
    labels = 300 * 10_000
    assert TopK(5).body_bytes(make_spec()) == 20 * labels
    assert SampledTopK(5, 5).body_bytes(make_spec()) == 30 * labels
    assert Hard().body_bytes(make_spec()) == 2 * labels


def make_spec():

    return LabelSpec(300, 10_000, 1000)


def test_sizes_on_paper_need_no_labels_and_measured_ones_do():
    with pytest.raises(CodecError, match="depends on the labels"):
        imagenet_label_bytes(Quantised(0.5), 10)
    labels = make_labels(3, 4, 10)
    assert encoded_bytes(FULL, labels.spec) == len(FULL.encode(labels))
