"""The folder of a run: manifest, metrics, seconds, lock."""

import json

import pytest

from distill.errors import WorkError
from distill.run.checkpoints import Checkpoint
from distill.run.folder import Run, StageTimer, open_run
from distill.store.seals import fits, unsealed
from tests.distill.cases import RUN_FILES, contents


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", {"name": "x"}) as run:
        yield run


def test_metrics_leave_out_a_last_line_that_was_cut(run):
    rows = [{"stage": "match", "step": 0}, {"stage": "match", "step": 1}, {"stage": "experts"}]
    assert run.read_metrics() == []
    run.append_metrics(rows)
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"stage": "mat\xc3')
    assert run.read_metrics() == rows
    run.keep_metrics("match", 1)
    run.append_metrics([{"stage": "match", "step": 1}])
    assert run.read_metrics() == [rows[0], rows[2], rows[1]]
    run.keep_metrics("match")
    assert run.read_metrics() == [rows[2]]
    assert set(contents(run.path)) == RUN_FILES


def test_checkpoints_of_another_key_are_thrown_away(run):
    old = run.checkpoint_folder("match", "a" * 64)
    (old / "state").write_text("old")
    other = run.checkpoint_folder("experts", "a" * 64)
    new = run.checkpoint_folder("match", "b" * 64)
    assert new.is_dir()
    assert other.is_dir()
    assert not old.exists()


def test_manifest_is_kept_when_a_run_is_opened_again(tmp_path):
    with open_run(tmp_path / "run", {"name": "x", "seed": 0}) as run:
        run.record_stage("experts", {"key": "k", "outputs": {}})
    with open_run(tmp_path / "run", {"name": "x", "seed": 1}) as again:
        assert isinstance(again, Run)
        assert again.manifest["stages"] == {"experts": {"key": "k", "outputs": {}}}
        assert again.manifest["recipe"] == {"name": "x", "seed": 1}
        stored = json.loads((tmp_path / "run" / "manifest.json").read_text())
        assert unsealed(stored) == again.manifest
        assert fits(stored)


def test_run_is_held_by_one_user_at_a_time(tmp_path):
    opened = open_run(tmp_path / "run", {"name": "x"})
    opened.__enter__()
    with pytest.raises(WorkError, match="in use"):
        open_run(tmp_path / "run", {"name": "x"}).__enter__()
    opened.__exit__(None, None, None)
    with open_run(tmp_path / "run", {"name": "x"}):
        pass


def test_run_whose_folder_is_moved_stops_and_writes_nothing_where_it_was(tmp_path):
    place, moved = tmp_path / "run", tmp_path / "moved"
    with open_run(place, {"name": "x"}) as run:
        checkpoint = Checkpoint(run, "match", run.checkpoint_folder("match", "key"), print)
        checkpoint.log({"step": 0})
        place.rename(moved)
        for write in (
            run.save,
            lambda: checkpoint.log({"step": 1}),
            lambda: checkpoint.save({}, {}),
            lambda: checkpoint.part(0).save({}, {}),
            lambda: run.record_stage("match", {}),
        ):
            with pytest.raises(WorkError, match="was moved or removed while the run was writing"):
                write()
            assert not place.exists()
    with open_run(moved, {"name": "x"}) as again:
        assert again.read_metrics() == [{"stage": "match", "step": 0}]


def test_run_does_not_write_into_another_in_its_place(tmp_path):
    place = tmp_path / "run"
    with open_run(place, {"name": "x"}) as run:
        place.rename(tmp_path / "moved")
        with open_run(place, {"name": "y"}), pytest.raises(WorkError, match="was moved"):
            run.save()


def test_seconds_are_kept_with_metrics_for_a_process_that_is_killed(monkeypatch, tmp_path):
    now = [50.0]
    monkeypatch.setattr("distill.run.folder.time.monotonic", lambda: now[0])
    run = Run(tmp_path, {"stages": {}})
    run.timer = StageTimer(tmp_path)
    for moment in (52.0, 57.0, 57.5):
        now[0] = moment
        run.append_metrics([{"step": moment}])
    now[0] = 10.0
    # The count of 57.5 is not kept: that of 57.0 was kept less than a second before.
    again = StageTimer(tmp_path)
    now[0] = 13.0
    assert again.seconds == 7.0 + 3.0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "-1", "NaN", "1e999", '"x"', "["])
def test_damaged_count_of_seconds_begins_anew(text, tmp_path):
    (tmp_path / "seconds.json").write_text(text)
    assert 0 <= StageTimer(tmp_path).seconds < 1000
