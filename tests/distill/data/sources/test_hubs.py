"""The sources torchvision and hf, and class subsets of any source."""

import io
import logging
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
from distill.recipes.loading import check_recipe, load_recipe
from tests.distill.cases import write_recipe


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
    with pytest.raises(DataError, match="images of 3x8x8 and of 3x9x9; set size to"):
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


IMAGE = type("Image", (), {})()
CLASSES = type("ClassLabel", (), {"names": ["cat", "dog"]})()
VALUES = type("Value", (), {})()


def rows_of(column, rows):
    """Stands in for a part of a hub's set: pictures and classes by row."""

    class Rows(list):
        features = types.MappingProxyType({"picture": IMAGE, "label": column})

        def __getitem__(self, key):
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    return Rows({"picture": picture, "label": label} for picture, label in rows)


def gray(level):
    return Image.fromarray(np.full((6, 6), level, np.uint8))


def fake_hub(splits, column=CLASSES):
    """Stands in for the package `datasets`; parts are rows, or how many there are."""
    found = {
        name: rows_of(column, [(gray(9 * i), i % 2) for i in range(rows)])
        if isinstance(rows, int)
        else rows_of(column, rows)
        for name, rows in splits.items()
    }

    def load_dataset(name, config):
        if name == "no/such":
            raise FileNotFoundError("no such set\non the hub")
        return found

    return package(load_dataset)


def package(load_dataset, bars=False):
    """Stands in for `datasets` with such a function, where bars are shown or not."""
    shown = [bars]
    return types.SimpleNamespace(
        load_dataset=load_dataset,
        are_progress_bars_disabled=lambda: not shown[-1],
        disable_progress_bars=lambda: shown.append(False),
        enable_progress_bars=lambda: shown.append(True),
    )


def test_what_the_package_logs_and_shows_is_left_out(monkeypatch, capsys):
    def load_dataset(name, config):
        logging.getLogger("datasets.builder").error("Failed to read schema")
        shown.append(stub.are_progress_bars_disabled())
        raise FileNotFoundError("no such set")

    shown = []
    stub = package(load_dataset, bars=True)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    handler = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(logging.getLogger("datasets"), "handlers", [handler])
    with pytest.raises(DataError, match="FileNotFoundError: no such set"):
        load_data("hf:some/set")
    assert capsys.readouterr().err == ""
    assert (shown, stub.are_progress_bars_disabled()) == ([True], False)


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


@pytest.fixture
def hub(monkeypatch):
    """Put rows into the hub's parts and load them."""

    def load(splits, column=CLASSES, **options):
        monkeypatch.setitem(sys.modules, "datasets", fake_hub(splits, column))
        return load_data("hf:some/set", **options)

    return load


def labelled(labels):
    return [(gray(index % 250), label) for index, label in enumerate(labels)]


def test_a_hubs_test_part_without_classes_is_passed_over(hub):
    train, held = labelled([k % 2 for k in range(20)]), [(gray(251), 0), (gray(252), 1)]
    data = hub({"train": train, "validation": held, "test": [(gray(255), -1)] * 3})
    assert (len(data.train) + len(data.validation), len(data.test)) == (20, 2)
    assert data.notes == (
        "the part test has no classes and is passed over",
        "the part validation is the test part, as no other one has classes",
    )
    data = hub({"train": train, "test": [(gray(255), -1)] * 3, "unsupervised": train})
    assert data.notes[-1] == "splits passed over: unsupervised"
    assert (len(data.train) + len(data.validation), len(data.test)) == (16, 4)


def test_a_hubs_classes_may_be_texts(hub):
    train = labelled([["owl", "cat"][k % 2] for k in range(20)])
    data = hub({"train": train, "test": [(gray(255), "owl")]}, VALUES)
    assert data.class_names == ("cat", "owl")
    assert data.test.labels.tolist() == [1]
    with pytest.raises(DataError, match=r"row 0 of test has the label 'owls', .*did you mean owl"):
        hub({"train": train, "test": [(gray(255), "owls")]}, VALUES)


def test_a_hubs_numbers_begin_at_0(hub):
    with pytest.raises(DataError, match=r"column label: labels from 1 to 2 came, .*subtract 1"):
        hub({"train": labelled([1 + k % 2 for k in range(20)])}, VALUES)


def test_rows_without_class_or_picture_are_named_or_left_out(hub):
    rows = labelled([k % 2 for k in range(20)])
    torn = [(gray(3), None), *rows[1:]]
    with pytest.raises(DataError, match=r"1 of train without a class \(rows 0\); correct them, or"):
        hub({"train": torn})
    data = hub({"train": torn}, skip_damaged=True)
    assert len(data.train) + len(data.validation) + len(data.test) == 19
    assert data.notes == ("1 damaged left out: 1 of train without a class (rows 0)",)
    torn = [(None, 0), *rows[1:5], ({"bytes": b"x", "path": None}, 1), *rows[6:]]
    words = r"^2 of 20 pictures cannot be used: row 0 of train .*holds no picture\); row 5 of train"
    with pytest.raises(DataError, match=words):
        hub({"train": torn})
    assert hub({"train": torn}, skip_damaged=True).notes[0].startswith("2 damaged left out: row 0")


def test_a_hubs_gray_pictures_beside_colours_become_colours(hub):
    rows = labelled([k % 2 for k in range(20)])
    data = hub({"train": [*rows[:9], (gray(9).convert("RGB"), 1), *rows[10:]]})
    assert data.channels == 3


def test_sixteen_bits_of_a_hub_are_those_of_a_folder(hub, tmp_path):
    wide = Image.fromarray((np.mgrid[:6, :6][1] * 13107).astype(np.uint16))
    for part in ("train", "test", "validation"):
        (tmp_path / part / "cat").mkdir(parents=True)
        wide.save(tmp_path / part / "cat" / "1.png")
    content = {"bytes": (tmp_path / "test" / "cat" / "1.png").read_bytes(), "path": None}
    data = hub({"train": [(content, k % 2) for k in range(20)]})
    expected = load_data(f"folder:{tmp_path}").test.images[0]
    assert torch.equal(data.test.images[0], expected)
    assert expected[0, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_a_turned_photo_of_a_hub_is_upright(hub):
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    tag, stream = Image.Exif(), io.BytesIO()
    tag[0x0112] = 6
    Image.fromarray(photo).save(stream, "PNG", exif=tag)
    content = {"bytes": stream.getvalue(), "path": None}
    data = hub({"train": [(content, k % 2) for k in range(20)]})
    shown = (data.test.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(shown, np.rot90(photo, -1))


def test_a_torchvision_set_names_its_damaged_pictures(monkeypatch):
    import torchvision.datasets

    class Torn(Pictures):
        def __getitem__(self, index):
            if index in (2, 3) and self.count == 12:
                raise OSError("truncated")
            return super().__getitem__(index)

    monkeypatch.setattr(torchvision.datasets, "DTD", Torn)
    words = r"^2 of 12 pictures cannot be used: image 2 of 'torchvision:DTD' .*; image 3 of"
    with pytest.raises(DataError, match=words):
        load_data("torchvision:DTD", size=4)
    data = load_data("torchvision:DTD", size=4, skip_damaged=True)
    assert len(data.train) + len(data.validation) == 10
    assert data.notes[0].startswith("2 damaged left out: image 2 of")


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


@pytest.mark.parametrize("wanted", [[2, 10], ["2", "10"], ["2", 10]])
def test_a_number_is_a_name_where_classes_are_named_by_numbers(tmp_path, write_classes, wanted):
    root = write_classes(tmp_path / "photos", tuple(str(number) for number in range(12)), 3)
    assert load_data(f"folder:{root}", classes=wanted).class_names == ("2", "10")
    table = f"""[data]
source = "folder:{root}"
[experts]
network = "mlp"
[match]
ipc = 1
"""
    recipe = write_recipe(tmp_path / "recipes", table)
    for change in (f"data.classes={wanted}".replace("'", '"'), "data.classes=2,10"):
        assert check_data(load_recipe(str(recipe), [change])).class_names == ("2", "10")
    with pytest.raises(DataError, match="there is no class 12 among 12"):
        load_data(f"folder:{root}", classes=[2, 12])


def test_numbers_with_leading_zeros_are_numbers(tmp_path, write_classes):
    root = write_classes(tmp_path, ("001", "002", "010"), 3)
    assert load_data(f"folder:{root}", classes=[10, 2]).class_names == ("010", "002")
    with pytest.raises(DataError, match="there is no class 0 among 3"):
        load_data(f"folder:{root}", classes=[0, 1])


def test_a_number_as_text_is_the_place_of_a_named_class():
    assert load_data("digits", classes=["2", 7]).class_names == ("two", "seven")


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
