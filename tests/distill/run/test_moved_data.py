"""Data are known by their digest, wherever they lie; what runs again says why."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from distill.data import SourceError
from distill.data.places import source_at, source_near
from tests.distill.cases import read_json, rewrite_manifest, write_recipe

SMALL = """
[data]
source = "folder:photos"
size = 8
augmentation = "none"

[experts]
network = "convnet2:width=4"
count = 1
epochs = 2
batch_size = 10
lr = 0.05

[match]
ipc = 1
iterations = 2
inner_steps = 2
span = 1
max_start_epoch = 1

[evaluate]
students = ["mlp"]
labels = ["hard"]
seeds = 1
epochs = 2
whole_seeds = 0
"""


def write_photos(folder, classes=("a", "b")):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(8):
            noise = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data, a recipe, and a run that was made there."""
    from distill.__main__ import run

    home = tmp_path_factory.mktemp("home")
    write_photos(home / "photos")
    write_recipe(home, SMALL, "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert run(["run", "small.toml", "--out", "run", "--quiet"]) == 0
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """A copy of it to change, as the current folder."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def lines(outcome, words):
    assert outcome.code == 0, outcome.err
    return [line for line in outcome.err.splitlines() if words in line]


@pytest.mark.parametrize("spelling", ["absolute", "moved", "dotted"])
def test_the_same_data_elsewhere_run_nothing_again(home, command, spelling):
    (home / "other").mkdir()
    if spelling == "moved":
        (home / "photos").rename(home / "other" / "photos")
    place = {"absolute": home / "photos", "moved": "other/photos"}.get(spelling, "./photos")
    outcome = command("run", "small.toml", "--out", "run", "--set", f"data.source=folder:{place}")
    assert len(lines(outcome, "done before, inputs unchanged")) == 3
    assert not lines(outcome, "runs again")


def test_experts_are_taken_from_a_run_on_the_same_data_elsewhere(home, command):
    shutil.copytree("photos", "copy")
    arguments = ("--set", "data.source=folder:copy", "--stage", "experts", "--reuse", "run")
    outcome = command("run", "small.toml", "--out", "new", *arguments)
    assert lines(outcome, "experts    taken from another run")


def test_why_nothing_is_taken_is_said(home, command):
    arguments = ("--set", "experts.lr=0.1", "--stage", "experts", "--reuse", "run")
    outcome = command("run", "small.toml", "--out", "new", *arguments)
    assert lines(outcome, "experts    not reused from run: experts.lr was 0.05 and is 0.1")


def test_a_stage_that_runs_again_says_why(home, command):
    outcome = command("run", "small.toml", "--out", "run", "--set", "match.iterations=3")
    assert lines(outcome, "experts    done before")
    again = "runs again, and replaces what it made: "
    assert lines(outcome, f"match      {again}match.iterations was 2 and is 3")
    (home / "run" / "experts.h5").unlink()
    outcome = command("run", "small.toml", "--out", "run", "--stage", "experts")
    assert lines(outcome, f"experts    {again}experts.h5 is missing or not as it was left")
    (home / "photos" / "a" / "7.png").unlink()
    outcome = command("run", "small.toml", "--out", "run", "--stage", "experts")
    assert lines(outcome, f"experts    {again}the data are others than before")


def test_a_run_of_an_earlier_version_says_so(home, command):
    manifest = read_json(home / "run" / "manifest.json")
    for entry in manifest["stages"].values():
        del entry["made_from"]
        entry["key"] = "0" * 64
    rewrite_manifest(home / "run", manifest)
    outcome = command("run", "small.toml", "--out", "run", "--stage", "experts")
    assert lines(outcome, "it was made by another version of this program")


@pytest.fixture
def away(home, monkeypatch):
    """Another current folder; the data have moved, so that `data.source` leads nowhere."""
    (home / "away").mkdir()
    (home / "photos").rename(home / "moved")
    monkeypatch.chdir(home / "away")
    return home


def test_a_set_is_evaluated_and_verified_where_its_data_are_elsewhere(away, command, refused):
    said = refused(1, "evaluate", "../run")
    assert "'photos' is no folder" in said
    assert "name the place with --data" in said
    outcome = command("evaluate", "../run", "--data", "../moved", "--quiet", "--json")
    before = read_json(away / "run" / "summary.json")["students"]
    assert json.loads(outcome.out)["students"] == before
    outcome = command("verify", "../run/set.h5", "--accuracy", "--data", "../moved", "--quiet")
    assert "holds" in outcome.out
    assert "--data is for --accuracy" in refused(2, "verify", "../run/set.h5", "--data", "x")


def test_other_data_at_the_place_are_refused(away, refused):
    write_photos(away / "others", ("a", "b", "c"))
    for words in (("evaluate", "../run"), ("report", "../run")):
        said = refused(1, *words, "--data", "../others")
        assert "was made from other data than folder:../others holds now" in said


def test_a_report_needs_no_data(away, command):
    page = away / "run" / "report.html"
    assert ">Real<" in page.read_text()
    outcome = command("report", "../run")
    assert lines(outcome, "note: no real images are shown: data folder:photos: 'photos' is no fol")
    assert ">Real<" not in page.read_text()
    assert "the real ones were not at hand" in page.read_text()
    assert not lines(command("report", "../run", "--data", "../moved"), "note")
    assert ">Real<" in page.read_text()


@pytest.mark.parametrize(
    ("source", "place", "expected"),
    [
        ("folder:photos", "/a b/c", "folder:/a b/c"),
        ("folder:photos", "packed:p", "packed:p"),
        ("npz:x.npz", "y:z.npz", "npz:y:z.npz"),
        ("torchvision:CIFAR10", "/data", "torchvision:CIFAR10:/data"),
        ("torchvision:CIFAR10:/old", "/data", "torchvision:CIFAR10:/data"),
    ],
)
def test_a_place_replaces_the_path_of_a_source(source, place, expected):
    assert source_at(source, place) == expected


def test_a_run_works_from_any_directory(home, command, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = home / "run"
    assert not lines(command("report", run), "note: no real images")
    assert ">Real<" in (run / "report.html").read_text()
    outcome = command("evaluate", run / "set.h5", "--quiet", "--json")
    assert json.loads(outcome.out)["students"] == read_json(run / "summary.json")["students"]


def test_a_relative_path_is_looked_for_in_the_folders_above_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "work" / "runs" / "one"
    run.mkdir(parents=True)
    (tmp_path / "work" / "photos").mkdir()
    found = f"folder:{tmp_path / 'work' / 'photos'}"
    assert source_near("folder:photos", run) == found
    assert source_near("packed:photos", run) == found.replace("folder", "packed")
    for source in ("folder:others", "digits", f"folder:{tmp_path}/x", "hf:photos", "folder:"):
        assert source_near(source, run) == source
    deeper = run / "a" / "b"
    deeper.mkdir(parents=True)  # too far below to look up
    assert source_near("folder:photos", deeper) == "folder:photos"
    (tmp_path / "photos").mkdir()  # what lies where the program runs comes first
    assert source_near("folder:photos", run) == "folder:photos"


def test_data_without_a_place_are_refused():
    with pytest.raises(SourceError, match="source 'digits' has no place on a disk"):
        source_at("digits", "/data")


def test_notes_on_data_are_said_and_recorded(home, command):
    (home / "photos" / "a" / "notes.txt").write_text("x")
    outcome = command("run", "small.toml", "--out", "run", "--stage", "experts")
    note = "16 pictures are read; files passed over: 1 .txt"
    assert lines(outcome, f"note: {note}")
    assert read_json(home / "run" / "manifest.json")["data"]["notes"] == [note]


def test_data_that_take_long_to_read_are_said_to_be_packed(home, command, monkeypatch):
    hint = "note: reading folder:photos took 0 s, as it will in every command; `distill pack`"
    arguments = ("run", "small.toml", "--out", "run", "--stage", "experts")
    assert not lines(command(*arguments), hint)
    monkeypatch.setattr("distill.stages.run_recipe._LONG_READING", 0.0)
    assert lines(command(*arguments), hint)
    assert command("pack", "folder:photos", "--size", "8", "--out", "packed", "--quiet").code == 0
    packed = command(*arguments, "--set", "data.source=packed:packed")
    assert not lines(packed, "`distill pack`")


def test_one_class_is_refused_before_anything_is_done(home, refused):
    write_photos(home / "single", ("only",))
    said = refused(1, "run", "small.toml", "--out", "one", "--set", "data.source=folder:single")
    assert "data folder:single has one class, 'only', at least two are needed" in said
    assert not (home / "one").exists()
