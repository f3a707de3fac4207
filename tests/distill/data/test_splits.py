import dataclasses
import hashlib

import pytest
import torch

from distill.data import (
    DataError,
    RealData,
    Split,
    build_real_data,
    per_class_indices,
    require_per_class,
)

NAMES = ("cat [bold]", "ein Hund", "鳥")


@pytest.fixture
def real(make_split):
    splits = make_split([4, 5, 6]), make_split([1, 1, 1]), make_split([2, 2, 2])
    return build_real_data(*splits, NAMES, "digits")


def test_real_data_knows_its_shape(real):
    assert (real.channels, real.size, real.classes) == (1, (4, 4), 3)
    assert len(real.train) == 15


def test_size_is_height_then_width():
    split = Split(torch.zeros(2, 3, 5, 7), torch.tensor([0, 1]))
    assert build_real_data(split, split, split, ("a", "b"), "x").size == (5, 7)


def test_split_takes_images_with_their_labels(make_split):
    split = make_split([3, 3])
    part = split.take(torch.tensor([4, 1]))
    assert torch.equal(part.images, split.images[[4, 1]])
    assert torch.equal(part.labels, split.labels[[4, 1]])


def test_digest_repeats_and_ignores_the_source(real):
    again = build_real_data(real.train, real.validation, real.test, NAMES, "npz:elsewhere.npz")
    assert again.digest == real.digest
    assert len(real.digest) == hashlib.sha256().digest_size * 2


def test_digest_sees_one_pixel_one_label_one_name_and_the_order_of_splits(real):
    images, labels = real.train.images.clone(), real.train.labels.clone()
    images[3, 0, 2, 1] = 1 - images[3, 0, 2, 1]
    labels[0] = (labels[0] + 1) % 3
    changed = [
        build_real_data(
            Split(images, real.train.labels), real.validation, real.test, NAMES, "digits"
        ),
        build_real_data(
            Split(real.train.images, labels), real.validation, real.test, NAMES, "digits"
        ),
        build_real_data(real.train, real.validation, real.test, ("a", *NAMES[1:]), "digits"),
        build_real_data(real.train, real.test, real.validation, NAMES, "digits"),
    ]
    assert len({real.digest, *(data.digest for data in changed)}) == 5


def test_digest_sees_the_shape():
    def digest(height, width):
        split = Split(torch.zeros(1, 1, height, width), torch.tensor([0]))
        return build_real_data(split, split, split, ("a",), "x").digest

    assert digest(2, 8) != digest(4, 4)


def test_digest_does_not_see_strides():
    wide = torch.rand(2, 3, 4, 4)
    plain = Split(wide, torch.tensor([0, 1]))
    strided = Split(wide.contiguous(memory_format=torch.channels_last), torch.tensor([0, 1]))
    digests = {build_real_data(s, s, s, ("a", "b"), "x").digest for s in (plain, strided)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 4, 4), r"shape \(2, 4, 4\) came, \[n, c, h, w\] is needed"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), r"torch.uint8 came, torch.float32"),
        (torch.zeros(0, 1, 4, 4), r"empty \(shape \(0, 1, 4, 4\)\), at least one image"),
        (torch.full((2, 1, 4, 4), float("nan")), "32 of 32 pixels are NaN or infinite"),
        (torch.full((2, 1, 4, 4), float("inf")), "32 of 32 pixels are NaN or infinite"),
        (torch.full((2, 1, 4, 4), 255.0), r"pixels from 255 to 255 came, values in \[0, 1\]"),
        (torch.full((2, 1, 4, 4), -0.1), r"pixels from -0.1 to -0.1 came"),
    ],
)
def test_split_refuses_faulty_images(images, message):
    with pytest.raises(DataError, match=message):
        Split(images, torch.zeros(len(images), dtype=torch.int64))


def test_split_finds_a_single_nan_among_good_pixels():
    images = torch.rand(3, 1, 4, 4)
    images[1, 0, 3, 3] = float("nan")
    with pytest.raises(DataError, match="1 of 48 pixels are NaN"):
        Split(images, torch.tensor([0, 0, 0]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2), "torch.float32 came, integers"),
        (torch.zeros(2, dtype=torch.bool), "torch.bool came, integers"),
        (torch.zeros(2, 1, dtype=torch.int64), r"shape \(2, 1\) came, \[n\] is needed"),
        (torch.zeros(3, dtype=torch.int64), "3 labels came with 2 images"),
    ],
)
def test_split_refuses_faulty_labels(labels, message):
    with pytest.raises(DataError, match=message):
        Split(torch.zeros(2, 1, 4, 4), labels)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_real_data_refuses_labels_out_of_range(real, name, label):
    split = getattr(real, name)
    labels = split.labels.clone()
    labels[0] = label
    with pytest.raises(DataError, match=f"{name} labels: label {label} is out of range, 0 to 2"):
        dataclasses.replace(real, **{name: Split(split.images, labels)})


def test_real_data_refuses_a_class_without_training_images(real, make_split):
    with pytest.raises(DataError, match=r"class '鳥' has no training images"):
        dataclasses.replace(real, train=make_split([3, 3, 0]))


def test_real_data_allows_a_class_without_test_images(real, make_split):
    assert len(dataclasses.replace(real, test=make_split([3, 0, 0])).test) == 3


def test_real_data_refuses_splits_of_other_shape(real, make_split):
    with pytest.raises(DataError, match="test images are 1x6x6, but train images are 1x4x4"):
        dataclasses.replace(real, test=make_split([1, 1, 1], size=6))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no class names came"),
        (("a", "b", "a"), "class name 'a' stands twice"),
        (("a", "b", "\udce9"), r"class name '\\udce9' is not valid UTF-8"),
    ],
)
def test_real_data_refuses_faulty_class_names(real, names, message):
    with pytest.raises(DataError, match=message):
        build_real_data(real.train, real.validation, real.test, names, "x")
    with pytest.raises(DataError, match=message):
        RealData(real.train, real.validation, real.test, names, "x", real.digest)


def test_errors_are_value_errors_of_one_line(real, make_split):
    with pytest.raises(ValueError, match="cat") as caught:
        require_per_class(real.train, 99, ("cat\nand dog", "b", "c"))
    assert "\n" not in str(caught.value)


def test_per_class_indices_are_ascending_and_complete(make_split):
    split = make_split([3, 0, 5])
    indices = per_class_indices(split.labels, 3)
    assert [len(own) for own in indices] == [3, 0, 5]
    for label, own in enumerate(indices):
        assert torch.equal(own, (split.labels == label).nonzero().flatten())


def test_per_class_indices_refuse_labels_out_of_range():
    with pytest.raises(DataError, match="label 2 is out of range, 0 to 1"):
        per_class_indices(torch.tensor([0, 2]), 2)


def test_require_per_class_names_the_poorest_class(make_split):
    split = make_split([4, 3, 5])
    require_per_class(split, 3, NAMES)
    with pytest.raises(DataError, match=r"class 'ein Hund' has 3 images, but ipc=4 .*lower ipc"):
        require_per_class(split, 4, NAMES)


def test_require_per_class_does_not_advise_an_ipc_of_zero(make_split):
    with pytest.raises(DataError, match=r"class '鳥' has no images.*add images or remove"):
        require_per_class(make_split([4, 3, 0]), 1, NAMES)
