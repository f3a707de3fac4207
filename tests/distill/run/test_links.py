"""Links in a run that lead out of it are refused by every command, and never written through."""

import os
import shutil

import pytest

from distill.commands.cli import COMMANDS as CLI
from distill.errors import WorkError
from distill.store.files import atomic_path, new_folder, refuse_links, write_text
from distill.store.jsonl import append_lines
from tests.distill.cases import contents, copy_run, write_recipe
from tests.distill.making_cases import SELECT

FILES = (
    ".lock",
    "manifest.json",
    ".manifest.json",
    "metrics.jsonl",
    "set.h5",
    "experts.h5",
    "committee.h5",
    "evaluation.json",
    "summary.json",
    "report.html",
    "votes.json",
    ".set.h5.PID.tmp",
    ".manifest.json.PID.tmp",
)
FOLDERS = ("checkpoints", "projector", "sweep", "tensorboard")
COMMANDS = (
    ("run", "RECIPE", "--out", "RUN", "--quiet"),
    ("evaluate", "RUN", "--quiet"),
    ("evaluate", "SET", "--quiet"),
    ("encode", "RUN", "--codec", "dense", "--quiet"),
    ("compress", "RUN", "--bytes", "3000", "--out", "NEW"),
    ("sweep", "RUN", "--codecs", "dense", "--out", "NEW", "--quiet"),
    ("report", "RUN"),
    ("show", "RUN"),
    ("verify", "RUN"),
    ("export", "set", "RUN", "--format", "npz", "--out", "NEW"),
    ("export", "projector", "RUN", "--format", "compact", "--out", "NEW"),
    ("export", "hub", "RUN", "hf://OWNER/NAME"),
    ("export", "hub", "SET", "hf://OWNER/NAME"),
    ("evaluate", "RUN", "--record", "--quiet"),
    ("evaluate", "SET", "--steps", "2", "--quiet"),
    ("report", "RUN", "FINISHED", "--out", "NEW"),
    ("verify", "SET", "--accuracy", "--quiet"),
    ("order", "SET", "--out", "NEW"),
    ("merge", "SET", "FINISHED", "--out", "NEW"),
    ("merge", "FINISHED", "RUN", "--out", "NEW"),
    ("extend", "SET", "--data", "digits", "--recipe", "RECIPE", "--out", "NEW", "--quiet"),
    ("audit", "SET", "--quiet"),
    ("inspect", "digits", "--experts", "RUN", "--quiet"),
    ("run", "RECIPE", "--out", "NEW", "--reuse", "RUN", "--quiet"),
    *(
        (stage, "RECIPE", "--out", "RUN", "--quiet")
        for stage in ("experts", "project", "match", "relabel")
    ),
)
# They read no run's folder, or are stages as those above that this recipe has no table for.
OTHERS = {
    "recover",
    "select",
    "refine",
    "ls",
    "cp",
    "doctor",
    "completion",
    "plan",
    "pack",
    "import",
}


def test_every_command_that_reads_a_run_is_here():
    assert {words[0] for words in COMMANDS} == set(CLI) - OTHERS


@pytest.fixture(scope="module")
def template(finished, tmp_path_factory):
    """A run to link into, and what lies outside."""
    return copy_run(finished, tmp_path_factory.mktemp("template") / "run")


def link(run, name, outside):
    """Move a part of the run outside, and leave a link."""
    target = outside / name.strip(".")
    if (run / name).exists():
        (run / name).rename(target)
    elif name in FOLDERS:
        target.mkdir()
    else:
        target.write_text("precious")
    (run / name).symlink_to(target)


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_run_with_a_link_that_leads_out_is_refused(name, run_copy, recipe, refused, tmp_path):
    name = name.replace("PID", str(os.getpid()))
    outside = tmp_path / "outside"
    outside.mkdir()
    link(run_copy, name, outside)
    before = contents(tmp_path)
    line = refused(1, "run", recipe, "--out", run_copy, "--quiet")
    assert f"{run_copy / name} is a link that leads out of {run_copy}" in line
    assert contents(tmp_path) == before


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_refuses_a_run_with_such_a_link(
    words, run_copy, finished, recipe, refused, tmp_path
):
    outside = tmp_path / "outside"
    outside.mkdir()
    link(run_copy, "projector", outside)
    before = contents(tmp_path)
    places = {
        "RECIPE": recipe,
        "RUN": run_copy,
        "SET": run_copy / "set.h5",
        "NEW": tmp_path / "n",
        "FINISHED": finished,
    }
    line = refused(1, *(places.get(word, word) for word in words))
    assert "is a link that leads out of" in line
    assert contents(tmp_path) == before
    assert not (tmp_path / "n").exists()


LAID = {
    "extend": ("extend", "RUN", "--data", "digits", "--recipe", "HERD", "--out", "LAID", "--quiet"),
    "sweep": ("sweep", "RUN", "--codecs", "topk:k=3", "--out", "LAID", "--quiet"),
    "images": ("sweep", "RUN", "--images", "--codings", "frequency", "--out", "LAID", "--quiet"),
}


@pytest.mark.parametrize("name", ["new", "jobs.jsonl", "image-jobs.jsonl"])
@pytest.mark.parametrize("verb", LAID)
def test_nothing_is_written_through_a_folder_that_a_stranger_laid(
    verb, name, finished, refused, tmp_path
):
    laid, outside = tmp_path / "laid", tmp_path / "outside"
    laid.mkdir()
    outside.mkdir()
    (laid / name).symlink_to(outside / name)
    if name == "new":
        (outside / name).mkdir()
    text = SELECT.replace("candidates = 4\ncrops = 2\ncrop_area = 0.5\n", 'method = "random"\n')
    recipe = write_recipe(tmp_path, text, "herd")
    before = contents(tmp_path)
    places = {"RUN": finished, "LAID": laid, "HERD": recipe}
    line = refused(1, *(places.get(word, word) for word in LAID[verb]))
    assert f"{laid / name} is a link that leads out of {laid}" in line
    assert contents(tmp_path) == before


def test_links_within_the_run_and_a_link_to_the_run_are_used(run_copy, recipe, command, tmp_path):
    (run_copy / "kept").mkdir()
    (run_copy / "experts.h5").rename(run_copy / "kept" / "experts.h5")
    (run_copy / "experts.h5").symlink_to("kept/experts.h5")
    (tmp_path / "latest").symlink_to(run_copy)
    refuse_links(tmp_path / "latest")
    assert command("run", recipe, "--out", tmp_path / "latest", "--quiet").code == 0


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    shutil.copytree(tmp_path, tmp_path / "folder")
    for name in ("file", f".file.{os.getpid()}.tmp", "rows", "new"):
        (tmp_path / name).symlink_to("folder" if name == "new" else "precious")
    write_text(tmp_path / "file", "x")
    with atomic_path(tmp_path / "file") as temporary:
        assert not temporary.exists()
        temporary.write_text("y")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        append_lines(tmp_path / "rows", [{}])
    with pytest.raises(OSError, match="it is a link"), new_folder(tmp_path / "new"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "y"
    assert os.listdir(tmp_path / "folder") == ["precious"]


def test_a_link_deep_in_a_folder_is_found(tmp_path):
    (tmp_path / "run" / "a" / "b").mkdir(parents=True)
    (tmp_path / "run" / "a" / "b" / "c").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WorkError, match="is a link that leads out"):
        refuse_links(tmp_path / "run")


@pytest.mark.parametrize("name", ["summary.json", "votes.json", "projector/head.safetensors"])
def test_a_pipe_in_a_run_is_not_waited_for(name, run_copy, refused):
    path = run_copy / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for words in (("show",), ("verify",), ("report",)):
        assert f"{path} is a pipe or a device" in refused(1, *words, run_copy)


def test_a_pipe_in_the_place_of_a_document_is_not_waited_for(recipe, refused, tmp_path):
    path = tmp_path / "machine.json"
    os.mkfifo(path)
    assert "it is no file" in refused(1, "plan", recipe, "--calibration", path)


def test_a_pipe_among_pictures_or_arrays_is_not_waited_for(refused, tmp_path):
    (tmp_path / "set" / "cat").mkdir(parents=True)
    for name in ("set/cat/0.png", "data.pt", "set.npz"):
        os.mkfifo(tmp_path / name)
    words = ("--out", tmp_path / "out.h5")
    for layout, name in (("folder", "set"), ("dc", "data.pt"), ("npz", "set.npz")):
        more = ("--size", "8", "--statistics", "cifar10") if layout == "dc" else ()
        assert "pipe" in refused(1, "import", tmp_path / name, "--from", layout, *words, *more)
    words = ("pack", f"npz:{tmp_path / 'set.npz'}", "--out", tmp_path / "pack", "--quiet")
    assert "pipe" in refused(1, *words)


def test_a_pipe_is_not_appended_to(tmp_path):
    os.mkfifo(tmp_path / "jobs.jsonl")
    with pytest.raises(OSError, match="it is a pipe or a device"):
        append_lines(tmp_path / "jobs.jsonl", [{}])
