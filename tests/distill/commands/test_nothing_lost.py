"""A command that fails keeps what was good before it, and leaves nothing of its own behind."""

import contextlib
import errno
import os
import resource
from pathlib import Path

import pytest

from distill.commands.cli import COMMANDS
from distill.recipes.stages import STAGE_ENTRIES
from distill.store.files import new_folder
from tests.distill.cases import STUDENT, contents, copy_run, write_recipe
from tests.distill.mutations.estate import HERD

SHORT = ("--students", STUDENT, "--seeds", "1", "--epochs", "1")
# Command -> its words, and how it fails: RUN and OTHER are runs, OUT is a place that is free or
# holds what the command made before.
REPLACING = {
    "encode a copy": ("encode", "RUN", "--codec", "dense", "--out", "OUT", "--quiet"),
    "sweep": ("sweep", "RUN", "--codecs", "topk:k=3", "--out", "OUT", "--quiet", *SHORT),
    "report of two": ("report", "RUN", "OTHER", "--out", "OUT"),
    "audit": ("audit", "RUN", "--references", "0", "--html", "OUT", "--quiet"),
    "inspect": ("inspect", "digits", "--html", "OUT", "--quiet"),
    "pack": ("pack", "digits", "--size", "8", "--out", "OUT", "--quiet"),
}
MAKING = {
    "compress": ("compress", "RUN", "--bytes", "3000", "--out", "OUT"),
    "import": ("import", "NPZ", "--from", "npz", "--out", "OUT"),
    "export set": ("export", "set", "RUN", "--format", "imagefolder", "--out", "OUT"),
    "export projector": ("export", "projector", "RUN", "--format", "compact", "--out", "OUT"),
    "cp": ("cp", "digits", "OUT"),
    "order": ("order", "RUN", "--out", "OUT"),
    "merge": ("merge", "RUN", "OTHER", "--out", "OUT"),
}
CHANGING = {
    "encode": ("encode", "RUN", "--codec", "dense", "--quiet"),
    "evaluate": ("evaluate", "RUN", "--record", "--labels", "hard", "--quiet", *SHORT),
    "report": ("report", "RUN"),
}
IMAGES = ("sweep", "RUN", "--images", "--codings", "frequency", "--out", "OUT", "--quiet")
SWEPT = ("jobs.jsonl", "sweep.json", "curve.svg", "random-0.h5")
READING = {"show", "verify", "ls", "doctor", "completion"}
# Of a run, see test_killed.py; plan writes its calibration as all JSON is written.
# `extend` makes a run of its own, which a test of its own looks at.
ELSEWHERE = {"run", "plan", "extend", *STAGE_ENTRIES}


def test_every_command_is_here():
    named = {words[0] for words in (REPLACING | MAKING | CHANGING).values()}
    assert named | READING | ELSEWHERE >= set(COMMANDS)


@pytest.fixture
def full_disk(monkeypatch):
    """From now on, whatever is whole cannot be put into its place."""

    def begin():
        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

        monkeypatch.setattr("os.replace", refuse)

    return begin


@pytest.fixture
def places(run_copy, finished, tmp_path, command):
    npz = tmp_path / "npz"
    assert command("export", "set", run_copy, "--format", "npz", "--out", npz).code == 0
    out = tmp_path / "some" / "where"
    named = {"RUN": run_copy, "OTHER": copy_run(finished, tmp_path / "other"), "NPZ": npz}
    return {**named, "OUT": out}


def spelled(words, places):
    return [places.get(word, word) for word in words]


@pytest.mark.parametrize("name", [*REPLACING, *MAKING])
def test_a_command_that_fails_leaves_nothing(name, places, refused, full_disk, tmp_path):
    before = contents(tmp_path)
    full_disk()
    refused(1, *spelled((REPLACING | MAKING)[name], places))
    # A sweep keeps its finished students, and says so.
    left = {path for path in contents(tmp_path) if not path.endswith("jobs.jsonl")}
    assert left == set(before)
    assert name == "sweep" or not (tmp_path / "some").exists()


@pytest.mark.parametrize("name", REPLACING)
def test_a_command_that_fails_keeps_what_it_made_before(
    name, places, command, refused, full_disk, tmp_path
):
    words = spelled(REPLACING[name], places)
    assert command(*words).code == 0
    assert command(*words).code == 0
    before = contents(tmp_path)
    full_disk()
    refused(1, *words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", CHANGING)
def test_a_command_that_fails_changes_nothing_in_a_run(name, places, refused, full_disk, tmp_path):
    before = contents(tmp_path)
    full_disk()
    refused(1, *spelled(CHANGING[name], places))
    assert contents(tmp_path) == before


@contextlib.contextmanager
def files_at_most(size):
    """No file may grow beyond so many bytes: a write fails in its middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 600, 9_000])
@pytest.mark.parametrize("name", [*REPLACING, *MAKING, *CHANGING, "sweep of images"])
def test_a_disk_that_fills_in_the_middle_is_said(name, size, places, command, tmp_path):
    words = spelled({**REPLACING, **MAKING, **CHANGING, "sweep of images": IMAGES}[name], places)
    if name == "cp":
        # It makes no folders.
        places["OUT"].parent.mkdir(parents=True)
    before = contents(tmp_path)
    with files_at_most(size):
        outcome = command(*words)
    if outcome.code == 0:
        # All that it wrote is smaller: what a limit cut has as many bytes as that.
        written = contents(tmp_path).items() - before.items()
        assert all((tmp_path / path).stat().st_size < size for path, _ in written)
        return
    assert outcome.code == 1, outcome.err
    # Notes on what was left out may come first.
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcome.err
    assert "no space is left" in lines[0]
    now = contents(tmp_path)
    if "sweep" in name:
        # It keeps its finished students, and the images that they are trained on.
        now = {path: digest for path, digest in now.items() if not path.startswith("some/")}
        assert not list(tmp_path.rglob("*.tmp"))
    assert now == before


def test_an_extension_that_fails_at_its_end_goes_on_from_what_it_made(
    places, command, refused, tmp_path
):
    recipe = write_recipe(tmp_path, HERD, "herd")
    small = ("--set", "data.subset=100", "--set", "data.size=8", "--quiet")
    words = ("extend", places["RUN"], "--data", "digits", "--recipe", recipe, *small, "--out")
    assert command(*words, tmp_path / "whole").code == 0
    before = contents(tmp_path)
    with pytest.MonkeyPatch.context() as patch:

        def full(path, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        patch.setattr("distill.stages.extend.write_set", full)
        assert "no space is left" in refused(1, *words, places["OUT"])
    now = contents(tmp_path)
    assert {path: now[path] for path in before} == before
    assert {Path(path).parts[2] for path in now.keys() - before.keys()} == {"new"}
    assert command(*words, places["OUT"]).code == 0
    assert contents(places["OUT"])["set.h5"] == contents(tmp_path / "whole")["set.h5"]


FOREIGN = {
    **{name: (words, "") for name, words in (REPLACING | MAKING).items() if name != "sweep"},
    **{f"sweep over {name}": (REPLACING["sweep"], name) for name in SWEPT},
    "images over kept": (IMAGES, "kept-ab.h5"),
    "pack over shard": (REPLACING["pack"], "train-0000.h5"),
    "export over set": (MAKING["export set"], "set.npz"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_of_others_is_not_written_over(name, places, refused, tmp_path):
    words, inside = FOREIGN[name]
    out = places["OUT"]
    (out if inside else out.parent).mkdir(parents=True)
    (out / inside if inside else out).write_text("{}\nprecious\n")
    before = contents(tmp_path)
    line = refused(1, *spelled(words, places))
    assert "name another" in line or "name a new" in line or "name the" in line
    assert contents(tmp_path) == before


def test_a_folder_is_back_where_the_new_one_could_not_be_put(tmp_path, monkeypatch):
    place = tmp_path / "a" / "folder"
    with new_folder(place) as folder:
        (folder / "x").write_text("old")
    real, calls = os.replace, []

    def fail_at_the_second(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken")
        real(*paths)

    monkeypatch.setattr("os.replace", fail_at_the_second)
    with pytest.raises(OSError, match="broken"), new_folder(place, lambda folder: True) as folder:
        (folder / "x").write_text("new")
    assert contents(tmp_path).keys() == {"a/folder/x"}
    assert (place / "x").read_text() == "old"
    assert os.listdir(place.parent) == ["folder"]


def test_parents_that_were_made_go_again(tmp_path):
    with pytest.raises(ValueError, match="x"), new_folder(tmp_path / "a" / "b" / "c"):
        raise ValueError("x")
    assert not (tmp_path / "a").exists()
