"""What another run has made is taken where this one would make the same."""

import pytest
import torch

from distill.sets.set_file import read_set
from tests.distill.cases import (
    TINY,
    artefacts,
    contents,
    flip_byte,
    read_json,
    rewrite_manifest,
    write_recipe,
)


def taken(outcome):
    assert outcome.code == 0, outcome.err
    return {line.split()[0] for line in outcome.err.splitlines() if "taken from" in line}


def test_what_is_the_same_is_taken_and_the_rest_is_made(finished, recipe, command, tmp_path):
    change = ("--set", "match.iterations=2", "--stage", "experts", "--stage", "match")
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert command("run", recipe, "--out", plain, *change, "--quiet").code == 0
    before = artefacts(finished)
    outcome = command("run", recipe, "--out", other, *change, "--reuse", finished)
    assert taken(outcome) == {"experts"}
    assert artefacts(other) == artefacts(plain)
    assert artefacts(finished) == before
    stages = [read_json(run / "manifest.json")["stages"] for run in (finished, other)]
    # Rows of metrics stay where the stage ran.
    one, two = ({**made["experts"], "metrics": None} for made in stages)
    assert one == two
    assert command("verify", other).code == 0


def test_another_recipe_takes_what_is_not_changed(finished, recipe, command, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(recipe.read_text())
    change = ("--set", "experts.lr=0.02", "--stage", "experts", "--stage", "committee")
    outcome = command("run", other, "--out", tmp_path / "run", *change, "--reuse", finished)
    assert taken(outcome) == {"committee"}


def test_damaged_experts_are_not_taken(run_copy, finished, recipe, command, tmp_path):
    flip_byte(run_copy / "experts.h5", (run_copy / "experts.h5").stat().st_size // 2)
    damaged = (run_copy / "experts.h5").read_bytes()
    out = tmp_path / "other"
    stages = ("--stage", "experts", "--reuse", run_copy)
    assert taken(command("run", recipe, "--out", out, *stages)) == set()
    # Linked files must not be written through.
    assert (run_copy / "experts.h5").read_bytes() == damaged
    assert (out / "experts.h5").read_bytes() == (finished / "experts.h5").read_bytes()


def test_labels_are_added_to_the_images_of_another_run(finished, command, tmp_path):
    labels = "[relabel]\nepochs = 4"
    other = write_recipe(tmp_path, TINY.replace(labels, "[relabel]\nepochs = 2"), "more")
    before, out = artefacts(finished), tmp_path / "more"
    made = ("experts", "committee", "match", "relabel")
    stages = [word for stage in made for word in ("--stage", stage)]
    outcome = command("run", other, "--out", out, *stages, "--reuse", finished)
    assert taken(outcome) == {"experts", "committee", "match"}
    first, second = (read_set(run / "set.h5") for run in (finished, out))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.learned, second.learned)
    assert second.votes.logits.shape[0] == 2
    assert second.measured is None
    assert command("verify", out).code == 0
    assert artefacts(finished) == before


def test_projector_serves_a_set_of_other_images(finished, recipe, command, tmp_path):
    before, out = artefacts(finished), tmp_path / "other"
    stages = ("--set", "match.iterations=2", "--stage", "committee", "--stage", "project")
    outcome = command("run", recipe, "--out", out, *stages, "--reuse", finished)
    assert taken(outcome) == {"committee", "project"}
    assert contents(out / "projector") == contents(finished / "projector")
    assert artefacts(finished) == before
    assert command("verify", out).code == 0


def test_damaged_projector_is_fitted_again(run_copy, finished, recipe, command, tmp_path):
    (weights, *_) = sorted((run_copy / "projector").glob("*.safetensors"))
    flip_byte(weights, weights.stat().st_size // 2)
    out = tmp_path / "other"
    stages = ("--stage", "committee", "--stage", "project", "--reuse", run_copy)
    outcome = command("run", recipe, "--out", out, *stages)
    assert taken(outcome) == {"committee"}
    assert "projector is not there, or not as that run left it" in outcome.err
    assert contents(out / "projector") == contents(finished / "projector")


def test_names_of_a_foreign_manifest_are_no_paths_to_write(run_copy, recipe, command, tmp_path):
    manifest = read_json(run_copy / "manifest.json")
    entry = manifest["stages"]["experts"]
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    for place in (theirs, mine):
        place.mkdir()
        (place / "letter").write_text(place.name)
    # From the folder of either run the same words lead to the letter of its neighbour.
    run_copy.rename(theirs / "run")
    entry["outputs"]["../letter"] = None
    rewrite_manifest(theirs / "run", manifest)
    stages = ("--stage", "experts", "--reuse", theirs / "run")
    assert taken(command("run", recipe, "--out", mine / "run", *stages)) == set()
    assert (mine / "letter").read_text() == "mine"


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_folder_that_is_no_run_is_refused_before_anything_is_done(
    content, recipe, refused, tmp_path
):
    (tmp_path / "no-run").mkdir()
    if content is not None:
        (tmp_path / "no-run" / "manifest.json").write_text(content)
    arguments = ("run", recipe, "--out", tmp_path / "out", "--reuse", tmp_path / "no-run")
    assert "name the folder of a run" in refused(1, *arguments)
    assert not (tmp_path / "out").exists()
