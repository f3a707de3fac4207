"""Augmentations by name, and what the reference says that they do."""

import re
from pathlib import Path

import pytest
import torch

from distill.names import FAMILIES, spelt_families, unknown_families
from distill.recipes.loading import load_recipe
from synth.augment import FAMILIES as KNOWN

ROOT = Path(__file__).resolve().parents[3]


def rows():
    """Cells of the reference's table of families, by family."""
    text = (ROOT / "docs/reference/recipes.md").read_text("utf-8")
    table = text.partition("### What views do")[2].partition("\n## ")[0]
    found = re.findall(r"^\| (\w+) \| (.*) \| (.*) \| (.*) \|$", table, re.MULTILINE)
    return {
        name: (what, {32: small, 64: large})
        for name, what, small, large in found
        if name != "family"
    }


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def extremes(family, side):
    """The least and largest of each parameter over many draws, [width] each."""
    drawn = KNOWN[family].draw(20_000, (side, side), torch.Generator().manual_seed(0))
    return drawn.amin(dim=0), drawn.amax(dim=0)


def test_every_family_is_in_the_table():
    assert sorted(rows()) == sorted(FAMILIES)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("family", ["resize", "zoom"])
def test_boxes_are_as_the_reference_says(family, side):
    what, at = rows()[family]
    least, most = extremes(family, side)
    assert numbers(at[side]) == [round(side * float(least[:2].min())), side]
    assert most[:2].max() == 1
    drawn = KNOWN[family].draw(20_000, (side, side), torch.Generator().manual_seed(0))
    areas = drawn[:, 0] * drawn[:, 1]
    area = numbers(what.partition("area")[0])
    assert 100 * float(areas.min()) == pytest.approx(area[0], abs=1)
    assert 100 * float(areas.max()) == pytest.approx(area[1], abs=1)


@pytest.mark.parametrize("side", [32, 64])
def test_moves_stretches_and_boxes_have_the_pixels_that_the_reference_says(side):
    least, most = extremes("crop", side)
    assert numbers(rows()["crop"][1][side]) == [most.max()] == [-least.min()] == [0.125 * side]
    least, most = extremes("scale", side)
    # A grid that is half as wide shows the image twice as large.
    stretched = [side / float(most.max()), side / float(least.min())]
    assert numbers(rows()["scale"][1][side]) == [round(pixels) for pixels in stretched]
    covered = KNOWN["cutout"].act(
        torch.ones(1, 1, side, side), torch.tensor([[side / 2, side / 2]])
    )
    height = int((covered == 0).any(dim=3).sum())
    assert numbers(rows()["cutout"][1][side]) == [height, height] == [side / 2, side / 2]


def test_angles_and_colours_are_as_the_reference_says():
    least, most = extremes("rotate", 32)
    angles = [float(torch.rad2deg(angle)) for angle in (least, most)]
    assert numbers(rows()["rotate"][0]) == [round(angle) for angle in angles]
    said = numbers(rows()["colour"][0])
    least, most = extremes("colour", 32)
    pairs = torch.stack([least, most], dim=1).flatten().tolist()
    assert said == pytest.approx(pairs, abs=1e-3)


def test_photos_are_the_families_that_leave_a_photo_its_class():
    assert spelt_families("crop_flip") == "crop_flip"
    assert unknown_families(spelt_families("photos")) == []
    recipe = load_recipe("digits", ["data.augmentation=photos", "relabel.augmentation=photos"])
    assert recipe.data.augmentation == recipe.relabel.augmentation == spelt_families("photos")
    assert "_flip" in recipe.data.augmentation
