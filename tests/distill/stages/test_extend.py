"""A set grows by classes or images: the old ones stay, the new ones are made by a recipe."""

import json

import pytest
import torch

import projectors
from distill.data import Preprocess
from distill.recipes.loading import load_recipe
from distill.run.context import Context, handle_of, open_context
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.progress import Progress
from distill.sets.set_file import read_set
from distill.stages.extend import making_stages
from tests.distill.cases import STUDENT, write_recipe

SELECT = f"""
[data]
source = "digits"
size = 8
subset = 100

[select]
method = "herding"
ipc = 2

[evaluate]
students = ["{STUDENT}"]
labels = "hard"
seeds = 1
epochs = 1
whole_epochs = 1
"""


LABELS = """
[committee]
members = ["convnet2:width=8:norm=batch"]
epochs = 12
batch_size = 20
lr = 0.01
augmentation = "crop"

[relabel]
epochs = 3
batch_size = 10

[projector]
tower = "config:tiny-vit"
rank = 2
templates = ["the digit {}"]
steps = 2
batch_size = 16
"""


@pytest.fixture(scope="module")
def herding(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), SELECT, "herd")


@pytest.fixture
def four(herding, command, tmp_path):
    """A run of four digits."""
    words = ("--out", tmp_path / "four", "--set", "data.classes=0,1,2,3", "--quiet")
    outcome = command("run", herding, *words, "--stage", "select")
    assert outcome.code == 0, outcome.err
    return tmp_path / "four"


def test_new_classes_are_added_and_the_old_images_stay(four, herding, command, tmp_path):
    out = tmp_path / "grown"
    words = ("--data", "digits", "--recipe", herding, "--out", out, "--quiet", "--json")
    outcome = command("extend", four, *words)
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    old, new, grown = (read_set(path / "set.h5") for path in (four, out / "new", out))
    assert torch.equal(grown.images[:8], old.images)
    assert len(grown.images) == said["images"] == 20
    assert grown.hard.tolist() == [label for label in range(10) for _ in range(2)]
    pixels = grown.preprocess.inverse(grown.images[8:])
    torch.testing.assert_close(pixels, new.preprocess.inverse(new.images[8:]))
    assert (
        "8 images of four stay as they are; 12 are new, of four, five, six, seven, "
        in said["notes"][0]
    )
    assert grown.preprocess == old.preprocess != new.preprocess
    # The grown set has all classes of the data, and is tested on them.
    words = ("--epochs", "1", "--seeds", "1", "--quiet", "--json")
    tested = command("evaluate", out, *words)
    assert tested.code == 0, tested.err
    assert json.loads(tested.out)["protocol"]["test_images"] > 300
    line = command("extend", four, "--data", "digits", "--recipe", herding, "--out", out).err
    assert "holds set.h5 already" in line


def test_a_grown_set_is_shown_verified_and_reported_by_its_folder(four, herding, command, tmp_path):
    out = tmp_path / "grown"
    words = ("--data", "digits", "--recipe", herding, "--out", out, "--quiet")
    said = command("extend", four, *words)
    assert said.out.splitlines()[-1] == f"Next: distill evaluate {out} --record"
    assert command("show", out).out.splitlines()[-1] == f"Next: distill evaluate {out} --record"
    assert command("verify", out).out == f"{out}: set, whole and readable\n"
    line = command("report", out).err
    assert (
        f"states no accuracy to report on; measure it first: distill evaluate {out} --rec" in line
    )
    words = ("--epochs", "1", "--seeds", "1", "--whole-epochs", "1", "--labels", "hard", "--record")
    assert command("evaluate", out, *words, "--quiet").code == 0
    assert f"Its page: distill report {out}" in command("show", out).out
    assert command("report", out).out == f"{out / 'report.html'}\n"
    page = (out / "report.html").read_text()
    assert "grown: a distilled set of 20" in page
    assert "8 of four (digits), 12 of new/set.h5 (digits)" in page
    assert ">Real<" in page
    # A set's file has a page of its name beside it.
    assert command("report", out / "set.h5").out == f"{out / 'set.html'}\n"


def test_more_data_of_known_classes_add_images(four, herding, command, tmp_path):
    words = ("--data", "digits", "--recipe", herding, "--out", tmp_path / "more", "--quiet")
    keys = ("--set", "data.classes=3,1", "--set", "select.ipc=3")
    outcome = command("extend", four, *words, *keys)
    assert outcome.code == 0, outcome.err
    grown = read_set(tmp_path / "more" / "set.h5")
    assert grown.hard.bincount().tolist() == [2, 5, 2, 5]
    old = read_set(four / "set.h5")
    assert torch.equal(grown.images[2:4], old.images[2:4])
    assert grown.manifest["source"]["digest"]


# Within a budget, whose share is of teachers that a set keeps; here they stand beside it.
SHARED = (
    "select.images=rounded:depth=4",
    "select.budget_bytes=3000",
    "committee.budget_share=0.9",
    "relabel.views=seed",
    "encode.codec=teacher:bits=4",
)


@pytest.mark.parametrize("changes", [(), SHARED], ids=["plain", "budget"])
def test_a_grown_set_is_labelled_by_teachers_of_all_its_classes(changes, four, command, tmp_path):
    text = SELECT.replace('labels = "hard"', 'labels = "hard,votes,projector"') + LABELS
    labelling = write_recipe(tmp_path / "recipes", text, "labelling")
    out = tmp_path / "grown"
    words = ("--data", "digits", "--recipe", labelling, "--out", out, "--quiet", "--labels")
    # The old classes come first, whatever the order of the data.
    changes = ("data.classes=9,8,7,6,5,4,3,2,1,0", *changes)
    keys = [word for change in changes for word in ("--set", change)]
    outcome = command("extend", four, *words, *keys)
    assert outcome.code == 0, outcome.err
    old, grown = read_set(four / "set.h5"), read_set(out / "set.h5")
    assert torch.equal(grown.images[:8], old.images)
    names = grown.manifest["class_names"]
    assert names[:6] == ["zero", "one", "two", "three", "nine", "eight"]
    assert grown.votes.whole.shape == (3, 20, 10)
    # Teachers that were fitted to the digits tell most of them, in the order of the set's classes.
    voted = grown.votes.mean_probabilities().argmax(dim=1)
    assert float((voted == grown.hard).float().mean()) > 0.5
    assert projectors.load(out / "projector").classes == names
    # The images ask no committee, so the run that made them has none.
    assert not (out / "new" / "committee.h5").exists()
    brief = ("--epochs", "1", "--seeds", "1", "--whole-epochs", "0", "--quiet", "--json")
    tested = command("evaluate", out, *brief)
    assert tested.code == 0, tested.err
    assert set(json.loads(tested.out)["students"][STUDENT]) == {"hard", "votes", "projector"}


def test_labels_that_stay_behind_are_named_with_what_makes_others(
    finished, herding, command, tmp_path
):
    words = ("--data", "digits", "--recipe", herding, "--out", tmp_path / "more", "--quiet")
    outcome = command("extend", finished, *words, "--json")
    assert outcome.code == 0, outcome.err
    notes = json.loads(outcome.out)["notes"]
    assert notes[-1] == (
        "left behind with run, as they know its classes and images alone: votes, the projector; "
        f"`distill extend {finished} ... --labels` makes new ones for all classes"
    )
    assert not any("labels of views" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        (SELECT, (), "--labels needs a recipe with [committee], and [relabel] or [projector]"),
        (SELECT + LABELS, ("data.classes=3,4,5",), "of all 6 classes of the grown set, but digits"),
        (SELECT + LABELS, ("projector.tower=config:none",), "projector.tower: "),
    ],
)
def test_labels_that_cannot_be_made_are_refused_before_the_work(
    text, keys, line, four, command, tmp_path
):
    labelling = write_recipe(tmp_path / "recipes", text, "labelling")
    out = tmp_path / "grown"
    options = [part for key in keys for part in ("--set", key)]
    words = ("--data", "digits", "--recipe", labelling, "--out", out, "--labels", *options)
    outcome = command("extend", four, *words)
    assert outcome.code in (1, 2)
    assert line in outcome.err
    assert outcome.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("data.zca=true",), "data.zca = false"),
        (("data.classes=0,1,22",), "22"),
    ],
)
def test_what_cannot_fit_is_refused_before_the_work(keys, words, four, herding, command, tmp_path):
    options = [part for key in keys for part in ("--set", key)]
    out = tmp_path / "grown"
    outcome = command(
        "extend", four, "--data", "digits", "--recipe", herding, "--out", out, *options
    )
    assert outcome.code in (1, 2)
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert not out.exists()


def test_only_stages_that_images_need_are_run():
    stages = {
        "digits": ["experts", "match"],
        "digits-recover": ["committee", "recover"],
        "digits-rded": ["committee", "select"],
    }
    assert {name: making_stages(load_recipe(name)) for name in stages} == stages


def test_real_images_are_shown_as_those_of_the_set_here_and_in_workers(herding, tmp_path):
    run = Run(tmp_path, read_only=True)
    context = Context(
        run, load_recipe(str(herding)), torch.device("cpu"), Progress(quiet=True), Stop()
    )
    given = Preprocess((0.25,), (0.5,))
    context.normalise_as(given)
    images, _ = context.split("test")
    assert torch.equal(images, given(context.data.test.images))
    assert torch.equal(open_context(handle_of(context)).split("test")[0], images)


def test_merge_and_order_by_command(four, herding, command, refused, tmp_path):
    words = ("--out", tmp_path / "rest", "--set", "data.classes=3,4,5", "--quiet")
    assert command("run", herding, *words, "--stage", "select").code == 0
    out = tmp_path / "both.h5"
    outcome = command("merge", four, tmp_path / "rest", "--out", out)
    assert outcome.code == 0, outcome.err
    assert "cannot be evaluated before it is merged with --data" in outcome.err
    assert "14 images of 6 classes (8 of four and 6 of rest)" in outcome.out
    assert "was merged without the real data" in refused(1, "evaluate", out)
    assert "both.h5 exists" in refused(1, "merge", four, four, "--out", out)
    assert "write NAME=NAME" in refused(
        2, "merge", four, four, "--out", tmp_path / "x.h5", "--map", "3"
    )
    line = refused(1, "merge", four, four, "--out", tmp_path / "x.h5", "--data", "glyphs:4")
    assert "--data glyphs:4 has classes" in line
    tested = tmp_path / "tested.h5"
    words = ("--out", tested, "--data", "digits")
    assert command("merge", four, tmp_path / "rest", *words).code == 0
    stated = read_set(tested).manifest
    assert len(stated["recipe"]["data"]["classes"]) == 6
    assert stated["source"]["digest"]
    one = tmp_path / "one.h5"
    outcome = command("order", tested, "--first", "1", "--out", one)
    assert outcome.code == 0, outcome.err
    assert read_set(one).hard.tolist() == list(range(6))
    assert "one.h5 exists" in refused(1, "order", tested, "--out", one)
