"""`distill verify RUN` sees every change, and says what it did not look at."""

import json

import pytest

from distill.stages.verification import look_at
from distill.store.seals import sealed
from tests.distill.cases import (
    STAGES,
    CountingStop,
    flip_data,
    listen_with,
    read_json,
    rewrite_manifest,
)
from tests.distill.run.test_interrupted import unmake

WHOLE = f"every output is as the run left it: {', '.join(STAGES)}"


def edit(name, change):
    """A change by hand to a text of a run."""

    def edited(run):
        text = (run / name).read_text()
        assert change(text) != text
        (run / name).write_text(change(text))

    return edited


def other_digit(field):
    """Another digit in the first number of a field."""

    def change(text):
        place = text.index(f'"{field}": ') + len(field) + 4
        place = next(i for i in range(place, len(text)) if text[i].isdigit())
        return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]

    return change


CHANGES = {
    "mean": (edit("summary.json", other_digit("mean")), "summary.json changed since the run: run"),
    "cut": (edit("summary.json", lambda text: text[:400]), "summary.json changed"),
    "no summary": (lambda run: (run / "summary.json").unlink(), "summary.json changed"),
    "seed": (edit("manifest.json", other_digit("seed")), "manifest.json is not as the run left it"),
    "iterations": (edit("manifest.json", other_digit("iterations")), "manifest.json is not as"),
    "distance": (
        edit("metrics.jsonl", other_digit("distance")),
        "metrics.jsonl of match changed since the run: only curves of the report",
    ),
    "row": (
        edit("metrics.jsonl", lambda text: text.split("\n", 1)[1]),
        "metrics.jsonl of experts changed",
    ),
    "twice": (edit("metrics.jsonl", lambda text: text + text), "metrics.jsonl of experts, "),
    "page": (
        edit("report.html", lambda text: text.replace("Accuracy", "Accurasy", 1)),
        "report.html changed since the run: make it again with `distill report",
    ),
    "measured": (lambda run: flip_data(run / "set.h5", b'"controls"'), "set.h5:measured changed"),
    "class": (lambda run: flip_data(run / "set.h5", b'["zero"'), "set.h5:images changed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_to_a_run_is_seen(name, run_copy, refused):
    change, words = CHANGES[name]
    change(run_copy)
    assert words in refused(1, "verify", run_copy)


@pytest.mark.parametrize("text", [b'"mean": ', b'["zero"', b'"digest"', b'"controls"', b"digits"])
def test_every_flipped_bit_of_a_text_in_a_set_alone_is_seen(text, run_copy, refused):
    flip_data(run_copy / "set.h5", text)
    line = refused(1, "verify", run_copy / "set.h5")
    assert "the file is truncated or damaged: make it again" in line


def test_a_run_that_is_as_it_was_is_said_to_be(finished, command):
    assert command("verify", finished).out == f"{finished}: {WHOLE}\n"
    assert command("verify", finished / "set.h5").out.endswith(": set, whole and readable\n")


def test_a_report_that_was_made_again_is_whole(run_copy, command):
    assert command("report", run_copy).code == 0
    assert command("verify", run_copy).out == f"{run_copy}: {WHOLE}\n"


def test_stages_that_are_not_made_are_named(run_copy):
    manifest = read_json(run_copy / "manifest.json")
    for name in ("project", "evaluate"):
        del manifest["stages"][name]
    rewrite_manifest(run_copy, manifest)
    assert look_at(run_copy).sentence() == (
        "every output is as the run left it: experts, committee, match, relabel; not made yet: "
        "project, evaluate; left by no finished stage, so not checked: evaluation.json, projector"
    )


@pytest.fixture
def stopped(run_copy, recipe, command, monkeypatch):
    """A run that was stopped while it trained experts, and while it tested students."""
    for stage in ("experts", "evaluate"):
        unmake(run_copy, stage)
    for stage, at in (("evaluate", 8), ("experts", 4)):
        stop = listen_with(CountingStop(at))
        monkeypatch.setattr("distill.stages.run_recipe.listen", stop)
        assert command("run", recipe, "--out", run_copy, "--stage", stage, "-q").code == 130
    (run_copy / "votes.json").write_text(json.dumps(sealed({"a": 0.5})))
    return run_copy


KEPT = (
    "checkpoints/*/00000.safetensors",
    "checkpoints/*/jobs.jsonl",
    ".manifest.json",
    "votes.json",
)


@pytest.mark.parametrize("pattern", KEPT)
def test_a_flip_in_what_a_run_goes_on_from_is_noticed(pattern, stopped, refused):
    assert "not checked" not in look_at(stopped).sentence()
    (path,) = stopped.glob(pattern)
    flip_data(path, b"0.")
    name = path.relative_to(stopped)
    line = refused(1, "verify", stopped)
    assert line.endswith(f"{name} changed since the run: it is made again when the run goes on\n")


def test_what_no_stage_left_is_said_not_to_be_checked(run_copy, command):
    (run_copy / "sweep").mkdir()
    (run_copy / "notes.txt").write_text("mine")
    assert command("verify", run_copy).out == (
        f"{run_copy}: {WHOLE}; left by no finished stage, so not checked: notes.txt, sweep\n"
    )


def test_what_an_older_program_wrote_is_said_not_to_be_checked(run_copy):
    manifest = read_json(run_copy / "manifest.json")
    del manifest["digest"]
    for entry in manifest["stages"].values():
        del entry["metrics"]
    (run_copy / "manifest.json").write_text(json.dumps(manifest))
    page = (run_copy / "report.html").read_text().splitlines(keepends=True)
    (run_copy / "report.html").write_text("".join(page[:-1]))
    assert look_at(run_copy).sentence() == (
        f"{WHOLE}; without a digest, so not checked: manifest.json, metrics.jsonl, report.html"
    )


def test_a_folder_in_the_place_of_the_report_is_noticed(run_copy, refused):
    (run_copy / "report.html").unlink()
    (run_copy / "report.html").mkdir()
    assert "report.html changed since the run: it is no file" in refused(1, "verify", run_copy)
