"""Two thousand damaged and forged files, each read by a command: nothing passes unnoticed.

A case ends in one line of error, or well. It is at fault if it ends in a raw error, leaves half of
an output, takes too long, or, where no digest was made to fit the damage, gives another result in
silence or a word of `verify` that all is whole. Each is drawn from its number alone.
"""

import pytest

from distill.__main__ import run
from distill.commands.cli import COMMANDS
from distill.names import EXPERT_LAYOUTS, FORMATS, LAYOUTS
from distill.recipes.stages import STAGE_ENTRIES
from projectors.codecs.registry import CODECS
from tests.distill.fuzz_cases import Tally
from tests.distill.mutations import estate as own
from tests.distill.mutations import foreign, optional, stopped
from tests.distill.mutations.judge import Judge

THINGS = (*own.THINGS, *foreign.THINGS)
# They read nothing that a stranger or an accident could have changed; stages are runs.
NO_READERS = {"ls", "doctor", "completion", *STAGE_ENTRIES}


def cases(few, many):
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def estate(finished, recipe, tmp_path_factory):
    """A run and all that is made of it, files of others, and work that was stopped."""
    folder = tmp_path_factory.mktemp("estate")

    def done(*words):
        assert run([str(word) for word in words]) == 0, words

    own.build(folder, finished, recipe, done)
    foreign.build(folder)
    stopped.build(folder, finished, run)
    return folder


@pytest.fixture(scope="module", autouse=True)
def only_our_codecs():
    """The codec of a user's own that these commands register is forgotten again."""
    before = dict(CODECS)
    yield
    for name in CODECS.keys() - before.keys():
        del CODECS[name]


def readers():
    return [reader for thing in (*THINGS, *stopped.CHECKPOINTS) for reader in thing.readers]


def test_every_command_reads_something_damaged():
    assert {reader.words[0] for reader in readers()} >= set(COMMANDS) - NO_READERS


def test_every_format_and_layout_is_among_them():
    words = {word for reader in readers() for word in reader.words}
    assert words >= {*LAYOUTS, *EXPERT_LAYOUTS, *FORMATS} - {"parquet"}


def judged(things, name, count, estate, tmp_path):
    # Some cases train for seconds, and the machine may be busy.
    tally = Tally(seconds=120)
    judge = Judge(estate, tmp_path / "work", tally)
    for seed in range(count):
        judge.case(f"{name}{seed}", things)
    tally.check()
    return judge.outcomes


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@cases(40, 2000)
def test_damaged_things_are_refused_or_said(count, estate, tmp_path):
    outcomes = judged(THINGS, "things", count, estate, tmp_path)
    assert outcomes["refused"] > count / 10


@cases(4, 200)
def test_damaged_checkpoints_are_made_again(count, estate, tmp_path):
    outcomes = judged(stopped.CHECKPOINTS, "checkpoints", count, estate, tmp_path)
    assert outcomes["refused"] > count / 10


@cases(2, 40)
@pytest.mark.parametrize("name", optional.GROUPS)
def test_damage_to_what_other_packages_write_is_refused_or_said(
    name, count, estate, tmp_path, monkeypatch
):
    group = optional.GROUPS[name]
    for module in group.needs:
        pytest.importorskip(module)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if "datasets" in group.needs:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def done(*words):
        assert run([str(word) for word in words]) == 0, words

    mark = estate / f"{name}.built"
    if not mark.exists():
        group.build(estate, done)
        mark.touch()
    judged(group.things, name, count, estate, tmp_path)


@pytest.mark.slow
@cases(50, 50)
def test_damaged_runs_go_on(count, estate, tmp_path):
    outcomes = judged([own.GOING_ON], "runs", count, estate, tmp_path)
    assert outcomes["refused"] > count / 10
