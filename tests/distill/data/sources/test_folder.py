import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from distill.data import DataError, SourceError, load_data
from distill.data.sources import listing
from distill.data.sources.picture import picture_file

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
    for part in ("train", "extra"):
        write_classes(tmp_path / part, ("a", "b"))
    with pytest.raises(DataError, match="holds 'extra' beside 'train', only train, test, valid"):
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


def test_a_folder_of_turned_photos_is_the_folder_of_upright_ones(tmp_path):
    rng = np.random.default_rng(0)
    tag = Image.Exif()
    tag[0x0112] = 6
    for name in ("a", "b"):
        for kind in ("phone", "upright"):
            (tmp_path / kind / name).mkdir(parents=True)
        for index in range(4):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            turned = tmp_path / "phone" / name / f"{index}.jpg"
            image.save(turned, **({"exif": tag} if index % 2 else {}))
            upright = ImageOps.exif_transpose(Image.open(turned))
            upright.save(tmp_path / "upright" / name / f"{index}.png")
    phone, upright = (load_data(f"folder:{tmp_path / kind}") for kind in ("phone", "upright"))
    assert phone.digest == upright.digest


def damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_all_damaged_images_are_named_at_once(tmp_path, write_classes):
    root = write_classes(tmp_path, ("a", "b"))
    damage(root / "a" / "003.png")
    (root / "b" / "004.png").write_bytes(b"")
    (root / "b" / "005.png").write_text("no image")
    words = r"^3 of 20 pictures cannot be used: .*a/003.png' .*b/004.png' .*b/005.png' .*skip_dam"
    for size in (None, 4):
        with pytest.raises(DataError, match=words) as caught:
            load_data(f"folder:{root}", size=size)
        assert "\n" not in str(caught.value)


def test_damaged_images_are_left_out_where_that_is_asked_for(tmp_path, write_classes):
    whole = write_classes(tmp_path / "whole", ("a", "b"))
    root = write_classes(tmp_path / "damaged", ("a", "b"))
    damage(root / "a" / "003.png")
    (root / "b" / "004.png").write_bytes(b"")
    (whole / "a" / "003.png").unlink()
    (whole / "b" / "004.png").unlink()
    data = load_data(f"folder:{root}", skip_damaged=True)
    assert data.digest == load_data(f"folder:{whole}").digest
    [note] = data.notes
    assert note.startswith("2 damaged left out: ")
    assert "a/003.png" in note
    assert "b/004.png" in note


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "avif", "jp2", ""])
def test_rarer_suffixes_are_read(tmp_path, write_classes, suffix):
    root = write_classes(tmp_path, ("a", "b"), 4)
    form = {"avif": "AVIF", "jp2": "JPEG2000"}.get(suffix, "JPEG")
    for index in range(6):
        name = f"w{index}" + (f".{suffix}" if suffix else "")
        Image.new("L", (6, 6), 40 * index).save(root / "a" / name, form)
    data = load_data(f"folder:{root}", size=6)
    assert len(data.train) + len(data.validation) + len(data.test) == 14


def test_a_name_of_a_folder_that_is_nearly_right_is_corrected(tmp_path, write_classes):
    write_classes(tmp_path / "photos", ("a", "b"))
    with pytest.raises(DataError, match=r"fotos' is no folder.*did you mean '.*/photos'\?"):
        load_data(f"folder:{tmp_path / 'fotos'}")
    with pytest.raises(DataError, match="is no folder, one folder per class is needed; correct it"):
        load_data(f"folder:{tmp_path / 'nowhere' / 'cats'}")


def test_heic_pictures_are_read_as_they_are_shown(tmp_path, write_classes):
    heif = pytest.importorskip("pillow_heif")
    root = write_classes(tmp_path, ("a", "b"), 4, "RGB")
    picture = Image.new("RGB", (32, 16), (200, 30, 30))
    picture.paste((20, 30, 200), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    for index, name in enumerate(("w0.heic", "w1.HEIC", "w2.heif", "w3")):
        file = heif.from_pillow(picture)
        file.save(root / "a" / name, exif=exif.tobytes() if index == 0 else None, quality=100)
    data = load_data(f"folder:{root}", size=16)
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert len(data.train) + len(data.validation) + len(data.test) == 12
    assert not any("passed over" in note for note in data.notes)
    turned = picture_file(root / "a" / "w0.heic")
    assert turned.shape() == (32, 16)
    pixels = turned.read()
    assert pixels.shape == (3, 32, 16)
    top, bottom = pixels[:, 4, 8], pixels[:, 28, 8]
    torch.testing.assert_close(top, torch.tensor([20, 30, 200]) / 255, atol=0.03, rtol=0)
    torch.testing.assert_close(bottom, torch.tensor([200, 30, 30]) / 255, atol=0.03, rtol=0)


def test_a_damaged_heic_picture_is_named(tmp_path, write_classes):
    heif = pytest.importorskip("pillow_heif")
    root = write_classes(tmp_path, ("a", "b"))
    heif.from_pillow(Image.new("RGB", (32, 32))).save(root / "a" / "half.heic")
    content = (root / "a" / "half.heic").read_bytes()
    (root / "a" / "half.heic").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"half\.heic'.* cannot be read"):
        load_data(f"folder:{root}")


def test_a_folder_of_heic_pictures_alone_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "reads_heif", lambda: False)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "IMG_0001.HEIC").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"HEIC pictures among them: 2; pip install 'limbeck\[heic\]'"
    ):
        load_data(f"folder:{tmp_path}")


def test_files_that_are_passed_over_are_counted_and_said(tmp_path, write_classes, monkeypatch):
    monkeypatch.setattr(listing, "reads_heif", lambda: False)
    root = write_classes(tmp_path, ("a", "b"))
    for index in range(3):
        (root / "a" / f"{index}.HEIC").write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("x")
    (root / "b" / "copy.bak").write_bytes((root / "b" / "000.png").read_bytes())
    (root / "b" / "README").write_text("x")
    (root / "beside.png").write_bytes(b"x")
    [note] = load_data(f"folder:{root}").notes
    assert note == (
        "20 pictures are read; files passed over: 1 without suffix, 1 .bak, 3 .heic, 1 .txt, "
        "1 pictures beside the class folders; HEIC pictures among them: 3; pip install "
        "'limbeck[heic]'; 1 of them hold pictures: give them the suffix of their kind; sort those "
        "into class folders"
    )


def test_many_kinds_of_files_and_odd_names_make_a_short_printable_note(tmp_path, write_classes):
    root = write_classes(tmp_path, ("a", "b"))
    for index in range(300):
        (root / "a" / f"x.{index}").write_text("x")
    for name in ("x.\x1b]0;title\x07", "y.\x1b]0;title\x07"):
        (root / "b" / name).write_text("x")
    (root / "__MACOSX").mkdir()
    [note] = load_data(f"folder:{root}").notes
    assert len(note) < 200
    assert note.isprintable()
    assert "2 '.\\x1b]0;title\\x07'" in note
    assert note.endswith("293 others")


def test_images_in_folders_below_a_class_are_read(tmp_path, write_image):
    for index in range(4):
        write_image(tmp_path / "a" / "2024" / f"{index}.png", seed=index)
        write_image(tmp_path / "b" / f"{index}.png", seed=9 + index)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    data = load_data(f"folder:{tmp_path}")
    assert len(data.train) + len(data.validation) + len(data.test) == 8


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_validation_folder_is_the_test_part_where_there_is_no_other(
    tmp_path, write_classes, name
):
    for part, count in (("train", 10), (name, 4)):
        write_classes(tmp_path / part, ("a", "b"), count)
    data = load_data(f"folder:{tmp_path}")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 8)
    assert data.notes[0] == f"the part {name} is the test part, as no other one has classes"


def test_two_validation_folders_are_refused(tmp_path, write_classes):
    for part in ("train", "val", "validation"):
        write_classes(tmp_path / part, ("a", "b"))
    with pytest.raises(DataError, match="val and validation came, one validation part"):
        load_data(f"folder:{tmp_path}")


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path, write_image):
    root, classes = tmp_path / "tiny-imagenet-200", ("n01443537", "n01629819")
    lines = []
    for label, name in enumerate(classes):
        for index in range(6):
            folder = root / "train" / name / "images"
            write_image(folder / f"{name}_{index}.JPEG", "RGB", seed=10 * label + index)
        (root / "train" / name / f"{name}_boxes.txt").write_text("x")
        for index in range(2):
            file = f"val_{2 * index + label}.JPEG"
            write_image(root / "val" / "images" / file, "RGB", seed=50 + 2 * index + label)
            lines.append(f"{file}\t{name}\t0\t0\t5\t5\n")
    write_image(root / "test" / "images" / "test_0.JPEG", "RGB")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(classes))
    data = load_data(f"folder:{root}")
    assert data.class_names == classes
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 2, 4)
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    assert data.notes == (
        "the part test has no classes and is passed over",
        "the part val is the test part, as no other one has classes",
        "16 pictures are read; files passed over: 2 .txt",
    )
    (root / "val" / "val_annotations.txt").write_text(lines[0] + "val_1.JPEG\tn0\n")
    with pytest.raises(DataError, match=r"has the line 'val_1.JPEG n0', a file and a class"):
        load_data(f"folder:{root}")


def test_copies_of_training_images_among_test_images_are_said(tmp_path, write_classes):
    root = write_classes(tmp_path, ("a", "b"))
    assert load_data(f"folder:{root}").notes == ()
    for image in sorted(root.glob("*/*.png"))[::3]:
        image.with_name(f"{image.stem}_copy.png").write_bytes(image.read_bytes())
    data = load_data(f"folder:{root}")
    used = (*data.train.images, *data.validation.images)
    seen = {image.numpy().tobytes() for image in used}
    copies = sum(image.numpy().tobytes() in seen for image in data.test.images)
    assert 0 < copies < len(data.test)
    [note] = data.notes
    assert note.startswith(f"{copies} of {len(data.test)} test images")
    assert "accuracies are too high; remove the copies" in note


def test_uneven_classes_are_said(tmp_path, write_classes):
    write_classes(tmp_path, ("large", "small"), 40)
    for index in range(10, 40):
        (tmp_path / "small" / f"{index:03}.png").unlink()
    [note] = load_data(f"folder:{tmp_path}").notes
    assert note == (
        "classes are uneven: 'large' has 29 training images, 'small' has 7; always naming the "
        "largest is right for 80.6% of them"
    )
