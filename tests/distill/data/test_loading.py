import numpy as np
import pytest
import torch

from distill.data import DataError, SourceError, load_data
from distill.data.sources.fashion import DEBIAN_FOLDER
from distill.names import DATA, resolve

CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat")


def pixels(split):
    return {image.numpy().tobytes() for image in split.images}


def test_every_source_has_a_reader_with_a_docstring():
    assert list(DATA) == [
        "digits",
        "fashion-mnist",
        "glyphs",
        "folder",
        "npz",
        "torchvision",
        "hf",
        "packed",
    ]
    assert all(resolve(entry).__doc__ for entry in DATA.values())


def test_digits_have_the_last_third_as_test():
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert (data.channels, data.size, data.classes) == (1, (8, 8), 10)
    assert (len(data.train), len(data.validation), len(data.test)) == (1080, 120, 597)
    assert data.class_names[::9] == ("zero", "nine")
    bunch = load_digits()
    np.testing.assert_array_equal(data.test.images[:, 0] * 16, bunch.images[-597:])
    assert data.test.labels.tolist() == bunch.target[-597:].tolist()


def test_splits_are_disjoint():
    data = load_data("digits")
    splits = [pixels(split) for split in (data.train, data.validation, data.test)]
    assert len(set.union(*splits)) == sum(len(split) for split in splits)


def test_loading_twice_gives_the_same_digest_whatever_the_global_seed():
    torch.manual_seed(1)
    first = load_data("digits", subset=100)
    torch.manual_seed(2)
    assert load_data("digits", subset=100).digest == first.digest


def test_validation_is_stratified_and_follows_its_fraction():
    data = load_data("digits", validation=0.25)
    whole = torch.bincount(torch.cat([data.train.labels, data.validation.labels]))
    held_out = torch.bincount(data.validation.labels)
    assert held_out.tolist() == [round(count * 0.25) for count in whole.tolist()]


def test_subset_leaves_validation_and_test_as_they_are():
    whole, subset = load_data("digits"), load_data("digits", subset=50)
    assert torch.bincount(subset.train.labels).tolist() == [5] * 10
    assert pixels(subset.train) < pixels(whole.train)
    assert torch.equal(subset.validation.images, whole.validation.images)
    assert torch.equal(subset.test.images, whole.test.images)
    assert subset.digest != whole.digest


def test_size_and_channels_change_every_split():
    data = load_data("digits", size=12, channels=3, subset=20)
    for split in (data.train, data.validation, data.test):
        assert split.images.shape[1:] == (3, 12, 12)
        assert torch.equal(split.images[:, 0], split.images[:, 2])
        assert split.images.min() >= 0
        assert split.images.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0 came, at least 1 pixel"),
        ({"channels": 2}, "channels=2 came, 1 .*or 3"),
        ({"subset": 9}, "subset=9 came, but 10 classes need"),
        ({"subset": -1}, "subset=-1 came"),
        ({"validation": 0.0}, "validation=0.0 came, a fraction above 0"),
        ({"validation": 1.0}, "validation=1.0 came"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        load_data("digits", **options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "source 'digit' is unknown, .*did you mean 'digits'"),
        ("Folder:/x", "did you mean 'folder'"),
        ("fashion_mnist", "did you mean 'fashion-mnist'"),
        (
            "",
            "source '' is unknown, one of digits, fashion-mnist, glyphs, folder, npz, "
            "torchvision, hf, packed is needed; write",
        ),
        ("[red]\nzzz", r"source '\[red\]\\nzzz' is unknown"),
        ("digits:8", "source 'digits:8' takes no path; write it as digits"),
    ],
)
def test_unknown_sources_are_refused(source, message):
    with pytest.raises(SourceError, match=message) as caught:
        load_data(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_idx_files_is_read(tmp_path, write_clothes, suffix):
    data = load_data(f"fashion-mnist:{write_clothes(tmp_path / 'my [x] é', suffix)}")
    assert (data.channels, data.size, data.classes) == (1, (6, 6), 10)
    assert data.class_names[:5] == CLOTHES
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 20)
    assert (data.test.images[0, 0, 0] * 255).round().tolist() == [0, 1, 2, 3, 4, 5]


def test_plain_and_gzipped_files_give_one_digest(tmp_path, write_clothes):
    digests = {
        load_data(f"fashion-mnist:{write_clothes(tmp_path / name, suffix)}").digest
        for name, suffix in (("plain", ""), ("packed", ".gz"))
    }
    assert len(digests) == 1


def test_a_missing_idx_file_is_named_with_the_remedy(tmp_path, write_clothes):
    folder = write_clothes(tmp_path)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        DataError, match=r"no t10k-labels-idx1-ubyte .*`dataset-fashion-mnist` .*fashion-mnist:PATH"
    ):
        load_data(f"fashion-mnist:{folder}")


def test_swapped_idx_files_are_refused(tmp_path, write_clothes):
    folder = write_clothes(tmp_path)
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    images.rename(folder / "x")
    labels.rename(images)
    (folder / "x").rename(labels)
    with pytest.raises(DataError, match="are the image and label files swapped"):
        load_data(f"fashion-mnist:{folder}")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(39, dtype=np.uint8) % 10, "39 labels came with 40 images"),
        (np.arange(40, dtype=np.uint8) % 11, "label 10 is out of range, 0 to 9"),
        (np.arange(40, dtype=np.uint8) % 9, "class 'ankle boot' has no training images"),
    ],
)
def test_idx_labels_that_do_not_fit_are_refused(
    tmp_path, write_clothes, write_idx, labels, message
):
    folder = write_clothes(tmp_path)
    write_idx(folder / "train-labels-idx1-ubyte", labels)
    with pytest.raises(DataError, match=message):
        load_data(f"fashion-mnist:{folder}")


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
def test_the_real_fashion_mnist_is_read():
    data = load_data("fashion-mnist", subset=1000)
    assert (data.channels, data.size, data.classes) == (1, (28, 28), 10)
    assert (len(data.train), len(data.validation), len(data.test)) == (1000, 6000, 10_000)
    for split, count in ((data.train, 100), (data.validation, 600), (data.test, 1000)):
        assert torch.bincount(split.labels).tolist() == [count] * 10
    # The mean that every Fashion-MNIST tutorial normalises with is 0.2860.
    assert data.validation.images.mean().item() == pytest.approx(0.286, abs=0.005)


def test_path_without_the_name_of_a_source_is_recognised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "small.npz").touch()
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "packed.json").touch()
    for source, meant in (("small", "folder"), ("small.npz", "npz"), ("pack", "packed")):
        with pytest.raises(SourceError, match=rf"did you mean {meant}:{source}\?$"):
            load_data(source)
