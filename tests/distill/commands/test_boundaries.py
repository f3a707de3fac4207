"""What a library would raise is found early, or becomes one line of ours."""

import resource
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.distill.cases import copy_run


@pytest.mark.parametrize(
    "text",
    [
        "experts.lr=1e308",
        "experts.lr=1e-300",
        "match.image_lr=1e31",
        "committee.weight_decay=1e200",
        "relabel.temperature=1e30",
        "relabel.temperature=1e-9",
        "committee.vote_temperature=1e9",
        "projector.temperature=0",
    ],
)
def test_numbers_that_32_bits_do_not_hold_are_found_before_the_folder(
    text, recipe, refused, tmp_path
):
    out = tmp_path / "run"
    line = refused(2, "run", recipe, "--out", out, "--set", text)
    assert text.partition("=")[0] in line
    assert "it should" in line
    assert not out.exists()


def test_data_of_one_class_are_found_before_the_folder(recipe, refused, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "run"
    (photos / "only").mkdir(parents=True)
    for index in range(30):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(photos / "only" / f"{index}.png")
    words = ("--out", out, "--set", f"data.source=folder:{photos}", "--set", "data.subset=20")
    assert "has one class, 'only'" in refused(1, "run", recipe, *words)
    assert not out.exists()


def test_experts_that_do_not_move_are_one_line(recipe, refused, tmp_path):
    stages = ("--stage", "experts", "--stage", "match", "--set", "experts.lr=1e-25", "--quiet")
    line = refused(1, "run", recipe, "--out", tmp_path / "run", *stages)
    assert "match: start equals target; choose a longer span, or experts that learn" in line


@pytest.mark.parametrize("text", ["abc", "", "-1", "1.5"])
def test_a_world_size_that_is_no_number_is_one_line(text, recipe, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", text)
    line = refused(2, "run", recipe, "--out", tmp_path / "run", "--quiet")
    assert f"the variable WORLD_SIZE is {text!r}" in line


@pytest.mark.parametrize(
    "name", ["labels/full-fp16/ids", "labels/full-fp16/logits", "labels/learned", "hard", "images"]
)
@pytest.mark.parametrize("verb", ["show", "evaluate", "verify", "export"])
def test_a_number_in_place_of_many_is_one_line(name, verb, run_copy, refused, tmp_path):
    path = run_copy / "set.h5"
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = 3.0
    words = {"export": ("set", path, "--format", "npz", "--out", tmp_path / "out")}
    assert "make it again" in refused(1, verb, *words.get(verb, (path,)))


@pytest.mark.parametrize("text", ['{"students": 3}', '{"students": {"a": {"b": 3}}}', "[1]", "3"])
def test_accuracies_of_another_form_are_one_line(text, run_copy, refused, tmp_path):
    path = run_copy / "set.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["measured"] = text
    words = ("--format", "npz", "--out", tmp_path / "out")
    assert str(path) in refused(1, "export", "set", path, *words)
    assert not (tmp_path / "out").exists()


@contextmanager
def files_of(most):
    """No file of this process may grow beyond `most` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


SETS = [("set", form) for form in ("safetensors", "npz", "torch", "hf")]
PROJECTORS = [("projector", form) for form in ("peft", "merged", "torch-export", "compact")]


@pytest.mark.parametrize(("what", "form"), [*SETS, *PROJECTORS])
def test_a_full_disk_is_one_line_and_leaves_nothing(what, form, finished, refused, tmp_path):
    run = copy_run(finished, tmp_path / "run")
    out = tmp_path / "out"
    before = sorted(tmp_path.iterdir())
    with files_of(2000):
        line = refused(1, "export", what, run, "--format", form, "--out", out)
    assert "no space is left" in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_one_line_whoever_says_so(error, refused, monkeypatch, finished):
    def fail(path):
        raise error

    monkeypatch.setattr("distill.commands.show.describe", fail)
    assert "there is too little memory" in refused(1, "show", finished)
