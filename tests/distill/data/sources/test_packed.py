import contextlib
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from distill.data import DataError, Split, load_data
from distill.data.loading import load_splits
from distill.data.source_splits import SourceSplits
from distill.data.sources.packed import pack_data, verify_packed
from distill.errors import WorkError
from distill.store import packed
from distill.store.packed import PackedImages, read_index
from distill.store.seals import sealed, unsealed
from tests.distill.cases import CountingStop, contents, listen_with

SPLITS = ("train", "validation", "test")


@pytest.fixture
def small_shards(monkeypatch):
    """Some images in each shard, and few shards open at once."""
    monkeypatch.setattr(packed, "SHARD_BYTES", 2000)
    monkeypatch.setattr(packed, "_MAX_OPEN_SHARDS", 2)
    monkeypatch.setattr("distill.data.sources.packed._BATCH_BYTES", 4000)


def pack(source, folder, **options):
    return pack_data(load_splits(source, **options), source, folder)


@pytest.fixture
def photos(tmp_path, write_classes):
    return write_classes(tmp_path / "photos", ("a", "b", "c"), 40, mode="RGB")


def same(one, other):
    for name in SPLITS:
        a, b = getattr(one, name), getattr(other, name)
        assert torch.equal(a.images, torch.cat(list(b.images.split(7))))
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("source", ["digits", "folder"])
def test_packed_data_are_the_data(tmp_path, photos, small_shards, source):
    # Pixels of digits are sixteenths, which bytes cannot say; photos are bytes.
    name, options = (
        (source, {}) if source == "digits" else (f"folder:{photos}", {"validation": 0.3})
    )
    whole = load_data(name, **options)
    index = pack(name, tmp_path / "packed", **options)
    read = load_data(f"packed:{tmp_path / 'packed'}")
    assert index.digest == read.digest == whole.digest
    assert read.class_names == whole.class_names
    assert len(index.shards["train"]) >= 3
    assert not isinstance(read.train.images, torch.Tensor)
    same(whole, read)
    with h5py.File(tmp_path / "packed" / "train-0000.h5") as file:
        assert file["images"].dtype == (np.float32 if source == "digits" else np.uint8)


def test_any_choice_of_packed_images_is_read(tmp_path, photos, small_shards):
    pack(f"folder:{photos}", tmp_path / "packed")
    whole, images = load_data(f"folder:{photos}").train.images, _train(tmp_path / "packed")
    assert images.shape == whole.shape
    generator = torch.Generator().manual_seed(0)
    for count in (0, 1, 9, len(whole)):
        places = torch.randint(len(whole), (count,), generator=generator)
        assert torch.equal(images[places], whole[places])
    assert torch.equal(images[3:17], whole[3:17])


def _train(folder):
    return PackedImages(folder, "train", read_index(folder).shards["train"])


def test_packed_data_are_cut_and_shaped_as_others(tmp_path, photos, small_shards):
    pack(f"folder:{photos}", tmp_path / "packed")
    for options in ({"subset": 12}, {"size": 4, "channels": 1}):
        whole = load_data(f"folder:{photos}", **options)
        read = load_data(f"packed:{tmp_path / 'packed'}", **options)
        assert read.digest == whole.digest
        same(whole, read)
    few = load_data(f"packed:{tmp_path / 'packed'}", classes=["c", "a"])
    assert few.class_names == ("c", "a")
    assert set(few.train.labels.tolist()) == {0, 1}


def test_notes_are_kept_in_the_pack(tmp_path, photos):
    for image in sorted((photos / "a").glob("*.png"))[:20]:
        (photos / "b" / f"copy_{image.name}").write_bytes(image.read_bytes())
    (photos / "a" / "notes.txt").write_text("x")
    whole = load_data(f"folder:{photos}")
    assert [note.split()[1] for note in whole.notes] == ["pictures", "of"]
    assert pack(f"folder:{photos}", tmp_path / "packed").notes == whole.notes
    assert load_data(f"packed:{tmp_path / 'packed'}").notes == whole.notes
    few = load_data(f"packed:{tmp_path / 'packed'}", classes=["a", "c"])
    assert few.notes == ()


def test_damaged_pictures_are_left_out_of_a_pack(tmp_path, photos, command, refused):
    (photos / "a" / "003.png").write_bytes(b"")
    arguments = ("pack", f"folder:{photos}", "--out", tmp_path / "packed", "--quiet")
    assert "003.png' cannot be read" in refused(1, *arguments)
    outcome = command(*arguments, "--skip-damaged")
    assert outcome.code == 0
    assert "note: 1 damaged left out: " in outcome.err
    assert sum(map(sum, read_index(tmp_path / "packed").shards.values())) == 119


def test_a_shard_ends_where_bytes_no_longer_say_the_pixels(tmp_path):
    exact = torch.arange(24.0).view(6, 1, 2, 2) / 255
    images = torch.cat([exact, exact + 0.001])
    split = Split(images, torch.arange(12) % 2)
    written = packed.write_shards(tmp_path, "train", iter(images.split(3)), split.labels)
    assert list(written) == [6, 6]
    assert torch.equal(PackedImages(tmp_path, "train", (6, 6))[0:12], images)


def _pack_of(*splits):
    return SourceSplits(splits[0], splits[1], ("a", "b"), splits[2])


def _images():
    return Split(torch.rand(8, 1, 4, 4), torch.arange(8) % 2)


def test_a_pack_that_fails_leaves_the_one_before_it_and_nothing_else(tmp_path):
    folder, whole, broken = tmp_path / "packed", _images(), _images()
    broken.images[3] = torch.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        pack_data(_pack_of(whole, broken, whole), "x", folder)
    assert not list(tmp_path.iterdir())
    pack_data(_pack_of(whole, whole, whole), "x", folder)
    before = contents(tmp_path)
    with pytest.raises(DataError, match="NaN or infinite"):
        pack_data(_pack_of(_images(), broken, whole), "x", folder)
    assert contents(tmp_path) == before
    assert verify_packed(folder)


def test_a_pack_takes_the_place_of_another_as_a_whole(tmp_path, small_shards):
    folder = tmp_path / "packed"
    many = Split(torch.rand(99, 1, 4, 4), torch.arange(99) % 2)
    pack_data(_pack_of(many, many, many), "x", folder)
    assert len(list(folder.iterdir())) > 4
    pack_data(_pack_of(_images(), _images(), _images()), "y", folder)
    assert len(list(folder.iterdir())) == 4
    # Even out of itself.
    pack(f"packed:{folder}", folder)
    assert verify_packed(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


@pytest.mark.parametrize("name", ["train-0000.h5", "notes.txt", "train-0007.h5"])
def test_files_that_no_pack_made_are_not_written_over(name, tmp_path, refused):
    plain, packed_before = tmp_path / "plain", tmp_path / "packed"
    plain.mkdir()
    (plain / name).write_text("1")
    pack_data(_pack_of(_images(), _images(), _images()), "x", packed_before)
    (packed_before / f"more-{name}").write_text("1")
    before = contents(tmp_path)
    for folder in (plain, packed_before):
        line = refused(1, "pack", "digits", "--out", folder, "--quiet")
        assert f"--out {folder} holds what is no pack; name a new or empty folder" in line
    assert contents(tmp_path) == before


def test_a_stopped_pack_leaves_the_one_before_it(tmp_path, refused, monkeypatch):
    folder = tmp_path / "packed"
    pack("digits", folder, size=8)
    before = contents(tmp_path)
    monkeypatch.setattr("distill.run.interrupt.listen", listen_with(CountingStop(2)))
    line = refused(130, "pack", "glyphs:5", "--out", folder, "--quiet")
    assert "interrupted; nothing of this pack is kept: run the same command again" in line
    assert contents(tmp_path) == before


def _rewrite(folder, **changes):
    path = folder / "packed.json"
    index = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(sealed(index, packed.INDEX_SEAL)))


def _flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


FAULTS = {
    "missing": (lambda f: (f / "train-0000.h5").unlink(), "is not a file"),
    "cut": (lambda f: (f / "test-0000.h5").write_bytes(b"\x89HDF"), "cannot be read"),
    "count": (
        lambda f: _rewrite(f, shards={"train": [9], "validation": [3], "test": [24]}),
        "not those of 9 images",
    ),
    "index": (lambda f: (f / "packed.json").write_text("[1]"), "cannot be read"),
    "nested": (lambda f: (f / "packed.json").write_text("[" * 99999), "cannot be read"),
    "negative": (lambda f: _rewrite(f, shards={name: [-1] for name in SPLITS}), "damaged"),
    "empty": (lambda f: _rewrite(f, shards={name: [] for name in SPLITS}), "damaged"),
    "version": (lambda f: _rewrite(f, format=2), "of another version"),
    "names": (lambda f: _rewrite(f, class_names=[1, 2, 3]), "damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_pack_is_refused(tmp_path, photos, fault):
    pack(f"folder:{photos}", tmp_path / "packed")
    damage, message = FAULTS[fault]
    damage(tmp_path / "packed")
    with pytest.raises(WorkError, match=message) as caught:
        load_data(f"packed:{tmp_path / 'packed'}")
    assert "\n" not in str(caught.value)


def test_every_changed_letter_of_an_index_is_noticed(tmp_path, photos):
    pack(f"folder:{photos}", tmp_path / "packed")
    path = tmp_path / "packed" / "packed.json"
    raw, known = path.read_bytes(), packed.read_index(path.parent)
    places = [place for place, byte in enumerate(raw) if chr(byte).isalnum()]
    for place in places:
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        # Under another name there is no digest; what it says is as it was.
        with contextlib.suppress(WorkError):
            assert packed.read_index(path.parent) == replace(known, sealed=False)


def test_an_index_from_before_it_held_a_digest_is_said_not_to_be_checked(tmp_path, photos, command):
    pack(f"folder:{photos}", tmp_path / "packed")
    path = tmp_path / "packed" / "packed.json"
    path.write_text(json.dumps(unsealed(json.loads(path.read_text()), packed.INDEX_SEAL)))
    assert command("verify", path.parent).out == (
        f"{path.parent}: packed data as they were packed; written before there were digests of "
        "texts, so its texts are not checked\n"
    )


def test_a_damaged_image_is_noticed_when_it_is_read(tmp_path, photos):
    pack(f"folder:{photos}", tmp_path / "packed")
    path = tmp_path / "packed" / "train-0000.h5"
    image = _train(tmp_path / "packed")[5:6].mul(255).round().byte().numpy().tobytes()
    _flip(path, path.read_bytes().index(image) + 7)
    images = load_data(f"packed:{tmp_path / 'packed'}").train.images
    assert images[0:5].shape == (5, 3, 6, 6)
    with pytest.raises(WorkError, match=r"train-0000\.h5 cannot be read"):
        images[5:6]


def test_verification_reads_all_and_knows_other_labels(tmp_path, photos):
    pack(f"folder:{photos}", tmp_path / "packed")
    assert verify_packed(tmp_path / "packed")
    with h5py.File(tmp_path / "packed" / "train-0000.h5", "r+") as file:
        file["labels"][0] = 2
    assert not verify_packed(tmp_path / "packed")


def test_float_pixels_outside_the_range_are_refused(tmp_path):
    images = torch.rand(4, 1, 2, 2)
    list(packed.write_shards(tmp_path, "train", iter([images]), torch.zeros(4, dtype=torch.int64)))
    with h5py.File(tmp_path / "train-0000.h5", "r+") as file:
        file["images"][2, 0, 0, 0] = np.nan
    with pytest.raises(WorkError, match=r"outside \[0, 1\]"):
        PackedImages(tmp_path, "train", (4,))[0:4]
