"""Data that are given in Python are those that the source then reads."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from distill.data import DataError, SourceError, load_data
from distill.data.given import given_source

LABELS = torch.arange(3).repeat_interleave(10)


def some_bytes(count=30):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 4, 5), generator=generator, dtype=torch.uint8)


class Pictures:
    """A Dataset of Pillow's pictures, as torchvision's are without a transform."""

    classes = ("ant", "bee", "cat")

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return Image.fromarray(some_bytes()[index].permute(1, 2, 0).numpy()), int(LABELS[index])


def read(data, tmp_path):
    return load_data(given_source(data, tmp_path / "data.npz"))


def test_every_form_of_the_same_images_gives_the_same_data(tmp_path):
    values, pixels = some_bytes(), some_bytes().float() / 255
    forms = [
        (values, LABELS),
        (pixels, LABELS),
        (values.numpy(), LABELS.tolist()),
        (pixels.double(), LABELS),
        {"images": pixels, "labels": LABELS},
        TensorDataset(pixels, LABELS),
    ]
    digests = {read(form, tmp_path).digest for form in forms}
    assert len(digests) == 1
    named = read(Pictures(), tmp_path)
    assert named.class_names == ("ant", "bee", "cat")
    assert torch.equal(named.test.images, read(forms[0], tmp_path).test.images)
    assert read(Subset(Pictures(), range(30)), tmp_path).digest == named.digest


def test_floats_that_are_bytes_take_a_quarter_and_others_are_kept(tmp_path):
    pixels = some_bytes().float() / 255
    given_source((pixels, LABELS), tmp_path / "data.npz")
    assert np.load(tmp_path / "data.npz")["images"].dtype == np.uint8
    pixels[0, 0, 0, 0] = 0.1234
    given_source((pixels, LABELS), tmp_path / "data.npz")
    assert np.array_equal(np.load(tmp_path / "data.npz")["images"], pixels.numpy())


@pytest.mark.parametrize("kind", [TensorDataset, lambda images, labels: (images, labels)])
def test_test_part_is_the_second_of_two(kind, tmp_path):
    values = some_bytes()
    found = read((kind(values, LABELS), kind(values[:9], torch.arange(9) % 3)), tmp_path)
    assert torch.equal(found.test.images, values[:9].float() / 255)
    assert len(found.train) + len(found.validation) == 30


def test_names_and_places_are_sources(tmp_path):
    file = tmp_path / "data.npz"
    assert given_source("digits", file) == "digits"
    assert given_source(tmp_path, file) == f"folder:{tmp_path}"
    np.savez(tmp_path / "other.npz", images=some_bytes().numpy(), labels=LABELS.numpy())
    assert given_source(str(tmp_path / "other.npz"), file) == f"npz:{tmp_path}/other.npz"
    assert not file.exists()
    with pytest.raises(SourceError, match="is no source, no folder and no npz file"):
        given_source("nowhere", file)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (5, "int came; give a torch Dataset"),
        ([1, 2], "list came; give a torch Dataset"),
        (TensorDataset(some_bytes()), "item 0 of the Dataset is no pair"),
        (TensorDataset(some_bytes(), LABELS.float()), "class of item 0 .* whole number"),
        ([], "list came"),
        (TensorDataset(torch.zeros(0, 3, 4, 4), torch.zeros(0)), "is empty"),
        (([np.zeros((2, 3)), np.zeros((3, 2))], [0, 1]), "different shapes"),
        (({}, [0, 1]), "images: a dict came"),
    ],
)
def test_other_data_are_refused_in_one_line(data, said, tmp_path):
    with pytest.raises(DataError, match=said) as error:
        given_source(data, tmp_path / "data.npz")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data.npz").exists()


def test_images_of_several_sizes_are_refused_by_number(tmp_path):
    items = [(np.zeros((4, 4)), 0), (np.zeros((4, 5)), 1)]

    class Mixed:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return items[index]

    with pytest.raises(DataError, match=r"image 1 of the Dataset is float64 \(4, 5\), but"):
        given_source(Mixed(), tmp_path / "data.npz")


def test_normalised_images_are_refused_when_they_are_read(tmp_path):
    with pytest.raises(DataError, match=r"values in \[0, 1\] are needed"):
        read((some_bytes().float() / 255 - 0.5, LABELS), tmp_path)
