import json

import numpy as np
import pytest
import torch
from distill_cases import TINY, write_recipe

import distill.plan
from distill.plan.clock import Clock, Timed
from distill.plan.memory import LiveBytes, matching_peaks
from distill.plan.shapes import DataShape, shape_of
from distill.plan.sizes import expert_buffer, label_bytes, set_file
from distill.plan.times import Part, StageTime
from distill.recipe import check_recipe, load_recipe
from distill.store.files import tree_bytes
from distill.store.sets import read_set
from synth.networks import ConvNet
from synth.parameters import parameter_vector

FILES = {"experts": "experts.h5", "committee": "committee.h5", "set": "set.h5"}


@pytest.fixture(scope="module", autouse=True)
def hurry():
    """The calibration with as few repetitions as there can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.plan.clock.BUDGET_SECONDS", 0.0)
        patch.setattr("distill.plan.clock._LEAST_CALLS", 2)
        yield


@pytest.fixture(scope="module")
def plan(recipe):
    return distill.plan.make_plan(load_recipe(str(recipe)))


def test_bytes_of_files_are_those_of_a_real_run(plan, finished):
    for name, file in FILES.items():
        real = (finished / file).stat().st_size
        assert plan["disk"][name]["bytes"] == pytest.approx(real, rel=0.25), name
    assert plan["disk"]["projector"]["bytes"] == tree_bytes(finished / "projector")
    assert plan["disk"]["projector"]["external"] == 0


def test_bytes_of_images_and_labels_are_exact(plan, finished):
    summary = json.loads((finished / "summary.json").read_text())["bytes"]
    assert plan["images"]["images"] == summary["images"]
    assert plan["images"]["preprocess"] == 0
    assert plan["labels"] == summary["sources"]
    assert sum(plan["labels"].values()) == summary["labels"]
    assert plan["labels"]["learned"] == read_set(finished / "set.h5").learned.numel() * 4


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_bytes_of_experts_follow_window_and_storage(storage, recipe, tmp_path, command):
    changes = [f"experts.storage={storage}", "experts.keep=window", "experts.count=3"]
    sets = [part for change in changes for part in ("--set", change)]
    assert command("experts", recipe, "--out", tmp_path / "run", "--quiet", *sets).code == 0
    resolved = load_recipe(str(recipe), changes)
    found = expert_buffer(resolved, shape_of(resolved.data))
    real = (tmp_path / "run" / "experts.h5").stat().st_size
    assert found["bytes"] == pytest.approx(real, rel=0.25)
    assert (found["snapshots"], found["storage"]) == (3, storage)


def test_parameters_are_exact(plan):
    spec = "convnet2:width=4"
    network = ConvNet(1, (8, 8), 10, depth=2, width=4)
    assert plan["parameters"][spec] == len(parameter_vector(network))
    assert set(plan["parameters"]) == {
        spec,
        "convnet2:width=8:norm=batch",
        "vgg11:width=4:norm=batch",
        "resnet18:width=4",
    }


def test_published_parameter_count_of_convnet3():
    resolved = load_recipe("digits", ["data.size=32", "data.channels=3"])
    shape = shape_of(resolved.data)
    network = distill.plan.meta_network("convnet3:width=128", shape)
    assert distill.plan.parameter_count(network) == 320_010


def test_plan_knows_the_shape_of_sources_without_their_files():
    shape = shape_of(load_recipe("fashion-mnist-ipc1", ["data.source=fashion-mnist:/none"]).data)
    assert shape == DataShape(10, 1, (28, 28), 20_000, 6_000, 10_000)


def test_shape_of_digits_is_that_of_the_data(finished):
    shape = shape_of(load_recipe("digits").data)
    assert (shape.train, shape.test, shape.image) == (1080, 597, (1, 16, 16))


def test_shape_of_other_sources_is_read_from_them(tmp_path):
    labels = np.arange(60) % 3
    np.savez(tmp_path / "x.npz", images=np.zeros((60, 9, 9, 3), np.uint8), labels=labels)
    raw = {"data": {"source": f"npz:{tmp_path / 'x.npz'}"}, "experts": {}, "match": {"ipc": 1}}
    shape = shape_of(check_recipe(raw, "recipe x").data)
    assert (shape.classes, shape.image) == (3, (3, 9, 9))
    assert shape.train + shape.validation + shape.test == 60


def test_whitening_and_factor_count():
    resolved = load_recipe("digits", ["match.factor=2", "match.ipc=3"])
    assert label_bytes(resolved, shape_of(resolved.data))["learned"] == 3 * 10 * 4 * 10 * 4
    before = set_file(resolved, shape_of(resolved.data))
    whitened = resolved.model_copy(update={"data": resolved.data.model_copy(update={"zca": True})})
    more = set_file(whitened, shape_of(whitened.data)) - before
    assert more == pytest.approx(4 * (2 * 256**2 + 256), abs=10)


def peaks(*changes):
    small = ["experts.network=convnet2:width=8", "match.inner_steps=12", *changes]
    resolved = load_recipe("digits", small)
    return matching_peaks(resolved, shape_of(resolved.data))


def test_memory_of_a_replay_grows_by_one_vector_a_step_and_unrolling_by_a_graph():
    short, long = peaks("match.inner_steps=12"), peaks("match.inner_steps=24")
    vector = 4 * distill.plan.parameter_count(
        distill.plan.meta_network("convnet2:width=8", DataShape(10, 1, (16, 16), 1, 1, 1))
    )
    assert long["adjoint"] - short["adjoint"] == 12 * vector
    assert long["unrolled"] > 1.8 * short["unrolled"]
    assert short["unrolled"] > 5 * short["adjoint"]
    assert short["frozen"] <= short["adjoint"]


def test_memory_with_fewer_vectors_on_the_device_is_smaller():
    whole = peaks("match.inner_steps=100")["adjoint"]
    root = peaks("match.inner_steps=100", "match.snapshots=sqrt")["adjoint"]
    host = peaks("match.inner_steps=100", "match.snapshots=offload")["adjoint"]
    assert host < root < whole


def test_live_bytes_are_those_that_an_allocation_holds():
    with LiveBytes("cpu") as live:
        first = torch.zeros(1000)
        view = first[:10]
        second = first + 1
        assert live.now == 8000
        del first
        assert live.now == 8000, "a view keeps its base"
        del view
        assert live.now == 4000
        third = second * 2
        del third, second
    assert live.now == 0
    assert live.peak == 8000


def test_seconds_are_units_times_their_time():
    unit = Timed("step", 0.5, 10, 10, 4)
    assert StageTime((Part(3, unit), Part(1, unit))).seconds == 2.0
    assert StageTime((), "not measured: why").seconds is None


def test_clock_scales_a_batch_that_is_too_large_and_measures_once(monkeypatch):
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"))
    now, sizes = [0.0], []
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"distill.plan.clock.time.{name}", lambda: now[0])

    def work(size):
        sizes.append(size)

        def call():
            now[0] += 0.1 * size

        return call, 2

    found = clock.time("work", 1000, work)
    assert found.seconds == pytest.approx(50.0)
    assert found.measured_batch == 4
    assert clock.time("work", 1000, work) is found
    assert sizes == [4]


def test_clock_takes_the_wanted_batch_where_it_can():
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"))
    found = clock.time("sum", 64, lambda size: (lambda: clock.images(size).sum(), 1))
    assert found.measured_batch == found.batch == 64
    assert found.units >= 2


def test_clock_that_is_late_makes_one_call(monkeypatch):
    monkeypatch.setattr("distill.plan.clock.HURRY_SECONDS", -1.0)
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"))
    found = clock.time("sum", 64, lambda size: (lambda: clock.images(size).sum(), 1))
    assert (found.measured_batch, found.units) == (4, 1)


def test_plan_has_a_time_for_every_stage(plan):
    stages = plan["time"]["stages"]
    assert list(stages) == ["experts", "match", "committee", "relabel", "project", "evaluate"]
    for stage in stages.values():
        assert stage["seconds"] > 0
        total = sum(part["times"] * part["seconds"] for part in stage["parts"])
        assert total == pytest.approx(stage["seconds"])
    assert plan["time"]["seconds"] == pytest.approx(sum(s["seconds"] for s in stages.values()))
    steps = {part["what"]: part["times"] for part in stages["experts"]["parts"]}
    assert steps[next(name for name in steps if name.startswith("training step"))] == 2 * 3 * 5


MATCH_ONLY = TINY[: TINY.index("[committee]")]


def test_json_has_one_shape(tmp_path, command):
    outcome = command("plan", write_recipe(tmp_path, MATCH_ONLY), "--json", "--set", "match.ipc=2")
    assert outcome.code == 0
    assert outcome.err == ""
    found = json.loads(outcome.out)
    assert set(found) == {
        "recipe", "data", "parameters", "disk", "images", "labels", "memory", "time"
    }  # fmt: skip
    assert found["recipe"] == "tiny"
    assert found["images"]["images"] == 2 * 10 * 64 * 4
    assert set(found["labels"]) == {"hard", "learned"}
    assert set(found["disk"]) == {"experts", "set"}
    assert set(found["memory"]["matching"]) == {"adjoint", "frozen", "unrolled"}
    assert list(found["time"]["stages"]) == ["experts", "match"]


def test_text_names_what_was_measured(tmp_path, command):
    text = command("plan", write_recipe(tmp_path, MATCH_ONLY)).out
    for words in ("parameters", "disk", "memory of matching", "(this recipe's)", "of MTT's"):
        assert words in text
    assert "30 x" in text
    assert "training step of convnet2:width=4" in text
    assert "measured" in text


def test_tower_that_is_not_here_leaves_its_times_unknown(tmp_path, command):
    recipe = write_recipe(tmp_path, TINY.replace("[projector]", '[projector]\ntower = "config:no"'))
    found = json.loads(command("plan", recipe, "--json").out)
    assert found["disk"]["projector"]["bytes"] is None
    assert found["time"]["seconds"] is None
    for stage in ("project", "evaluate"):
        assert found["time"]["stages"][stage]["seconds"] is None
        assert found["time"]["stages"][stage]["reason"].startswith("not measured: ")
    assert found["time"]["stages"]["relabel"]["seconds"] > 0
    assert "unknown  in all" in command("plan", recipe).out


@pytest.mark.parametrize(
    ("code", "changes", "words"),
    [
        (2, ["experts.network=convnet9"], "there is no network convnet9"),
        (2, ["data.source=digit"], "data.source: "),
        (2, ["match.ipcs=1"], "unknown key match.ipcs"),
        (1, ["data.source=npz:/none.npz"], "/none.npz"),
        (1, ["experts.network=convnet2:norm=batch"], "running statistics"),
    ],
)
def test_plan_refuses_what_cannot_be(code, changes, words, recipe, refused):
    sets = [part for change in changes for part in ("--set", change)]
    assert words in refused(code, "plan", recipe, *sets)
