"""`distill inspect`: its words, its JSON, its page, and label errors that experts see."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.distill.cases import CountingStop, listen_with, write_recipe

RECIPE = """
[data]
source = "npz:PLACE"
augmentation = "crop"

[experts]
network = "convnet2:width=8"
count = 1
epochs = 8
batch_size = 20
lr = 0.05
momentum = 0.9

[match]
ipc = 1
iterations = 1
inner_steps = 1
"""


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("<b>cat</b>", "dog"):
        folder = tmp_path / "photos" / name.replace("/", "_")
        folder.mkdir(parents=True)
        for number in range(8):
            small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(small).resize((20, 20)).save(folder / f"{number}.png")
    Image.open(folder / "1.png").save(folder / "again.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "photos"


def test_a_folder_is_inspected_in_words_and_on_a_page(photos, command, tmp_path):
    page = tmp_path / "health.html"
    outcome = command("inspect", photos, "--html", page, "--quiet")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].endswith("17 images of 2 classes")
    assert "stored: 20x20 pixels; 17 RGB" in lines
    assert any(line.startswith("damaged:") and "broken.png" in line for line in lines)
    assert any("(1 exact, 0 near)" in line for line in lines)
    text = page.read_text(encoding="utf-8")
    assert "<b>cat" not in text
    assert text.count("data:image/png") == 2
    assert "script" not in text


def test_json_holds_all_of_it_and_nothing_is_changed(photos, command):
    before = sorted(photos.rglob("*"))
    found = json.loads(command("inspect", photos, "--json", "--quiet").out)
    pairs = [pair for kind in found["copies"].values() for pair in kind["pairs"]]
    assert [pair["exact"] for pair in pairs] == [True]
    assert len(found["damaged"]) == 1
    assert sum(map(sum, found["images"].values())) == 17
    assert sorted(photos.rglob("*")) == before


def test_label_errors_that_were_planted_are_named_by_experts(command, tmp_path):
    digits = load_digits()
    images, truth = (digits.images[:600] / 16).astype(np.float32), digits.target[:600]
    labels = truth.copy()
    wrong = np.random.default_rng(0).permutation(600)[:30]
    labels[wrong] = (truth[wrong] + 3) % 10
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    recipe = write_recipe(tmp_path, RECIPE.replace("PLACE", str(tmp_path / "digits.npz")))
    assert command("experts", recipe, "--out", tmp_path / "run", "--quiet").code == 0

    words = ("inspect", tmp_path / "digits.npz", "--experts", tmp_path / "run", "--json", "--quiet")
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    errors = json.loads(outcome.out)["label_errors"]
    assert errors["networks"].startswith("1 experts convnet2:width=8, after epochs 1, ")
    # The changed labels are three above their digit, which no fair error is so often.
    changed = [int(one["label"]) == (int(one["suggested"]) + 3) % 10 for one in errors["images"]]
    assert sum(changed) >= 15
    assert sum(changed) >= 0.7 * len(changed)


def test_what_does_not_fit_is_one_line(photos, refused, finished, tmp_path):
    assert "no source, no folder and no npz" in refused(2, "inspect", tmp_path / "nothing")
    taken = tmp_path / "taken.html"
    taken.write_text("a letter", encoding="utf-8")
    assert "is no HTML page" in refused(1, "inspect", photos, "--html", taken)
    run = ("--experts", finished, "--quiet")
    assert "the run's own with --experts" in refused(2, "inspect", "digits", *run, "--size", "8")
    assert "name the folder of a run" in refused(1, "inspect", "digits", "--experts", tmp_path)


def test_an_interruption_is_one_line(photos, refused, monkeypatch):
    monkeypatch.setattr("distill.run.interrupt.listen", listen_with(CountingStop(1)))
    assert "begin anew" in refused(130, "inspect", photos, "--quiet")


def test_experts_of_other_data_are_refused(photos, refused, finished):
    next(photos.glob("*/broken.png")).unlink()
    line = refused(1, "inspect", f"folder:{photos}", "--experts", finished, "--quiet")
    assert "experts were trained on other data" in line
