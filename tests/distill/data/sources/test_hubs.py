"""The sources torchvision and hf, and class subsets of any source."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

import distill.data.sources.torchvision_sets as torchvision_sets
from distill.data import DataError, SourceError, fit_preprocess, load_data
from distill.errors import RecipeError
from distill.recipes.checks import check_data
from distill.recipes.loading import check_recipe


@pytest.fixture
def clothes(write_clothes, tmp_path):
    """A small Fashion-MNIST where torchvision looks for it."""
    write_clothes(tmp_path / "FashionMNIST" / "raw")
    return tmp_path


def test_torchvision_set_is_read_as_its_files_are(clothes):
    data = load_data(f"torchvision:FashionMNIST:{clothes}")
    own = load_data(f"fashion-mnist:{clothes / 'FashionMNIST' / 'raw'}")
    assert (data.channels, data.size) == (1, (6, 6))
    assert torch.equal(data.train.images, own.train.images)
    assert torch.equal(data.test.labels, own.test.labels)
    assert data.class_names[1] == "Trouser"


def test_root_may_come_from_the_environment(clothes, monkeypatch):
    monkeypatch.setenv("LIMBECK_DATA", str(clothes))
    data = load_data("torchvision:FashionMNIST", size=8, channels=3)
    assert (data.channels, data.size) == (3, (8, 8))


class Pictures:
    """Stands in for a torchvision set of colour pictures of several sizes."""

    classes = ("cat", "dog")

    def __init__(self, root, split=None):
        self.count = 4 if split == "test" else 12

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        shape = (8 + index % 2, 8 + index % 2, 3)
        colour = np.full(shape, 20 * index, dtype=np.uint8)
        return Image.fromarray(colour), index % 2


def test_colour_pictures_of_any_size_are_brought_to_one(monkeypatch):
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets, "DTD", Pictures)
    data = load_data("torchvision:DTD", size=4)
    assert data.train.images.shape[1:] == (3, 4, 4)
    assert len(data.test) == 4
    assert load_data("torchvision:DTD", size=4, channels=1).channels == 1
    with pytest.raises(DataError, match="images of 3x8x8 and of 3x9x9; set size"):
        load_data("torchvision:DTD")
    monkeypatch.setattr(torchvision.datasets, "EuroSAT", Pictures)
    held = load_data("torchvision:EuroSAT", size=4)
    assert (len(held.test), len(held.train) + len(held.validation)) == (2, 10)


def test_missing_files_and_unknown_sets_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR10 cannot be read .*or add --download where"):
        load_data(f"torchvision:CIFAR10:{tmp_path}")
    with pytest.raises(SourceError, match="did you mean CIFAR100"):
        load_data("torchvision:cifar100")
    with pytest.raises(SourceError, match="'' is unknown; choose one of MNIST"):
        load_data("torchvision")


def test_download_asks_for_both_parts(monkeypatch, tmp_path):
    asked = []

    def opened(name, root, words):
        asked.append((name, words.get("train"), words.get("download")))

    monkeypatch.setattr(torchvision_sets, "_open", opened)
    torchvision_sets.download(f"torchvision:CIFAR10:{tmp_path / 'root'}")
    assert asked == [("CIFAR10", True, True), ("CIFAR10", False, True)]
    assert (tmp_path / "root").is_dir()
    torchvision_sets.download("digits")
    assert len(asked) == 2


def fake_hub(splits):
    """Stands in for the package `datasets`."""
    image = type("Image", (), {})
    label = type("ClassLabel", (), {"names": ["cat", "dog"]})

    class Rows(list):
        features = types.MappingProxyType({"picture": image(), "kind": label()})

        def __getitem__(self, key):
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    found = {
        name: Rows(
            {"picture": Image.fromarray(np.full((6, 6), 9 * i, np.uint8)), "kind": i % 2}
            for i in range(count)
        )
        for name, count in splits.items()
    }

    def load_dataset(name, config):
        if name == "no/such":
            raise FileNotFoundError("no such set\non the hub")
        return found

    return types.SimpleNamespace(load_dataset=load_dataset)


def test_hugging_face_set_is_found_by_its_columns(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", fake_hub({"train": 20, "validation": 4}))
    data = load_data("hf:some/set")
    assert data.class_names == ("cat", "dog")
    assert (data.channels, data.size) == (1, (6, 6))
    assert (len(data.test), len(data.train) + len(data.validation)) == (4, 20)
    monkeypatch.setitem(sys.modules, "datasets", fake_hub({"train": 20}))
    assert len(load_data("hf:some/set@plain").test) == 4
    monkeypatch.setitem(sys.modules, "datasets", fake_hub({"test": 20}))
    with pytest.raises(DataError, match="has the splits test, but train is needed"):
        load_data("hf:some/set")
    with pytest.raises(DataError, match="FileNotFoundError: no such set on the hub"):
        load_data("hf:no/such")


def test_hugging_face_set_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"not installed; install limbeck\[hf\]"):
        load_data("hf:some/set")
    with pytest.raises(SourceError, match="lacks a name"):
        load_data("hf")


def test_classes_are_kept_in_the_order_asked_for():
    whole = load_data("digits")
    data = load_data("digits", classes=["seven", 2])
    assert data.class_names == ("seven", "two")
    assert len(data.test) == int(((whole.test.labels == 7) | (whole.test.labels == 2)).sum())
    first = data.test.images[data.test.labels == 0]
    assert torch.equal(first, whole.test.images[whole.test.labels == 7])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["sevn", "two"], "there is no class 'sevn' among 10; did you mean seven"),
        ([10, 1], "there is no class 10"),
        (["two", 2], "at least two different classes"),
        (["two"], "at least two different classes"),
    ],
)
def test_classes_that_are_not_there_are_refused(classes, words):
    with pytest.raises(DataError, match=words):
        load_data("digits", classes=classes)


def test_recipe_keeps_classes():
    raw = {
        "data": {"source": "digits", "classes": "two, seven"},
        "experts": {},
        "match": {"ipc": 1},
    }
    assert check_data(check_recipe(raw, "test")).class_names == ("two", "seven")


def test_statistics_in_parts_are_those_of_the_whole(monkeypatch):
    images = torch.rand(50, 2, 5, 5, generator=torch.Generator().manual_seed(0)) ** 3
    whole = fit_preprocess(images)
    monkeypatch.setattr("distill.data.preprocess._BATCH_VALUES", 60)
    parts = fit_preprocess(images)
    expected = images.double()
    for found in (whole, parts):
        assert found.mean == pytest.approx(expected.mean(dim=(0, 2, 3)).tolist(), rel=1e-12)
        wanted = expected.std(dim=(0, 2, 3), correction=0).tolist()
        assert found.std == pytest.approx(wanted, rel=1e-12)


def test_whitening_that_does_not_fit_is_refused_before_any_work(monkeypatch):
    raw = {"data": {"source": "digits", "zca": True}, "experts": {}, "match": {"ipc": 1}}
    recipe = check_recipe(raw, "test")
    check_data(recipe)
    monkeypatch.setattr("distill.recipes.checks.available_bytes", lambda: 64**2 * 47)
    with pytest.raises(RecipeError, match=r"64 x 64 matrices takes 0\.0 GB, 0\.0 GB are free"):
        check_data(recipe)
    monkeypatch.setattr("distill.recipes.checks.available_bytes", lambda: None)
    monkeypatch.setattr("distill.recipes.checks.LARGEST", 63)
    with pytest.raises(RecipeError, match="at most 63 values are whitened; set a smaller"):
        check_data(recipe)
