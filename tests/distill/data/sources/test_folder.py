import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import DataError, SourceError, load_data

NAMES = ("[bold]cat [b", "ein Hund", "鳥")


def pixels(split):
    return {image.numpy().tobytes() for image in split.images}


def test_one_folder_per_class_gives_stratified_splits(tmp_path, write_classes):
    data = load_data(f"folder:{write_classes(tmp_path, NAMES, 10)}")
    assert data.class_names == NAMES
    assert (data.channels, data.size) == (1, (6, 6))
    for split, count in ((data.test, 2), (data.validation, 1), (data.train, 7)):
        assert torch.bincount(split.labels).tolist() == [count] * 3
    assert len(pixels(data.train) | pixels(data.validation) | pixels(data.test)) == 30


def test_pixels_and_labels_come_back_exactly(tmp_path, write_image):
    for part in ("train", "test", "validation"):
        for label, name in enumerate(("b", "a")):
            write_image(tmp_path / part / name / "1.png", "RGB", seed=label)
    data = load_data(f"folder:{tmp_path}")
    assert data.class_names == ("a", "b")
    for split in (data.train, data.validation, data.test):
        assert split.labels.tolist() == [0, 1]
        stored = np.asarray(Image.open(tmp_path / "train" / "a" / "1.png"))
        read = (split.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(read, stored)


def test_a_validation_folder_is_used_and_nothing_is_cut(tmp_path, write_classes):
    for part, count in (("train", 5), ("test", 2), ("validation", 3)):
        write_classes(tmp_path / part, ("a", "b"), count)
    data = load_data(f"folder:{tmp_path}")
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 6, 4)


def test_a_train_folder_alone_is_cut_into_three(tmp_path, write_classes):
    write_classes(tmp_path / "train", ("a", "b"), 10)
    data = load_data(f"folder:{tmp_path}")
    assert data.class_names == ("a", "b")
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)


def test_a_class_may_be_called_train(tmp_path, write_classes):
    write_classes(tmp_path, ("car", "train"), 5)
    assert load_data(f"folder:{tmp_path}").class_names == ("car", "train")


def test_images_stand_in_the_order_of_names(tmp_path, write_image):
    for part in ("train", "test", "validation"):
        for seed, name in ((2, "c.png"), (0, "a.png"), (1, "b.png")):
            write_image(tmp_path / part / "x" / name, seed=seed)
    first = load_data(f"folder:{tmp_path}").test.images
    for seed, image in enumerate(first):
        expected = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
        np.testing.assert_array_equal((image[0] * 255).round().byte().numpy(), expected)


def test_hidden_and_other_files_are_ignored(tmp_path, write_classes):
    plain = load_data(f"folder:{write_classes(tmp_path / 'plain', ('a', 'b'))}")
    root = write_classes(tmp_path / "full", ("a", "b"))
    (root / ".cache" / "deep").mkdir(parents=True)
    (root / "a" / ".hidden.png").write_bytes(b"no image")
    (root / "a" / "notes.txt").write_text("no image")
    (root / "a" / "folder.png").mkdir()
    (root / "LICENSE").write_text("no image")
    assert load_data(f"folder:{root}").digest == plain.digest


def test_class_folders_and_images_may_be_links(tmp_path, write_classes):
    store = write_classes(tmp_path / "store", ("one", "two"))
    root = tmp_path / "links"
    root.mkdir()
    (root / "one").symlink_to(store / "one", target_is_directory=True)
    (root / "two").mkdir()
    for image in (store / "two").iterdir():
        (root / "two" / image.name).symlink_to(image)
    assert load_data(f"folder:{root}").digest == load_data(f"folder:{store}").digest


def test_a_broken_link_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path, ("a", "b"))
    (root / "a" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"lost.png' cannot be read .*No such file"):
        load_data(f"folder:{root}")


def test_one_colour_image_makes_all_colour(tmp_path, write_classes, write_image):
    root = write_classes(tmp_path, ("a", "b"))
    write_image(root / "b" / "colour.png", "RGB")
    assert load_data(f"folder:{root}").channels == 3
    assert load_data(f"folder:{root}", channels=1).channels == 1


def test_size_resizes_images_that_differ(tmp_path, write_classes, write_image):
    root = write_classes(tmp_path, ("a", "b"))
    write_image(root / "b" / "wide.jpg", size=(40, 12))
    data = load_data(f"folder:{root}", size=8)
    assert data.size == (8, 8)
    assert data.train.images.min() >= 0
    assert data.train.images.max() <= 1


def test_images_that_differ_need_size(tmp_path, write_classes, write_image):
    root = write_classes(tmp_path, ("a", "b"))
    write_image(root / "b" / "large.png", size=(9, 9))
    with pytest.raises(DataError, match=r"large.png' is 9x9 pixels but .* is 6x6.*set size"):
        load_data(f"folder:{root}")


def test_images_that_are_not_square_need_size(tmp_path, write_image):
    for index in range(4):
        write_image(tmp_path / "a" / f"{index}.png", size=(9, 5))
    with pytest.raises(DataError, match=r"0.png' is 9x5 pixels and not square.*set size"):
        load_data(f"folder:{tmp_path}")


def stored(tmp_path, image, name="1.png"):
    """The first test image of a data set of copies of one image."""
    for part in ("train", "test", "validation"):
        path = tmp_path / part / "a" / name
        path.parent.mkdir(parents=True)
        image.save(path)
    return load_data(f"folder:{tmp_path}").test.images[0]


def test_sixteen_bit_gray_keeps_its_range(tmp_path):
    wide = np.array([[0, 13107], [39321, 65535]], dtype=np.uint16)
    image = stored(tmp_path, Image.fromarray(wide))
    assert image.flatten().tolist() == pytest.approx([0, 0.2, 0.6, 1])


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("RGBA", 3), ("P", 3)])
def test_white_is_one_in_every_mode(tmp_path, mode, channels):
    white = Image.new("RGB", (3, 3), "white").convert(mode)
    assert torch.equal(stored(tmp_path, white), torch.ones(channels, 3, 3))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    image = Image.new("P", (3, 3))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.info["transparency"] = b"\x00\xff"
    assert stored(tmp_path, image)[:, 0, 0].tolist() == [1, 0, 0]


def test_a_cmyk_jpeg_is_read_as_colours(tmp_path):
    assert stored(tmp_path, Image.new("CMYK", (8, 8)), "1.jpg").shape == (3, 8, 8)


def test_floating_images_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"1.tif' has Pillow mode 'F' whose value range is unknown"):
        stored(tmp_path, Image.new("F", (3, 3)), "1.tif")


@pytest.mark.parametrize("keep", [0, 10, 40, 300])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named(tmp_path, write_image, suffix, keep):
    for index in range(4):
        path = write_image(tmp_path / "a" / f"{index} [red].{suffix}", "RGB", size=(32, 32))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"3 \[red\].{suffix}' cannot be read .*whole image"):
        load_data(f"folder:{tmp_path}")


def test_a_text_file_with_an_image_name_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path, ("a", "b"))
    (root / "b" / "fake.JPG").write_text("not an image")
    with pytest.raises(DataError, match=r"fake.JPG' cannot be read"):
        load_data(f"folder:{root}")


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_decompression_bomb_is_refused(tmp_path, write_classes, side):
    # 10,000 squared is where Pillow only warns, 100,000 squared where it stops by itself.
    root = write_classes(tmp_path, ("a", "b"))
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(100))
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, body)
    ]
    (root / "a" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"bomb.png' has more pixels than Pillow's limit"):
            load_data(f"folder:{root}", size=4)


def test_a_class_without_images_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path, ("a", "b"))
    (root / "leer").mkdir()
    with pytest.raises(DataError, match="class 'leer' has no training images"):
        load_data(f"folder:{root}")


def test_a_test_class_without_training_folder_is_named(tmp_path, write_classes):
    write_classes(tmp_path / "train", ("a", "b"))
    write_classes(tmp_path / "test", ("a", "z"))
    with pytest.raises(DataError, match="test' holds class 'z', which has no training folder"):
        load_data(f"folder:{tmp_path}")


def test_an_unknown_folder_beside_train_is_named(tmp_path, write_classes):
    for part in ("train", "val"):
        write_classes(tmp_path / part, ("a", "b"))
    with pytest.raises(DataError, match="holds 'val' beside 'train', only train, test and"):
        load_data(f"folder:{tmp_path}")


def test_missing_and_empty_folders_are_refused(tmp_path, write_image):
    with pytest.raises(DataError, match="none' is no folder, one folder per class is needed"):
        load_data(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="holds no folders, one folder per class is needed"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no images in its class folders"):
        load_data(f"folder:{tmp_path}")
    with pytest.raises(SourceError, match="source 'folder' lacks a path; write it as folder:PATH"):
        load_data("folder")


def test_a_home_folder_is_expanded(tmp_path, write_classes, monkeypatch):
    write_classes(tmp_path / "clothes", ("a", "b"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_data("folder:~/clothes").source == "folder:~/clothes"
    with pytest.raises(SourceError, match="no home folder for '~' is known"):
        load_data("folder:~nobody-of-this-name/clothes")
