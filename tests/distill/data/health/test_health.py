"""Copies, damage, sizes and colours of a folder of pictures."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data.health import check_health, find_copies, survey
from distill.data.health.copies import alike
from distill.data.health.survey import describe
from distill.data.loading import load_splits
from distill.data.source_splits import SourceSplits
from distill.data.splits import Split


def scene(rng, side=40):
    """A picture of a few large patches of colour, as photographs have."""
    small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def as_jpeg(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.fixture
def photos(tmp_path):
    """Two classes in train and test, with one trouble of each kind."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                scene(rng).save(folder / f"{number}.png")
    cat, dog = tmp_path / "train" / "cat", tmp_path / "train" / "dog"
    Image.open(cat / "1.png").save(tmp_path / "test" / "cat" / "leak.png")
    as_jpeg(Image.open(dog / "2.png"), 60).save(tmp_path / "test" / "dog" / "near.png")
    Image.open(cat / "3.png").save(dog / "conflict.png")
    Image.open(cat / "4.png").resize((60, 60)).save(cat / "larger.png")
    scene(rng).convert("L").save(cat / "gray.png")
    scene(rng, 90).crop((0, 0, 90, 30)).save(dog / "long.png")
    Image.new("RGB", (40, 40), (9, 9, 9)).save(dog / "blank.png")
    (dog / "damaged.png").write_bytes((dog / "0.png").read_bytes()[:60])
    (dog / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.fixture
def health(photos):
    source = f"folder:{photos}"
    return check_health(load_splits(source, size=40, skip_damaged=True), source)


def shown(health, pairs):
    return [
        tuple(health.name(*place).strip("'").rpartition("/")[2] for place in (p.first, p.second))
        for p in pairs
    ]


def test_every_planted_copy_is_found_and_nothing_else(health):
    assert set(shown(health, health.copies.leaks)) == {("1.png", "leak.png"), ("2.png", "near.png")}
    assert shown(health, health.copies.conflicts) == [("3.png", "conflict.png")]
    assert shown(health, health.copies.within) == [("4.png", "larger.png")]
    exact = {pair.exact for pair in health.copies.conflicts}
    assert exact == {True}
    assert [pair.exact for pair in health.copies.within] == [False]


def test_findings_say_what_is_wrong(health):
    text = "\n".join(health.findings())
    assert "pictures that cannot be read: 1;" in text
    assert "or look like, images in another part: 2 of 10 test (1 exact, 1 near)" in text
    assert "another label than the image that they are like: 1 (1 exact, 0 near)" in text
    assert "repeat another of their class and part: 1 (0 exact, 1 near)" in text
    assert "blank images: 1;" in text
    # A blank picture is gray as well.
    assert "gray images among coloured ones: 2 of 35" in text
    assert "images more than twice as long as wide: 1;" in text
    assert any(line.startswith("data.size = 32") for line in health.suggestions())


def test_the_summary_counts_and_names(health, photos):
    found = health.to_dict()
    assert {name: sum(counts) for name, counts in found["images"].items()}["test"] == 10
    assert found["stored"]["modes"]["L"] == 1
    assert found["stored"]["smallest"] == [30, 90]
    assert found["stored"]["largest"] == [60, 60]
    assert str(photos / "train" / "dog" / "damaged.png") in found["damaged"][0]
    assert found["notes"] == ["36 pictures are read; files passed over: 1 .txt"]
    assert found["copies"]["leaks"]["exact"] == 1


def test_clean_data_have_no_findings():
    health = check_health(load_splits("digits"), "digits")
    assert health.findings() == []
    assert health.suggestions() == []
    assert health.modes == {"arrays of 1 channel": 1797}


def test_gray_pictures_that_are_stored_in_colours_suggest_one_channel():
    images = torch.rand(12, 1, 8, 8).repeat(1, 3, 1, 1)
    split = Split(images, torch.arange(12) % 2)
    health = check_health(SourceSplits(split, split, ("a", "b"), split), "arrays")
    assert "data.channels = 1: all images are gray, though not stored so" in health.suggestions()


def test_pairs_are_those_of_all_products(monkeypatch):
    monkeypatch.setattr("distill.data.health.copies._BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 5, generator=generator).repeat(5, 1)
    rows = centres + 0.08 * torch.randn(60, 5, generator=generator)
    rows = rows / rows.norm(dim=1, keepdim=True)
    rows[3] = 0
    expected = torch.nonzero((rows @ rows.T).triu(diagonal=1) >= 0.99)
    found = {(int(a), int(b)) for part in alike(rows, 0.99) for a, b in zip(*part[:2], strict=True)}
    assert len(expected) > 50
    assert found == {(int(a), int(b)) for a, b in expected}


def test_an_image_is_described_apart_from_brightness_and_contrast():
    images = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    same = (describe(images) * describe(0.5 * images + 0.2)).sum(dim=1)
    other = (describe(images) * describe(images.roll(1, 0))).sum(dim=1)
    assert float(same.min()) > 0.9999
    assert float(other.max()) < 0.5
    assert not describe(torch.full((1, 3, 20, 20), 0.3)).any()


def test_with_similarity_one_only_exact_copies_are_found(photos):
    parts = list(survey(load_splits(f"folder:{photos}", size=40, skip_damaged=True)))
    pairs = find_copies(parts, similarity=1).pairs
    assert [pair.exact for pair in pairs] == [True, True]
