"""What tests of evaluations share."""

import pytest

from distill.evaluation import students
from distill.recipes.loading import check_recipe
from distill.run.interrupt import Stop
from distill.run.scratch import scratch_context
from distill.sets.set_file import read_set


@pytest.fixture
def context(finished, tmp_path):
    recipe = check_recipe(read_set(finished / "set.h5").manifest["recipe"], "recipe")
    return scratch_context(tmp_path, finished, recipe, "cpu", True, Stop())


@pytest.fixture
def asked(monkeypatch):
    """The names of the splits that an evaluation asks for, in order."""
    names = []
    plain = students.Context.split

    def split(self, name):
        names.append(name)
        return plain(self, name)

    monkeypatch.setattr(students.Context, "split", split)
    return names
