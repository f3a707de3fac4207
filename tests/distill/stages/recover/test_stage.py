"""Recovery as a stage: every option, resumed runs, refusals."""

import json
import shutil
from typing import get_args

import pytest
import torch

import distill
from distill import names as registry
from distill.__main__ import run
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.recover import RecoverTable
from distill.recipes.tables.select import SelectTable
from distill.run.interrupt import Stop
from distill.sets.set_file import read_set
from tests.distill.cases import (
    CountingStop,
    artefacts,
    contents,
    copy_run,
    listen_with,
    outputs_of,
    read_json,
    rewrite_manifest,
    write_recipe,
)
from tests.distill.making_cases import MEMBERS, PROJECTOR, RECOVER, SELECT, SELECT_TAUGHT

STAGES = ["committee", "recover", "relabel", "evaluate"]


@pytest.fixture(scope="module")
def recovery(tmp_path_factory):
    """The recipe of these tests as a file."""
    return write_recipe(tmp_path_factory.mktemp("recipe"), RECOVER, "recovery")


@pytest.fixture(scope="module")
def recovered(recovery, tmp_path_factory, one_thread):
    """A whole run. Read it; change only a copy."""
    out = tmp_path_factory.mktemp("recovered") / "run"
    assert run(["run", str(recovery), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def taught(recovered, tmp_path):
    """A run folder with the committee alone."""
    out = tmp_path / "taught"
    out.mkdir()
    manifest = read_json(recovered / "manifest.json")
    manifest["stages"] = {"committee": manifest["stages"]["committee"]}
    rewrite_manifest(out, manifest)
    shutil.copy(recovered / "committee.h5", out)
    return out


def rows_of(out, stage="recover"):
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == stage]


def test_whole_run_evaluates_what_it_recovered(recovered):
    assert list(read_json(recovered / "manifest.json")["stages"]) == STAGES
    summary = read_json(recovered / "summary.json")
    (student,) = summary["students"].values()
    assert set(student) == {"hard", "votes"}
    assert set(summary["controls"]["random"]["convnet2:width=4"]) == {"hard", "votes"}
    assert "learned" not in summary["protocol"]
    page = (recovered / "report.html").read_text(encoding="utf-8")
    assert "Recovery loss" in page
    assert "Distance of the BatchNorm statistics" in page


def test_set_holds_valid_pixels_in_class_order(recovered):
    data = distill.load(recovered)
    pixels = data.preprocess.inverse(data.images)
    assert data.images.shape == (20, 1, 8, 8)
    assert data.hard.tolist() == [label for label in range(10) for _ in range(2)]
    assert float(pixels.min()) >= -1e-5
    assert float(pixels.max()) <= 1 + 1e-5
    content = read_set(recovered / "set.h5")
    assert content.learned is None
    assert content.votes.batch_statistics
    assert content.manifest["network"] == ", ".join(MEMBERS)
    assert content.manifest["student_lr"] == 0.01
    assert distill.load(recovered).labels.sum(dim=1).allclose(torch.ones(20))


def test_members_are_drawn_once_per_ipc_index(recovered):
    calls = [row for row in rows_of(recovered) if "call" in row]
    assert [(row["call"], row["step"]) for row in calls] == [(0, 0), (1, 6)]
    for row in calls:
        assert len(set(row["members"])) == 2
        assert set(row["members"]) <= set(MEMBERS)
    accuracies = {row["member"]: row["accuracy"] for row in rows_of(recovered, "committee")}
    for row in calls:
        priors = torch.tensor([100 * accuracies[name] for name in row["members"]])
        assert row["weights"] == pytest.approx(torch.softmax(priors / 5, 0).tolist(), abs=1e-5)


def test_losses_are_logged_every_ten_steps_and_at_the_end(recovered):
    losses = [row["step"] for row in rows_of(recovered) if "cross_entropy" in row]
    assert losses == [0, 5, 6, 11]


def test_recovery_of_a_fixed_seed_repeats_to_the_bit(taught, recovered, recovery, command):
    assert command("run", recovery, "--out", taught, "--quiet").code == 0
    assert outputs_of(taught) == outputs_of(recovered)
    assert artefacts(taught) == artefacts(recovered)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("at", [1, 3, 6, 9])
def test_stopped_recovery_goes_on_to_the_same_end(
    at, large, taught, recovered, recovery, command, monkeypatch, by_parts
):
    if large:
        by_parts()
    arguments = ("recover", recovery, "--out", taught, "--quiet")
    # Ten classes are asked before the first step: their mosaics can be stopped too.
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(10 + at)))
    assert command(*arguments).code == 130
    counting = CountingStop()
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(counting))
    assert command(*arguments).code == 0
    assert counting.checks == 12 - at
    assert outputs_of(taught)["recover"] == outputs_of(recovered)["recover"]
    assert rows_of(taught) == rows_of(recovered)
    assert not contents(taught / "checkpoints")


@pytest.mark.parametrize("large", [False, True])
def test_killed_recovery_goes_on_from_its_checkpoint(
    large, taught, recovered, recovery, command, monkeypatch, by_parts
):
    class Killed(Stop):
        """Dies at the seventh step, with no time to write."""

        checks = 0

        def check(self):
            self.checks += 1
            if self.checks == 17:
                monkeypatch.setattr("distill.run.checkpoints.save_tensors", fail)
                raise MemoryError

    def fail(*_):
        raise MemoryError

    arguments = ("recover", recovery, "--out", taught, "--quiet")
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Killed()))
    if large:
        by_parts()
    assert command(*arguments).code == 1
    monkeypatch.undo()
    if large:
        by_parts()
    counting = CountingStop()
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(counting))
    assert command(*arguments).code == 0
    # The first batch of six steps was kept by itself.
    assert counting.checks == 12 - 6
    assert outputs_of(taught)["recover"] == outputs_of(recovered)["recover"]
    assert rows_of(taught) == rows_of(recovered)


def test_a_large_set_is_recovered_by_workers(taught, recovered, recovery, command, by_parts):
    by_parts()
    assert command("recover", recovery, "--out", taught, "--quiet", "--workers", "2").code == 0
    assert outputs_of(taught)["recover"] == outputs_of(recovered)["recover"]


CHANGES = [
    ["recover.init=real"],
    ["recover.init=noise", "recover.view_area=1", "recover.flip=false", "recover.roll=0"],
    ["recover.factor=2", "recover.ipc=1"],
    ["recover.crops=1"],
    ["recover.candidates=3"],
    ["recover.crop_area=1"],
    ["recover.batches=within"],
    ["recover.batch_size=5"],
    ["recover.schedule=pairs"],
    ["recover.schedule=fixed", "recover.drawn=1"],
    ["recover.drawn=3"],
    ["recover.members=resnet18:width=4", "recover.drawn=1"],
    ["recover.vote_temperature=50"],
    ["recover.bn_weight=0"],
    ["recover.bn_weight=0.1"],
    ["recover.first_bn=1"],
    ["recover.lr=0.3"],
    ["recover.view_area=0.2"],
    ["recover.flip=false"],
    ["recover.roll=3"],
    ["recover.background=kept"],
    ["recover.init=groups"],
    ["recover.init=anchors", "recover.factor=2", "recover.ipc=1"],
    ["recover.aim=groups"],
    ["recover.aim=anchors", "recover.factor=2", "recover.ipc=1"],
    ["recover.aim=directions"],
    ["recover.blends=2"],
    ["recover.blends=2", "recover.blend_kept=0.9"],
    ["recover.blends=2", "recover.patches=nearest"],
    ["recover.blends=2", "recover.patches=nearest", "recover.patch_complexity=1"],
    ["recover.precision=bfloat16"],
    ["recover.iterations=3"],
    ["data.zca=true"],
]


@pytest.mark.parametrize("changes", CHANGES, ids=[" ".join(change) for change in CHANGES])
def test_every_option_changes_the_set(changes, taught, recovered, recovery, command):
    settings = [word for change in changes for word in ("--set", change)]
    outcome = command("recover", recovery, "--out", taught, "--quiet", *settings)
    assert outcome.code == 0, outcome.err
    content = read_set(taught / "set.h5")
    assert content.hard.bincount().tolist() == [len(content.images) // 10] * 10
    pixels = content.preprocess.inverse(content.images)
    assert float(pixels.min()) >= -1e-4
    assert float(pixels.max()) <= 1 + 1e-4
    assert outputs_of(taught)["recover"] != outputs_of(recovered)["recover"]
    before = read_set(recovered / "set.h5").images
    assert content.images.shape != before.shape or not torch.equal(content.images, before)


def test_background_of_whitened_images_is_refused(recovery, tmp_path, command):
    settings = ["--set", "recover.background=kept", "--set", "data.zca=true"]
    outcome = command("recover", recovery, "--out", tmp_path / "run", *settings)
    assert outcome.code == 2
    assert 'recover.background = "kept" reads pixels; set data.zca = false' in outcome.err
    assert not (tmp_path / "run").exists()


def test_every_option_of_the_table_is_used_in_a_test():
    used = {change.partition("=")[0] for changes in CHANGES for change in changes}
    keys = {f"recover.{name}" for name in RecoverTable.model_fields}
    assert keys - used == {"recover.checkpoint_every"}


def test_every_choice_is_listed_as_a_strategy():
    wanted = {
        f"{table}.{key}={choice}"
        for table, model, keys in (
            ("recover", RecoverTable, ("batches", "background", "aim", "patches")),
            ("select", SelectTable, ("features", "difficulty")),
            ("match", MatchTable, ("objective",)),
        )
        for key in keys
        for choice in get_args(model.model_fields[key].annotation)
    }
    wanted |= {"match.labels=votes", "match.labels=projector", "recover.blends"}
    named = {name for name, entry in registry.MAKING.items() if entry.object}
    assert set(registry.MAKING) == wanted | named
    assert {name.partition("=")[0] for name in named} == {
        "match.init",
        "match.label_init",
        "recover.schedule",
        "recover.init",
        "select.method",
    }


def test_diverging_recovery_ends_with_exit_code_3(taught, recovery, refused):
    change = ("--set", "recover.bn_weight=1e30")
    line = refused(3, "recover", recovery, "--out", taught, "--quiet", *change)
    assert "recover diverged at step 0 of batch 0" in line
    assert "lower recover.lr or recover.bn_weight" in line


REFUSED = [
    ("recover.drawn=4", "recover.drawn asks for 4 members at once, but 3 may be drawn"),
    ("recover.members=mlp", "recover.members names mlp, which committee.members lacks"),
    ("recover.candidates=1", "recover.candidates is 1, but ipc 2 with factor 1 needs 2"),
    ("recover.ipc=11", "but ipc=11 needs 11"),
    ("recover.schedule=triples", "recover.schedule: it should be 'random', 'pairs' or 'fixed'"),
    ("recover.patches=nearest", 'recover.patches = "nearest" is for blends; set recover.blends'),
    ("recover.view_area=0", "recover.view_area: it should be greater than 0"),
    ("committee.members=mlp,convnet2", "recover.bn_weight, member mlp: a member has no BatchNorm"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[change for change, _ in REFUSED])
def test_recipe_is_refused_in_one_line(change, words, recovery, refused, tmp_path):
    out = tmp_path / "out"
    more = ("--set", "recover.candidates=20") if "ipc" in change else ()
    line = refused(2, "recover", recovery, "--out", out, *more, "--set", change)
    assert words in line
    assert not out.exists()


def test_tiles_too_small_are_refused(recovery, refused, tmp_path):
    change = ("--set", "recover.factor=5", "--set", "recover.ipc=1", "--set", "data.subset=300")
    more = ("--set", "recover.candidates=25")
    line = refused(2, "recover", recovery, "--out", tmp_path / "out", *change, *more)
    assert "recover.factor cuts images of 8x8 into tiles of 1 pixels" in line


def test_recovery_without_teachers_is_refused(refused, tmp_path):
    path = write_recipe(tmp_path, SELECT.replace("[select]", "[recover]"), "bare")
    assert "[recover] needs teachers" in refused(2, "recover", path, "--out", tmp_path / "out")


def test_set_made_in_another_way_takes_the_place_of_the_first(
    recovered, recovery, command, tmp_path
):
    out = copy_run(recovered, tmp_path / "run")
    other = write_recipe(tmp_path, SELECT_TAUGHT, "recovery")
    assert command("run", other, "--out", out, "--quiet").code == 0
    assert list(read_json(out / "manifest.json")["stages"]) == [
        "committee",
        "select",
        "relabel",
        "evaluate",
    ]
    assert command("verify", out).code == 0
    assert command("run", recovery, "--out", out, "--quiet").code == 0
    assert artefacts(out) == artefacts(recovered)


def test_recovered_set_is_evaluated_by_itself(recovered, command):
    arguments = ("--seeds", "1", "--epochs", "1", "--whole-epochs", "1", "--json", "--quiet")
    outcome = command("evaluate", recovered / "set.h5", *arguments)
    assert outcome.code == 0, outcome.err
    assert set(json.loads(outcome.out)["students"]["convnet2:width=4"]) == {"hard", "votes"}


def test_projector_labels_a_recovered_set(recovered, command, tmp_path):
    out = copy_run(recovered, tmp_path / "run")
    recipe = write_recipe(tmp_path, RECOVER + PROJECTOR, "recovery")
    arguments = ("--set", "evaluate.seeds=1", "--set", "evaluate.labels=hard,projector")
    assert command("run", recipe, "--out", out, "--quiet", *arguments).code == 0
    found = read_json(out / "summary.json")
    assert set(found["students"]["convnet2:width=4"]) == {"hard", "projector"}
    assert outputs_of(out)["recover"] == outputs_of(recovered)["recover"]
