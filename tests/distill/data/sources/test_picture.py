"""One reader for all sources: a picture is read as it is shown, whichever way it comes."""

import io
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from distill.data import DataError
from distill.data.sources.picture import Picture, PictureError, picture_file

COLOURS = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3) * 5


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def values(pixels):
    return (pixels * 255).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_a_picture_is_turned_as_its_exif_says(form, options, orientation):
    tag = Image.Exif()
    tag[0x0112] = orientation
    content = encoded(Image.fromarray(COLOURS), form, exif=tag, **options)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    picture = Picture("x", lambda: content)
    np.testing.assert_array_equal(values(picture.read()), np.asarray(shown.convert("RGB")))
    assert picture.shape() == (shown.height, shown.width)


def test_a_turned_photo_is_turned_before_it_is_cut_and_made_smaller():
    photo = np.zeros((64, 96, 3), dtype=np.uint8)
    photo[:, :48] = 255
    tag = Image.Exif()
    tag[0x0112] = 6
    content = encoded(Image.fromarray(photo), "JPEG", exif=tag, quality=95)
    small = Picture("x", lambda: content).read(8)
    assert small[:, :3].min() > 0.9
    assert small[:, 5:].max() < 0.1


def test_damaged_exif_leaves_a_picture_as_it_is_stored():
    content = encoded(Image.fromarray(COLOURS), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00")
    np.testing.assert_array_equal(values(Picture("x", lambda: content).read()), COLOURS)


@pytest.mark.parametrize("way", ["file", "bytes", "image"])
def test_sixteen_bits_keep_their_range_whichever_way_they_come(tmp_path, way):
    wide = Image.fromarray((np.mgrid[:4, :4][1] * 21845).astype(np.uint16))
    content = encoded(wide, "PNG")
    (tmp_path / "wide.png").write_bytes(content)
    ways = {
        "file": picture_file(tmp_path / "wide.png"),
        "bytes": Picture("x", lambda: content),
        "image": Picture("x", lambda: Image.open(io.BytesIO(content))),
    }
    assert ways[way].read()[0, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_large_jpeg_is_decoded_at_the_size_that_is_needed(monkeypatch):
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(smooth).resize((1600, 1200), Image.Resampling.BICUBIC)
    content = encoded(photo, "JPEG", quality=95)
    picture = Picture("x", lambda: content)
    started = time.process_time()
    small = picture.read(16)
    fast = time.process_time() - started
    monkeypatch.setattr("distill.data.sources.picture._DRAFT", 1000)
    started = time.process_time()
    whole = picture.read(16)
    assert fast < 0.6 * (time.process_time() - started)
    # Half of a step of 8 bits on average, as any two decoders differ.
    assert (small - whole).abs().mean() < 0.5 / 255


def test_a_jpeg_of_little_more_pixels_is_decoded_whole(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG")
    small = Picture("x", lambda: content).read(32)
    monkeypatch.setattr("distill.data.sources.picture._DRAFT", 1000)
    assert torch.equal(small, Picture("x", lambda: content).read(32))


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000"])
def test_newer_formats_are_read(form):
    content = encoded(Image.new("RGB", (16, 16), (250, 10, 10)), form)
    assert Picture("x", lambda: content).read().mean(dim=(1, 2)).tolist() == pytest.approx(
        [0.98, 0.04, 0.04], abs=0.05
    )


def test_what_is_no_picture_is_named():
    with pytest.raises(PictureError, match=r"^row 3 cannot be read .*whole image is needed"):
        Picture("row 3", lambda: b"no picture").read()

    def absent():
        raise OSError("no such row")

    with pytest.raises(DataError, match=r"^row 4 cannot be read \(no such row\)"):
        Picture("row 4", absent).is_gray()
