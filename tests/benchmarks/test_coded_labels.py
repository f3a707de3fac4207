"""The benchmark of labels on coded images asks about the very originals of the set."""

import argparse

import pytest
import torch

from distill.__main__ import run
from distill.sets.set_file import read_set
from tests.distill.cases import write_recipe
from tests.distill.making_cases import SELECT_TAUGHT


@pytest.fixture
def coded_labels(benchmark_module):
    return benchmark_module("coded_labels")


@pytest.fixture
def selected(tmp_path):
    """A tiny run of selected images in two tones with votes as labels."""
    out, recipe = tmp_path / "run", write_recipe(tmp_path, SELECT_TAUGHT)
    keys = ("method=random", "ipc=2", "images=tones:tones=2", "labels=votes")
    options = [word for key in keys for word in ("--set", f"select.{key}")]
    stages = ("--stage", "committee", "--stage", "select")
    assert run(["run", str(recipe), "--out", str(out), "--quiet", *stages, *options]) == 0
    return out


def test_rows_of_a_run(coded_labels, selected, monkeypatch):
    asked = argparse.Namespace(
        students=["convnet2:width=4"], temperatures=[1.0], epochs=[1], lr=0.01, seeds=2
    )
    given = {}
    plain = coded_labels.kinds

    def kinds(context, content, temperatures):
        for kind, logits in plain(context, content, temperatures):
            given[kind] = logits
            yield kind, logits

    monkeypatch.setattr(coded_labels, "kinds", kinds)
    rows = coded_labels.measure_set(selected, asked)["rows"]
    assert [row["labels"] for row in rows] == list(given)
    assert all(len(row["runs"]) == 2 for row in rows)
    # Without a budget the set keeps the votes on its originals as they are.
    kept = read_set(selected / "set.h5").learned
    assert given["classes"] is None
    torch.testing.assert_close(given["votes on the originals, T = 1"], kept)
    assert not torch.allclose(given["votes on the coded images, T = 1"], kept)
