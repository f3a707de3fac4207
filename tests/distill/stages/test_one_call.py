"""A set in one call from Python, with data, network and teacher of one's own."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import distill
from distill.errors import RecipeError, WorkError
from distill.recipes.given import python_recipe
from distill.run.manifest import read_manifest

RAW = load_digits()
PIXELS = torch.tensor(RAW.images[:300] / 16, dtype=torch.float32).unsqueeze(1)
CLASSES = torch.tensor(RAW.target[:300])
MINE = TensorDataset(PIXELS, CLASSES)
QUICK = {
    "data": {},
    "select": {"ipc": 1, "method": "random"},
    "relabel": {"epochs": 2, "batch_size": 10},
    "evaluate": {"seeds": 1, "epochs": 1, "whole_seeds": 0},
}

UNCHANGED = {"epochs": 1, "batch_size": 10, "augmentation": "none", "temperature": 1.0}


def small(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))


def nearest(pixels):
    """A teacher without weights: how near an image is to the mean of each class."""
    means = torch.stack([PIXELS[k == CLASSES].mean(dim=0) for k in range(10)])
    return -(pixels[:, None] - means[None]).square().sum(dim=(2, 3, 4))


def call(**changes):
    given = {"network": small, "teachers": [nearest], "progress": lambda event: None}
    return distill.distill(MINE, QUICK, **{**given, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return call(out=tmp_path_factory.mktemp("one") / "run")


def test_result_holds_the_set_and_what_was_measured(made):
    assert made.images.shape == (10, 1, 8, 8)
    assert torch.allclose(made.labels.sum(dim=1), torch.ones(10))
    assert set(made.measured["students"]) == {"given:small"}
    assert made.report().is_file()
    curve = made.curves["evaluate"]
    assert len(curve["accuracy"]) == len(curve["group"]) > 1
    assert made.curves["committee"]["accuracy"][0] > 0.5


def test_soft_labels_are_those_of_the_given_teacher(made):
    """Of views that change nothing, the mean vote is the teacher's own softmax."""
    plain = {**QUICK, "relabel": UNCHANGED}
    found = distill.distill(MINE, plain, network=small, teachers=nearest, progress=lambda e: None)
    pixels = found.set.preprocess.inverse(found.images)
    wanted = nearest(pixels).softmax(dim=1)
    # Logits of about -50 are stored in 16 bits.
    assert torch.allclose(found.labels, wanted, atol=0.05)


def test_same_call_goes_on_and_says_why_what_runs_again(made):
    said = []
    call(out=made.folder, progress=lambda event: said.append(event.note))
    assert sum("done before" in note for note in said) == 4

    def small(channels, size, classes):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes), nn.Tanh()
        )

    said.clear()
    call(out=made.folder, network=small, progress=lambda event: said.append(event.note))
    again = [note for note in said if "runs again" in note]
    assert len(again) == 1
    assert "the code or weights of given:small have changed" in again[0]


def test_progress_counts_every_unit():
    seen = []
    call(progress=seen.append)
    last = {event.stage: event for event in seen if event.stage}
    assert {"committee", "relabel", "evaluate"} <= set(last)
    assert all(event.done == event.total for event in last.values())


def test_saved_set_is_evaluated_on_the_data_that_are_given_again(made, tmp_path):
    made.save(tmp_path / "small.h5")
    quick = {"quiet": True, "seeds": 1, "epochs": 1, "whole_seeds": 0, "labels": ["hard"]}
    found = distill.evaluate(distill.load(tmp_path / "small.h5"), data=MINE, network=small, **quick)
    assert set(found["students"]) == {"given:small"}
    assert "random" in made.evaluate(["mlp"], **quick)["controls"]
    with pytest.raises(WorkError, match="was made from other data"):
        distill.evaluate(made, data=TensorDataset(PIXELS[:200], CLASSES[:200]), **quick)
    with pytest.raises(RecipeError, match="given:small was given in Python; give it again"):
        distill.evaluate(tmp_path / "small.h5", data=MINE, **quick)


def test_a_set_is_labelled_anew_by_a_teacher_of_its_own_and_stays_as_it_was(made):
    before = made.set.labels.clone()

    def unsure(pixels):
        return nearest(pixels) / 10

    found = distill.relabel(made, unsure, quiet=True, **UNCHANGED)
    assert torch.equal(found.images, made.images)
    wanted = unsure(found.preprocess.inverse(found.images)).softmax(dim=1)
    assert torch.allclose(found.labels, wanted, atol=0.01)
    assert found.manifest["recipe"]["committee"]["members"] == ["given:unsure"]
    assert torch.equal(distill.load(made.folder).labels, before)
    # The committee beside the set votes where none is given.
    again = distill.relabel(made, quiet=True, **UNCHANGED)
    assert torch.allclose(again.labels, (10 * wanted.log()).softmax(dim=1), atol=0.05)


def test_new_labels_are_saved_and_teach_students(made, tmp_path):
    distill.relabel(made, "mlp", quiet=True, **UNCHANGED).save(tmp_path / "new.h5")
    quick = {"quiet": True, "seeds": 1, "epochs": 1, "whole_seeds": 0, "labels": ["votes"]}
    found = distill.evaluate(tmp_path / "new.h5", network="mlp", **quick)
    assert set(found["students"]["mlp"]) == {"votes"}


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"epoch": 3}, RecipeError, "unknown key relabel.epoch; did you mean epochs"),
        (
            {"teachers": lambda pixels: nearest(pixels).roll(1, dims=1)},
            WorkError,
            "near the chance",
        ),
        ({"teachers": "mlp9"}, RecipeError, "there is no network mlp9"),
        ({"data": (PIXELS[:200], CLASSES[:200])}, WorkError, "was made from other data"),
    ],
)
def test_labels_that_would_be_wrong_are_refused(made, changes, error, said):
    with pytest.raises(error, match=said) as raised:
        distill.relabel(made, **{"teachers": nearest, "quiet": True, **changes})
    assert "\n" not in str(raised.value)


def test_a_set_without_a_committee_needs_teachers(made):
    with pytest.raises(WorkError, match="no teachers were given"):
        distill.relabel(distill.load(made.folder), quiet=True)


def test_export_and_temporary_folder(tmp_path):
    found = call()
    assert found.export("imagefolder", tmp_path / "pictures").is_dir()
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 10
    with pytest.raises(RecipeError, match="there is no format jpg"):
        found.export("jpg", tmp_path / "other")
    folder = found.folder
    del found
    assert not folder.exists()


def test_budget_and_images_per_class_reach_the_recipe():
    recipe = {"base": "digits-exact", "match": {"iterations": 5}, "evaluate": {"seeds": 7}}
    found = python_recipe(recipe, "digits", "mlp", [], 3, 5000)
    assert (found.match.ipc, found.match.budget_bytes) == (3, 5000)
    assert (found.experts.network, found.evaluate.students) == ("mlp", ["mlp"])
    assert found.evaluate.seeds == 7
    teachers = python_recipe(None, "digits", None, ["mlp"], None, None)
    assert (teachers.committee.members, teachers.committee.vote) == (["mlp"], "equal")
    assert teachers.projector is None


def test_bytes_alone_choose_the_recipe_as_the_command_does():
    found = python_recipe(None, "digits", "mlp", [], None, 5000)
    assert (found.select.search, found.budget_bytes) == (["images"], 5000)
    assert (found.committee.budget_share, found.evaluate.students) == (0.35, ["mlp"])
    assert found.data.subset is None
    assert python_recipe("digits", "digits", None, [], None, 1900).committee.weight_bits == 3
    for teachers, ipc in (["mlp"], None), ([], 2):
        assert python_recipe(None, "digits", None, teachers, ipc, 5000).match.budget_bytes == 5000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": small(1, (8, 8), 10)}, "with weights, but many are trained anew"),
        ({"network": lambda channels, size: None}, "give a class or a function that takes these"),
        ({"network": lambda channels, size, classes: 3}, "gave a int"),
        ({"network": lambda c, s, k: nn.Flatten()}, "finite logits"),
        ({"network": lambda c, s, k: nn.Linear(3, k)}, "called with images"),
        ({"teachers": [nn.Flatten]}, "give a trained module of it"),
        ({"teachers": [lambda pixels: None]}, "the teacher called with pixels"),
        ({"teachers": [3]}, "type int came"),
        ({"ipc": 0}, "select.ipc"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_the_first_stage(changes, said, tmp_path):
    with pytest.raises(RecipeError, match=said) as error:
        call(out=tmp_path / "run", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_manifest_names_what_was_given(made):
    recipe = read_manifest(made.folder / "manifest.json")["recipe"]
    assert recipe["committee"]["members"] == ["given:nearest"]
    assert recipe["data"]["source"] == f"npz:{made.folder}/data.npz"
