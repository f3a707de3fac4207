"""set.h5: what is written is read, and what does not fit is refused."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from distill.errors import WorkError
from distill.sets.additions import add_measured, add_votes
from distill.sets.set_file import read_set, write_set
from tests.distill.cases import contents, edited
from tests.distill.sets.cases import make_set, make_votes


def check_same_votes(found, expected):
    for name in ("ids", "views", "logits"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    for name in ("families", "batch_size", "temperature", "batch_statistics"):
        assert getattr(found, name) == getattr(expected, name)


def test_artefact_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, make_set())
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_set(path, replace(make_set(), manifest={"class_names": ["a"]}))
    assert path.read_bytes() == before
    assert set(contents(tmp_path)) == {"set.h5"}


def test_set_round_trip_keeps_everything(tmp_path):
    path = tmp_path / "set.h5"
    content = make_set(votes=make_votes(), measured={"students": {"x": 0.5}})
    write_set(path, content)
    found = read_set(path)
    assert torch.equal(found.images, content.images)
    assert torch.equal(found.hard, content.hard)
    assert torch.equal(found.learned, content.learned)
    assert found.manifest == content.manifest
    assert found.measured == content.measured
    check_same_votes(found.votes, content.votes)


def test_set_with_images_and_hard_labels_alone_is_a_set(tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, replace(make_set(), learned=None))
    found = read_set(path)
    assert found.learned is None
    assert found.votes is None
    assert found.measured is None


@pytest.mark.parametrize("values", [0, 1])
def test_votes_round_trip_with_and_without_views(values, tmp_path):
    path, votes = tmp_path / "set.h5", make_votes(values=values)
    write_set(path, make_set())
    add_votes(path, votes)
    check_same_votes(read_set(path).votes, votes)


def test_parts_added_one_by_one_give_the_same_bytes(tmp_path):
    votes, measured = make_votes(), {"a": 1}
    write_set(tmp_path / "a.h5", make_set(votes=votes, measured=measured))
    write_set(tmp_path / "b.h5", make_set())
    add_votes(tmp_path / "b.h5", make_votes(epochs=3))
    add_measured(tmp_path / "b.h5", {"b": 2})
    add_votes(tmp_path / "b.h5", votes)
    assert read_set(tmp_path / "b.h5").measured is None
    add_measured(tmp_path / "b.h5", measured)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_set_of_many_classes_keeps_its_labels_and_long_attributes(tmp_path):
    path = tmp_path / "set.h5"
    content = make_set(classes=300, ipc=1)
    names = [f"class {k} {'with a long name ' * 20}" for k in range(300)]
    content = replace(content, manifest={**content.manifest, "class_names": names})
    write_set(path, content)
    found = read_set(path)
    assert found.hard.tolist() == list(range(300))
    assert found.manifest["class_names"] == names
    with h5py.File(path) as file:
        assert file["hard"].dtype == np.uint16


@pytest.mark.parametrize("name", ["images", "refined", "labels/full-fp16/logits"])
def test_numbers_of_another_type_are_refused(name, tmp_path):
    path = tmp_path / "set.h5"
    content = make_set(votes=make_votes())
    write_set(path, replace(content, refined=content.images))
    with edited(path) as file:
        values, made = file[name][()], "float64"
        del file[name]
        file.create_dataset(name, data=values.astype(made))
    needed = "float16" if name.endswith("logits") else "float32"
    with pytest.raises(WorkError, match=f"holds {made} where {needed} is needed"):
        read_set(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": torch.zeros(6, 4, 5)}, "need [n, c, h, w]"),
        ({"images": torch.zeros(0, 1, 4, 5)}, "need [n, c, h, w]"),
        ({"images": torch.zeros(6, 3, 4, 5)}, "1, h, w] is needed"),
        ({"images": torch.full((6, 1, 4, 5), torch.nan)}, "NaN"),
        ({"hard": torch.zeros(5, dtype=torch.int64)}, "5 hard labels for 6 images"),
        ({"hard": torch.full((6,), 3)}, "outside the 3 classes"),
        ({"learned": torch.zeros(6, 2)}, "need [6, 3]"),
        ({"learned": torch.full((6, 3), torch.inf)}, "learned labels hold NaN or infinite"),
        ({"votes": make_votes(n=5)}, "do not fit the images"),
        ({"votes": make_votes(classes=2)}, "do not fit the images"),
        ({"votes": replace(make_votes(), ids=torch.full((2, 6), 6))}, "do not fit the images"),
        ({"votes": replace(make_votes(), ids=torch.zeros(3, 6))}, "do not fit the images"),
    ],
)
def test_set_whose_parts_do_not_fit_is_refused(changes, words, tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, replace(make_set(), **changes))
    with pytest.raises(WorkError) as caught:
        read_set(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
