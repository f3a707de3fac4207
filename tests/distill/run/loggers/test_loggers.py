"""Metrics in other programs: what they are told, and what becomes of those that fail."""

import json
import math
import sys
import types

import pytest

from distill.errors import InterruptedRunError
from distill.names import LOGGERS, chosen_loggers, resolve
from distill.recipes.loading import load_recipe
from distill.run.folder import Run
from distill.run.loggers import listening, scalars_of
from distill.run.progress import Progress
from distill.stages.run_recipe import run_recipe
from tests.distill.cases import CountingStop, listen_with


class Recorder:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.calls, self.points = [], []

    def begin(self, folder, recipe):
        self.calls.append(("begin", folder, recipe["name"]))

    def scalar(self, name, value, step):
        self.points.append((name, value, step))

    def end(self):
        self.calls.append(("end",))


@pytest.mark.parametrize(
    ("row", "step", "found"),
    [
        (
            {"stage": "match", "step": 3, "distance": 0.5, "student_lr": 0.1, "start": None},
            3,
            [("match/distance", 0.5), ("match/student_lr", 0.1)],
        ),
        (
            {"stage": "experts", "expert": 0, "epoch": 2, "accuracy": 0.9},
            2,
            [("experts/0/accuracy", 0.9)],
        ),
        (
            {"stage": "evaluate", "group": "students", "student": "mlp", "labels": "hard"}
            | {"seed": 1, "accuracy": 0.7},
            1,
            [("evaluate/students/mlp/hard/accuracy", 0.7)],
        ),
        ({"stage": "match", "step": 1, "distance": math.nan, "weights": [1, 2]}, 1, []),
        (
            {"stage": "relabel", "member": "a", "weight": 1, "kept": True},
            0,
            [("relabel/a/weight", 1)],
        ),
    ],
)
def test_a_row_is_its_numbers_by_stage_owner_and_key(row, step, found):
    assert scalars_of(row) == (step, found)


def test_every_number_of_a_run_arrives_once(recipe, tmp_path):
    recorder, out = Recorder(), tmp_path / "run"
    loggers = Progress(quiet=True, loggers={"recorder": recorder})
    run_recipe(load_recipe(str(recipe)), out, ("experts", "match"), progress=loggers)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    wanted = [
        (name, value, step) for step, values in map(scalars_of, rows) for name, value in values
    ]
    assert recorder.points == wanted
    assert {name for name, _, _ in wanted} >= {"match/distance", "experts/1/accuracy"}
    assert recorder.calls == [("begin", out, "tiny"), ("end",)]


def test_an_interrupted_run_tells_no_row_twice(recipe, tmp_path, monkeypatch):
    resolved, told, stopped = load_recipe(str(recipe)), [], []
    for at in (9, None):
        monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(at)))
        recorder = Recorder()
        progress = Progress(quiet=True, loggers={"recorder": recorder})
        try:
            run_recipe(resolved, tmp_path / "run", ("experts", "match"), progress=progress)
        except InterruptedRunError:
            stopped.append(at)
        assert recorder.calls[-1] == ("end",)
        told += [point for point in recorder.points if point[0] == "match/distance"]
    assert stopped == [9]
    assert [step for _, _, step in told] == list(range(6))


def test_a_logger_that_fails_is_said_once_and_the_others_go_on(tmp_path):
    said, good = [], Recorder()
    bad = types.SimpleNamespace(
        begin=lambda folder, recipe: None, scalar=lambda *point: 1 / 0, end=lambda: None
    )
    with listening({"bad": bad, "good": good}, tmp_path, {"name": "x"}, said.append) as hear:
        for step in range(3):
            hear([{"stage": "match", "step": step, "distance": 1.0}])
    assert said == ["note: bad shows no more metrics (ZeroDivisionError: division by zero)"]
    assert len(good.points) == 3


def test_rows_of_a_reader_are_told_to_nobody(tmp_path):
    heard = []
    run = Run(tmp_path, read_only=True)
    run.hear = heard.append
    run.append_metrics([{"stage": "match", "step": 0}])
    assert heard == []


def test_tensorboard_is_the_default_where_it_is_installed(monkeypatch):
    for there, names in ((True, ["tensorboard"]), (False, [])):
        monkeypatch.setattr("distill.names.loggers.find_spec", lambda name, there=there: there)
        assert [entry.name for entry in chosen_loggers(())] == names
    monkeypatch.setattr("distill.names.loggers.find_spec", lambda name: True)
    assert chosen_loggers(("none",)) == []
    assert [entry.name for entry in chosen_loggers(("wandb", "mlflow", "wandb"))] == [
        "wandb",
        "mlflow",
    ]


def test_a_logger_that_is_not_installed_is_refused_before_the_folder(
    recipe, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr("distill.names.loggers.find_spec", lambda name: None)
    line = refused(1, "run", recipe, "--out", tmp_path / "run", "--log", "wandb")
    assert "install limbeck[wandb]" in line
    assert not (tmp_path / "run").exists()
    assert "did you mean mlflow?" in refused(
        2, "run", recipe, "--out", tmp_path / "run", "--log", "mlflw"
    )


POINTS = [("match/distance", 0.5, 0), ("match/distance", 0.25, 1), ("experts/0/accuracy", 0.9, 1)]
RECIPE = {"name": "tiny", "seed": 0, "data": {"source": "digits"}, "refine": None}


def show(name, folder):
    logger = resolve(LOGGERS[name])()
    logger.begin(folder, RECIPE)
    for point in POINTS:
        logger.scalar(*point)
    logger.end()


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_the_curves(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'limbeck[tensorboard]'")
    show("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("match/distance")]
    assert found == [(0, 0.5), (1, 0.25)]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_the_curves(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'limbeck[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    show("mlflow", tmp_path / "run")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("limbeck")
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "match/distance")
    assert [(one.step, one.value) for one in history] == [(0, 0.5), (1, 0.25)]
    assert found.data.params == {"name": "tiny", "seed": "0", "data.source": "digits"}
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")


def test_wandb_is_told_points_with_a_step_for_each_stage(tmp_path, monkeypatch):
    calls = []

    class Stub:
        def define_metric(self, name, *, step_metric):
            calls.append((name, step_metric))

        def log(self, values):
            calls.append(values)

        def finish(self):
            calls.append("finish")

    def init(*, project, name, config, dir):
        calls.append((project, name, config["name"]))
        return Stub()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    show("wandb", tmp_path / "run")
    assert calls == [
        ("limbeck", "run", "tiny"),
        ("match/distance", "match/step"),
        {"match/distance": 0.5, "match/step": 0},
        {"match/distance": 0.25, "match/step": 1},
        ("experts/0/accuracy", "experts/step"),
        {"experts/0/accuracy": 0.9, "experts/step": 1},
        "finish",
    ]


@pytest.mark.filterwarnings("ignore")
def test_wandb_takes_the_calls_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'limbeck[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "run").mkdir()
    show("wandb", tmp_path / "run")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
