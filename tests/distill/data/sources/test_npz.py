import numpy as np
import pytest
import torch

from distill.data import DataError, SourceError, load_data

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (40, 6, 6), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "data [x] é.npz"
        np.savez_compressed(path, **arrays)
        return f"npz:{path}"

    return write


def test_images_and_labels_are_cut_into_three(save):
    data = load_data(save(images=BYTES, labels=LABELS))
    assert data.class_names == ("0", "1", "2", "3")
    assert (data.channels, data.size) == (1, (6, 6))
    for split, count in ((data.test, 2), (data.validation, 1), (data.train, 7)):
        assert torch.bincount(split.labels).tolist() == [count] * 4
    stored = {tuple(image.ravel()): label for image, label in zip(BYTES, LABELS, strict=True)}
    for split in (data.train, data.validation, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert stored.pop(tuple((image * 255).round().byte().flatten().tolist())) == label
    assert not stored


def test_a_stored_test_part_is_kept_as_it_is(save):
    data = load_data(save(x_train=BYTES, y_train=LABELS, x_test=BYTES[:8], y_test=LABELS[:8]))
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 8)
    np.testing.assert_array_equal((data.test.images * 255).round().byte()[:, 0], BYTES[:8])
    assert data.test.labels.tolist() == LABELS[:8].tolist()


def test_all_layouts_and_types_read_the_same(save):
    colours = RNG.integers(0, 256, (40, 6, 7, 3), dtype=np.uint8)
    last = load_data(save(images=colours, labels=LABELS))
    first = load_data(save(images=colours.transpose(0, 3, 1, 2), labels=LABELS.astype(np.uint8)))
    floats = load_data(save(images=colours.astype(np.float32) / 255, labels=LABELS))
    assert (last.channels, last.size) == (3, (6, 7))
    assert last.digest == first.digest == floats.digest


def test_gray_layouts_read_the_same(save):
    digests = {
        load_data(save(images=images, labels=LABELS)).digest
        for images in (BYTES, BYTES[..., None], BYTES[:, None], np.asfortranarray(BYTES))
    }
    assert len(digests) == 1


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floats_are_read(save, dtype):
    images = (BYTES / 256).astype(dtype)
    data = load_data(save(images=images, labels=LABELS.astype(">i2")))
    assert data.train.images.dtype == torch.float32


def test_class_names_are_read(save):
    names = ("[bold]cat[/bold]", "ein Hund", "鳥", "x")
    data = load_data(save(images=BYTES, labels=LABELS, class_names=np.array(names), ids=LABELS))
    assert data.class_names == names
    assert data.notes == ("arrays passed over: ids",)


FAULTS = [
    ({"images": BYTES}, r"holds the arrays \['images'\], but images and labels, or x_train"),
    ({"x_train": BYTES, "y_train": LABELS}, "x_test, y_test are needed"),
    (
        {"images": BYTES, "x_train": BYTES, "y_train": LABELS, "x_test": BYTES, "y_test": LABELS},
        "x_train and y_train beside images and labels, one form is needed",
    ),
    ({"images": BYTES, "labels": LABELS / 2}, "labels: float64 came, integers"),
    ({"images": BYTES, "labels": np.eye(4, dtype=int)[LABELS]}, r"\(40, 4\) came, .*argmax"),
    ({"images": BYTES, "labels": LABELS[:-1]}, "labels: 39 labels came with 40 images"),
    ({"images": BYTES, "labels": LABELS - 1}, "label -1 is out of range"),
    ({"images": BYTES, "labels": LABELS * 10**15}, "labels from 0 to 3000000000000000 came"),
    ({"images": BYTES, "labels": LABELS * 2}, "from 0 to 6 came without 1, .*without gaps"),
    ({"images": BYTES.astype(np.int64), "labels": LABELS}, "images: int64 came, uint8 or floats"),
    ({"images": BYTES.astype(np.float32), "labels": LABELS}, r"images: pixels from 0 to 255 came"),
    ({"images": BYTES / np.nan, "labels": LABELS}, "images: 1440 of 1440 pixels are NaN"),
    ({"images": np.full((40, 2, 2), 1e300), "labels": LABELS}, "160 of 160 pixels are NaN or inf"),
    ({"images": BYTES[:0], "labels": LABELS[:0]}, r"images: empty \(shape \(0, 1, 6, 6\)\)"),
    ({"images": BYTES.reshape(40, 36), "labels": LABELS}, r"images: shape \(40, 36\) came"),
    ({"images": BYTES.reshape(40, 2, 2, 9), "labels": LABELS}, r"shape \(40, 2, 2, 9\) came"),
    ({"images": BYTES.reshape(40, 3, 4, 3), "labels": LABELS}, r"can be \[n, c, h, w\] or"),
    (
        {"images": BYTES, "labels": LABELS, "class_names": np.array(["a", "b"])},
        "label 2 is out of range, 0 to 1",
    ),
    (
        {"images": BYTES, "labels": LABELS, "class_names": np.arange(4)},
        r"class_names: int64 of shape \(4,\) came",
    ),
    (
        {"images": BYTES, "labels": LABELS, "class_names": np.array(["a", "b", "c", "a"])},
        "class name 'a' stands twice",
    ),
]


@pytest.mark.parametrize(("arrays", "message"), FAULTS)
def test_faulty_arrays_are_refused(save, arrays, message):
    with np.errstate(all="ignore"), pytest.raises(DataError, match=message) as caught:
        load_data(save(**arrays))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels"),
    [("X", "y"), ("x", "y"), ("data", "target"), ("data", "labels"), ("arr_0", "arr_1")],
)
def test_usual_names_of_arrays_are_read(save, images, labels):
    plain = load_data(save(images=BYTES, labels=LABELS)).digest
    assert load_data(save(**{images: BYTES, labels: LABELS[:, None]})).digest == plain


def test_the_arrays_of_medmnist_are_read(save):
    arrays = {
        f"{part}_{kind}": array[start:stop]
        for part, start, stop in (("train", 0, 20), ("val", 20, 28), ("test", 28, 40))
        for kind, array in (("images", BYTES), ("labels", LABELS[:, None]))
    }
    data = load_data(save(**arrays))
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 8, 12)
    assert data.test.labels.tolist() == LABELS[28:].tolist()
    assert data.notes == ()
    without = {name: array for name, array in arrays.items() if "test" not in name}
    data = load_data(save(**without))
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 8)
    assert data.notes[0] == "the part validation is the test part, as no other one has classes"


def test_labels_from_one_are_refused_with_what_to_do(save):
    with pytest.raises(DataError, match=r"^labels: labels from 1 to 4 came, .*subtract 1, or name"):
        load_data(save(images=BYTES, labels=LABELS + 1))


def test_a_web_page_in_place_of_a_file_is_said(tmp_path):
    (tmp_path / "page.npz").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"it begins with b'<html>404</html>'.*fetch it") as caught:
        load_data(f"npz:{tmp_path / 'page.npz'}")
    assert "pickle" not in str(caught.value)


def test_splits_of_other_shapes_are_refused(save):
    source = save(x_train=BYTES, y_train=LABELS, x_test=BYTES[:, :5], y_test=LABELS)
    with pytest.raises(DataError, match="test images are 1x5x6, but train images are 1x6x6"):
        load_data(source)
    assert load_data(source, size=4).size == (4, 4)


def test_pickled_objects_are_refused(save):
    with pytest.raises(DataError, match=r"cannot be read .*Object arrays .*plain arrays is needed"):
        load_data(save(images=np.array([{}, {}], dtype=object), labels=LABELS))
    with pytest.raises(DataError) as caught:
        load_data(save(images=np.array([{}, {}], dtype=object), labels=LABELS))
    assert "allow_pickle" not in str(caught.value)


def test_files_that_are_no_npz_are_refused(tmp_path, save):
    whole = tmp_path / save(images=BYTES, labels=LABELS).partition(":")[2]
    for name, content in {
        "text.npz": b"not an archive",
        "empty.npz": b"",
        "cut.npz": whole.read_bytes()[:-300],
        "head.npz": b"PK\x03\x04",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}' cannot be read"):
            load_data(f"npz:{tmp_path / name}")
    np.save(tmp_path / "single.npy", BYTES)
    with pytest.raises(DataError, match=r"single.npy' is a single array"):
        load_data(f"npz:{tmp_path / 'single.npy'}")
    with pytest.raises(DataError, match=r"none.npz' cannot be read .*No such file"):
        load_data(f"npz:{tmp_path / 'none.npz'}")
    with pytest.raises(SourceError, match="source 'npz:' lacks a path; write it as npz:PATH"):
        load_data("npz:")


def test_damaged_members_are_refused(tmp_path, save):
    path = tmp_path / save(images=BYTES, labels=LABELS).partition(":")[2]
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read"):
        load_data(f"npz:{path}")


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path):
    path = tmp_path / "lying.npz"
    np.savez(path, images=BYTES, labels=LABELS)
    content = path.read_bytes()
    # The padding of the header takes the longer shape; the checksum is only compared at the end.
    lying = content.replace(b"(40, 6, 6), }    ", b"(40, 666666, 6), ", 1).replace(
        b"666666, 6), ", b"66666, 6), }", 1
    )
    assert lying != content
    path.write_bytes(lying)
    with pytest.raises(DataError, match=r"cannot be read"):
        load_data(f"npz:{path}")
