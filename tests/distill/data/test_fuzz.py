"""Damaged real data are refused in one line, in bounded time and memory."""

import gzip
import io
import struct
import zipfile
import zlib
from random import Random

import numpy as np
import pytest
from PIL import Image

from distill.data import DataError, load_data
from distill.data.sources.idx import read_idx
from tests.distill.fuzz_cases import Tally, damage


def cases(few, many):
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


def idx_bytes(random):
    values = bytes(random.randrange(256) for _ in range(2 * 5 * 5))
    raw = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 5, 5) + values
    return gzip.compress(raw) if random.random() < 0.5 else raw


@cases(80, 300)
def test_damaged_idx(count, tmp_path):
    tally, path = Tally(), tmp_path / "images-idx3-ubyte"
    for seed in range(count):
        random = Random(seed)
        path.write_bytes(damage(idx_bytes(random), random))
        tally.call(seed, lambda: read_idx(path, 3), DataError)
    tally.check()


def strange_arrays(random):
    """Arrays that numpy stores, and no data set is made of."""
    images = (np.arange(8 * 4 * 4) % 256).astype("u1").reshape(8, 4, 4)
    labels = np.arange(8) % 2
    odd = [
        np.array(3),
        np.array(["a", "b"]),
        np.zeros((0, 4, 4), "u1"),
        np.zeros((8, 4, 4), "c8"),
        np.zeros((8, 4, 4), [("a", "f4")]),
        np.full((8, 4, 4), np.nan, "f4"),
        np.full(8, 2**62),
        np.full(8, -1),
        np.zeros((8, 1), "i8"),
        np.zeros((8, 4, 4), "f2"),
        np.zeros(8, bool),
        np.zeros((8, 4, 4), ">i4"),
        np.zeros(8, "M8[s]"),
    ]
    arrays = {"images": images, "labels": labels, "class_names": np.array(["a", "b"])}
    arrays[random.choice(sorted(arrays))] = random.choice(odd)
    return arrays


def false_header(random):
    """An npy header that promises what it does not hold."""
    shape = random.choice(("(10**4,)", "(1000000, 1000000, 1000)", "(-1, 4)", "(2.5,)", "'x'"))
    kind = random.choice(("<f4", "|O", "|V1000000000", "<U100000000", "zz"))
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def npz_bytes(random):
    stream = io.BytesIO()
    if random.random() < 0.5:
        np.savez_compressed(stream, **strange_arrays(random))
        return stream.getvalue()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", false_header(random))
        archive.writestr(random.choice(("labels.npy", "../../labels.npy", "/labels")), b"x")
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
@cases(60, 300)
def test_damaged_npz(count, tmp_path):
    tally, path = Tally(), tmp_path / "data.npz"
    for seed in range(count):
        random = Random(seed)
        raw = npz_bytes(random)
        path.write_bytes(damage(raw, random) if seed % 3 == 0 else raw)
        tally.call(seed, lambda: load_data(f"npz:{path}"), DataError)
    tally.check()


def bomb(path, gigabytes):
    """An npz file of a few megabytes that unpacks to many gigabytes of zeros."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({gigabytes << 30},), }}\n".encode()
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            member.write(header)
            for _ in range(64):
                member.write(bytes(1 << 20))
        info = archive.getinfo("images.npy")
        # The directory's promise is what a reader believes; writing all of it takes too long.
        info.file_size = gigabytes << 30


def test_decompression_bomb_is_refused(tmp_path):
    bomb(tmp_path / "bomb.npz", 64)
    tally = Tally()
    with pytest.raises(DataError, match="a decompression bomb"):
        load_data(f"npz:{tmp_path / 'bomb.npz'}")
    tally.call(0, lambda: load_data(f"npz:{tmp_path / 'bomb.npz'}"), DataError)
    tally.check()


def picture(form, random):
    mode = random.choice(
        ("L", "RGB") if form in ("JPEG", "WEBP", "PGM") else ("L", "RGB", "P", "1")
    )
    pixels = np.random.default_rng(random.randrange(100)).integers(0, 256, (9, 9, 3), "u1")
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PPM" if form == "PGM" else form)
    return stream.getvalue()


@cases(60, 400)
def test_damaged_pictures(count, tmp_path):
    tally = Tally()
    forms = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PGM")
    for seed in range(count):
        random = Random(seed)
        form = forms[seed % len(forms)]
        for label in ("a", "b"):
            (tmp_path / label).mkdir(exist_ok=True)
            for index in range(3):
                (tmp_path / label / f"{index}.png").write_bytes(picture(form, random))
        path = tmp_path / "a" / "1.png"
        path.write_bytes(damage(path.read_bytes(), random))
        tally.call(seed, lambda: load_data(f"folder:{tmp_path}", size=8), DataError)
    tally.check()


def png_of(width, height):
    """A PNG of a few bytes whose header promises width x height pixels."""

    def chunk(name, body):
        sealed = name + body
        return struct.pack(">I", len(body)) + sealed + struct.pack(">I", zlib.crc32(sealed))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20), 9)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_picture_that_promises_terabytes_is_refused(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(png_of(1_000_000, 1_000_000))
    with pytest.raises(DataError, match="decompression bombs"):
        load_data(f"folder:{tmp_path}", size=8)


def test_content_that_starts_another_program_is_no_picture(tmp_path):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
        (tmp_path / label / "0.png").write_bytes(script)
    with pytest.raises(DataError, match="cannot identify image file"):
        load_data(f"folder:{tmp_path}", size=8)
