"""Two thousand damaged and forged files, each read by a command: nothing passes unnoticed.

A case ends in one line of error, or well. It is at fault if it ends in a raw error, leaves half of
an output, takes too long, or, where no digest was made to fit the damage, gives another result in
silence or a word of `verify` that all is whole. Each is drawn from its number alone.
"""

import pytest

from distill.__main__ import run
from distill.commands.cli import COMMANDS
from distill.recipes.stages import STAGE_ENTRIES
from tests.distill.cases import CountingStop, copy_run, listen_with, read_json, rewrite_manifest
from tests.distill.fuzz_cases import Tally
from tests.distill.mutations.estate import CHECKPOINTS, GOING_ON, STOPPED, THINGS, build
from tests.distill.mutations.judge import Judge
from tests.distill.run.test_interrupted import unmake

# They read nothing that a stranger or an accident could have changed.
NO_READERS = {"ls", "cp", "doctor", "completion", *STAGE_ENTRIES}


def cases(few, many):
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


def forget_dependents(run, stage):
    """As a run does that begins anew with a stage."""
    manifest = read_json(run / "manifest.json")
    if stage == "match":
        del manifest["stages"]["relabel"]
    if stage != "evaluate":
        del manifest["stages"]["evaluate"]
        for name in ("evaluation.json", "summary.json", "report.html"):
            (run / name).unlink()
    rewrite_manifest(run, manifest)


@pytest.fixture(scope="module")
def estate(finished, recipe, tmp_path_factory):
    """A run and all that is made of it, and runs that were stopped in each stage."""
    folder = tmp_path_factory.mktemp("estate")

    def done(*words):
        assert run([str(word) for word in words]) == 0, words

    build(folder, finished, recipe, done)
    for stage, at in STOPPED.items():
        stopped = copy_run(finished, folder / f"stopped-{stage}")
        unmake(stopped, stage)
        forget_dependents(stopped, stage)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(at)))
            assert run(["run", str(recipe), "--out", str(stopped), "--quiet"]) == 130
    return folder


def test_every_command_reads_something_damaged():
    readers = [reader for thing in (*THINGS, *CHECKPOINTS) for reader in thing.readers]
    assert {reader.words[0] for reader in readers} >= set(COMMANDS) - NO_READERS


def judged(things, name, count, estate, tmp_path):
    # Some cases train for seconds, and the machine may be busy.
    tally = Tally(seconds=120)
    judge = Judge(estate, tmp_path / "work", tally)
    for seed in range(count):
        judge.case(f"{name}{seed}", things)
    tally.check()
    assert judge.outcomes["refused"] > count / 10


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@cases(40, 1800)
def test_damaged_things_are_refused_or_said(count, estate, tmp_path):
    judged(THINGS, "things", count, estate, tmp_path)


@cases(3, 150)
def test_damaged_checkpoints_are_made_again(count, estate, tmp_path):
    judged(CHECKPOINTS, "checkpoints", count, estate, tmp_path)


@pytest.mark.slow
@cases(50, 50)
def test_damaged_runs_go_on(count, estate, tmp_path):
    judged([GOING_ON], "runs", count, estate, tmp_path)
