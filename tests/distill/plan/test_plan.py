import gc
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from distill.errors import WorkError
from distill.plan import make_plan
from distill.plan.calibration import Calibration, Timed, read_calibration, write_calibration
from distill.plan.clock import QUICK, Clock
from distill.plan.sizes import expert_buffer, label_bytes, set_file
from distill.plan.times import StageTime
from distill.recipes.loading import check_recipe, load_recipe
from distill.recipes.tables.data import DataTable
from distill.run.dry_run import Cost, LiveBytes
from distill.sets.set_file import read_set
from distill.stages.match.memory import matching_peaks
from distill.stages.units.networks import Units
from distill.stages.units.shapes import DataShape, data_shape, meta_network, parameter_count
from distill.stages.units.unit import Part, Task, Unit
from distill.store.seals import sealed
from synth.losses import soft_cross_entropy
from synth.networks import ConvNet
from synth.parameters import parameter_vector
from synth.training.loop import TrainSettings
from tests.distill.cases import TINY, read_json, write_recipe

FILES = {"experts": "experts.h5", "committee": "committee.h5", "set": "set.h5"}


@pytest.fixture(scope="module", autouse=True)
def hurry():
    """The calibration with as few repetitions as there can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.plan.QUICK", replace(QUICK, repeated=0.0))
        yield


@pytest.fixture(scope="module")
def plan(recipe):
    return make_plan(load_recipe(str(recipe)))


def test_bytes_of_files_are_those_of_a_real_run(plan, finished):
    for name, file in FILES.items():
        real = (finished / file).stat().st_size
        assert plan["disk"][name]["bytes"] == pytest.approx(real, rel=0.25), name
    # Its description holds measured numbers, whose digits nobody can count beforehand.
    real = sum(file.stat().st_size for file in (finished / "projector").rglob("*"))
    assert plan["disk"]["projector"]["bytes"] == pytest.approx(real, rel=0.01)
    assert plan["disk"]["projector"]["external"] == 0


def test_bytes_of_images_and_labels_are_exact(plan, finished):
    summary = json.loads((finished / "summary.json").read_text())["bytes"]
    assert plan["images"]["images"] == summary["images"]
    assert plan["images"]["preprocess"] == 0
    assert plan["labels"] == summary["sources"]
    assert sum(plan["labels"].values()) == summary["labels"]
    assert plan["labels"]["learned"] == read_set(finished / "set.h5").learned.numel() * 4


def test_a_budget_bounds_images_and_labels(recipe):
    keys = ["match.budget_bytes=600", "match.images=rounded:depth=2"]
    found = make_plan(load_recipe(str(recipe), keys))
    assert found["images"]["images"] == 600
    assert found["labels"]["learned"] == 0


@pytest.mark.parametrize("storage", ["float32", "float16", "int4"])
def test_bytes_of_experts_follow_window_and_storage(storage, recipe, tmp_path, command):
    changes = [f"experts.storage={storage}", "experts.keep=window", "experts.count=3"]
    sets = [part for change in changes for part in ("--set", change)]
    assert command("experts", recipe, "--out", tmp_path / "run", "--quiet", *sets).code == 0
    resolved = load_recipe(str(recipe), changes)
    found = expert_buffer(resolved, data_shape(resolved.data))
    real = (tmp_path / "run" / "experts.h5").stat().st_size
    assert found["bytes"] == pytest.approx(real, rel=0.1)
    with h5py.File(tmp_path / "run" / "experts.h5") as file:
        arrays = sum(item.nbytes for group in file["experts"].values() for item in group.values())
    assert found["arrays"] == arrays
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
    shape = data_shape(resolved.data)
    network = meta_network("convnet3:width=128", shape)
    assert parameter_count(network) == 320_010


def test_plan_knows_the_shape_of_sources_without_their_files():
    shape = data_shape(load_recipe("fashion-mnist-quick", ["data.source=fashion-mnist:/none"]).data)
    assert shape == DataShape(10, 1, (28, 28), 20_000, 6_000, 10_000, 4 * 70_000 * 28**2)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("torchvision:CIFAR100", (100, (3, 32, 32), 50_000, 10_000)),
        ("folder:/none/tiny-imagenet", (200, (3, 64, 64), 100_000, 10_000)),
        ("folder:imagenet-1k", (1000, (3, 224, 224), 1_281_167, 50_000)),
    ],
)
def test_plan_knows_the_data_of_the_papers(source, expected):
    shape = data_shape(DataTable(source=source))
    train = shape.train + shape.validation
    assert (shape.classes, shape.image, train, shape.test) == expected


def test_folder_that_is_there_goes_before_what_is_known_of_its_name(tmp_path):
    (tmp_path / "imagenet-1k").mkdir()
    table = load_recipe("digits-mtt", [f"data.source=folder:{tmp_path}/imagenet-1k"]).data
    with pytest.raises(WorkError, match="imagenet-1k"):
        data_shape(table)


def test_shape_of_digits_is_that_of_the_data(finished):
    shape = data_shape(load_recipe("digits").data)
    assert (shape.train, shape.test, shape.image) == (1080, 597, (1, 16, 16))


def test_shape_of_other_sources_is_read_from_them(tmp_path):
    labels = np.arange(60) % 3
    np.savez(tmp_path / "x.npz", images=np.zeros((60, 9, 9, 3), np.uint8), labels=labels)
    raw = {"data": {"source": f"npz:{tmp_path / 'x.npz'}"}, "experts": {}, "match": {"ipc": 1}}
    shape = data_shape(check_recipe(raw, "recipe x").data)
    assert (shape.classes, shape.image) == (3, (3, 9, 9))
    assert shape.train + shape.validation + shape.test == 60


def test_whitening_and_factor_count():
    resolved = load_recipe("digits", ["match.factor=2", "match.ipc=3"])
    assert label_bytes(resolved, data_shape(resolved.data))["learned"] == 3 * 10 * 4 * 10 * 4
    before = set_file(resolved, data_shape(resolved.data))
    whitened = resolved.model_copy(update={"data": resolved.data.model_copy(update={"zca": True})})
    more = set_file(whitened, data_shape(whitened.data)) - before
    assert more == pytest.approx(4 * (2 * 256**2 + 256), abs=10)


def peaks(*changes):
    small = ["experts.network=convnet2:width=8", "match.inner_steps=12", *changes]
    resolved = load_recipe("digits", small)
    return matching_peaks(resolved, data_shape(resolved.data))


def test_memory_of_a_replay_grows_by_one_vector_a_step_and_unrolling_by_a_graph():
    short, long = peaks("match.inner_steps=12"), peaks("match.inner_steps=24")
    vector = 4 * parameter_count(
        meta_network("convnet2:width=8", DataShape(10, 1, (16, 16), 1, 1, 1))
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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_memory_of_a_training_step_is_that_of_a_real_one(optimizer):
    recipe = load_recipe("digits")
    units = Units(recipe, data_shape(recipe.data), torch.device("cpu"))
    spec, batch = "convnet3:width=32:norm=batch", 64
    settings = TrainSettings(1, 0.1, optimizer, momentum=0.0)
    planned = units.training_step(spec, batch, "none", settings).cost(batch).peak_bytes
    with LiveBytes("cpu") as live:
        network = units.network(spec)
        rules = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
        update = rules[optimizer](network.parameters(), lr=0.1)
        images, labels = units.images(batch), units.labels(batch)
        for _ in range(2):
            update.zero_grad(set_to_none=True)
            soft_cross_entropy(network(images), labels).backward()
            update.step()
    assert planned == pytest.approx(live.peak, rel=0.25)
    assert planned > 3 * sum(p.nbytes for p in network.parameters())


def test_operations_of_a_step_are_counted():
    recipe = load_recipe("digits", ["data.size=8"])
    units = Units(recipe, data_shape(recipe.data), torch.device("cpu"))
    found = units.predictions("mlp:depth=1:width=8", 10).unit.cost(10)
    # 64 inputs, 8 hidden, 10 classes: a product and its sum are two.
    assert found.flops == 10 * 2 * (64 * 8 + 8 * 10)


def test_seconds_are_units_times_their_time():
    unit = Timed("step", "1x8x8", 10, 0.5)
    stage = StageTime((Task(2, (Part(3, unit), Part(1, unit))),))
    assert stage.seconds == 4.0
    assert StageTime((), "not measured: why").seconds is None
    assert StageTime((), "not measured: why").wall_seconds(8) is None


def test_devices_share_tasks_that_do_not_wait_for_each_other():
    long, short = Timed("long", "", 1, 10.0), Timed("short", "", 1, 1.0)
    stage = StageTime((Task(5, (Part(2, short),)), Task(1, (Part(1, long),))))
    assert stage.wall_seconds(1) == stage.seconds == 20.0
    assert stage.wall_seconds(2) == 10.0
    assert stage.wall_seconds(64) == 10.0


def fixed_unit(batch, what="work of x", seconds=0.1, now=None, sizes=None):
    def work(size):
        if sizes is not None:
            sizes.append(size)

        def call():
            if now is not None:
                now[0] += seconds * size

        return call, 2

    return Unit(what, batch, work, lambda size: Cost(100 * size, 8 * size))


def test_clock_scales_a_batch_that_is_too_large_and_measures_once(monkeypatch):
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"))
    now, sizes = [0.0], []
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"distill.plan.clock.time.{name}", lambda: now[0])
    unit = fixed_unit(1000, now=now, sizes=sizes)
    found = clock.time(unit)
    assert found.seconds == pytest.approx(50.0)
    # A second size shows that nothing of a call is overhead.
    assert (found.measured_batch, found.basis) == (16, "scaled")
    assert (found.flops, found.peak_bytes) == (100_000, 8_000)
    assert clock.time(unit) is found
    assert sizes == [4, 16]


def test_clock_takes_the_wanted_batch_where_it_can():
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"))
    unit = Unit("sum", 64, lambda size: (torch.ones(size).sum, 1), lambda size: Cost(1, 1))
    found = clock.time(unit)
    assert found.measured_batch == found.batch == 64
    assert (found.basis, clock.measured) == ("measured", (found,))


@pytest.mark.parametrize(("rate", "measured_batch"), [(1e6, 1000), (1e4, 25)])
def test_clock_does_not_take_a_gpu_by_its_smallest_batch(monkeypatch, rate, measured_batch):
    """There a call takes as long with few images as with many: the CPU's time to start it."""
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cuda"))
    clock.__dict__["_convolution"] = Timed("convolution", "", 8, 1.0, int(rate), 0, 8, 3)
    now = [0.0]
    monkeypatch.setattr("distill.plan.clock.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(Clock, "_wait", lambda clock: None)

    def work(size):
        def call():
            now[0] += 0.5 + 0.001 * size

        return call, 2

    found = clock.time(Unit("work", 1000, work, lambda size: Cost(100 * size, 8 * size)))
    assert found.measured_batch == measured_batch
    assert found.seconds == pytest.approx((0.25 + 0.0005 * measured_batch) * 1000 / measured_batch)


def test_unit_that_would_take_too_long_is_priced_by_operations():
    effort = replace(QUICK, probe=0.0)
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"), effort=effort)

    def never(size):
        raise AssertionError

    found = clock.time(Unit("huge", 2, never, lambda size: Cost(10**15 * size, 1)))
    assert (found.basis, found.units) == ("by operations", 0)
    assert 10 < found.seconds < 1e9
    assert clock.measured == ()


CALIBRATED = Calibration(
    "NVIDIA H100",
    4,
    (
        Timed("step of a", "3x32x32 in 10 classes", 100, 0.01, 1000, 1, 100, 9),
        Timed("step of b", "3x32x32 in 10 classes", 100, 0.03, 1000, 1, 100, 9),
        Timed("vote of a", "3x32x32 in 10 classes", 100, 1.0, 1000, 1, 100, 9),
    ),
)


@pytest.mark.parametrize(
    ("what", "batch", "flops", "seconds", "basis"),
    [
        ("step of a", 100, 1000, 0.01, "measured"),
        ("step of a", 50, 500, 0.005, "scaled"),
        ("step of c", 100, 2000, 0.0, "by operations"),
        ("crop of c", 100, 1000, 0.0, "by operations"),
    ],
)
def test_calibration_prices_the_same_unit_or_others_by_operations(
    what, batch, flops, seconds, basis
):
    found = CALIBRATED.price(what, "3x32x32 in 10 classes", batch, Cost(flops, 77), None)
    # Steps of a and b do 100,000 and 33,333 operations a second: medians are taken of rates.
    if basis == "by operations":
        rates = [100_000, 100_000 / 3] if what.startswith("step") else [100_000, 100_000 / 3, 1000]
        seconds = flops / float(np.median(rates))
    assert found.seconds == pytest.approx(seconds)
    assert (found.basis, found.peak_bytes, found.batch) == (basis, 77, batch)


def test_calibration_round_trips_and_keeps_what_it_had(tmp_path):
    path = tmp_path / "h100.json"
    write_calibration(path, CALIBRATED)
    assert read_calibration(path) == CALIBRATED
    more = Timed("fit of d", "1x8x8 in 2 classes", 7, 1.0, 5, 5, 7, 3)
    write_calibration(path, Calibration("NVIDIA H100", 4, (more,)))
    assert read_calibration(path).units == (*CALIBRATED.units, more)
    with pytest.raises(WorkError, match="was measured on NVIDIA H100 with 4"):
        write_calibration(path, Calibration("cpu", 1, ()))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"limbeck": "calibration", "format": 1}', '{"limbeck": "set"}']
)
def test_file_that_is_no_calibration_is_refused(text, recipe, refused, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(text)
    assert "c.json" in refused(1, "plan", recipe, "--calibration", path)


def test_a_changed_calibration_is_refused(recipe, refused, tmp_path):
    path = tmp_path / "c.json"
    write_calibration(path, CALIBRATED)
    text = path.read_text()
    for before, after in (("H100", "H101"), ('"batch": 1', '"batch": 3'), ("seconds", "secondc")):
        assert before in text
        path.write_text(text.replace(before, after, 1))
        line = refused(1, "plan", recipe, "--calibration", path)
        assert "is not as it was measured; measure it again" in line


@pytest.mark.parametrize("unit", [3, {"what": 1}, {"batch": {}}, {"seconds": "x"}, {"flops": []}])
def test_units_of_other_kinds_are_refused(unit, recipe, refused, tmp_path):
    path = tmp_path / "c.json"
    write_calibration(path, CALIBRATED)
    content = read_json(path)
    content["units"][0] = {**content["units"][0], **unit} if isinstance(unit, dict) else unit
    path.write_text(json.dumps(sealed(content)))
    assert "is no calibration of this version" in refused(1, "plan", recipe, "--calibration", path)


def test_clock_that_is_late_makes_one_call(monkeypatch):
    now = [0.0]
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"distill.plan.clock.time.{name}", lambda: now[0])

    def lasting(seconds, what):
        def call():
            now[0] += seconds

        return Unit(what, 4, lambda size: (call, 1), lambda size: Cost(0, 8))

    effort = replace(QUICK, hurry=0.3)
    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"), effort=effort)
    assert clock.time(lasting(0.02, "early")).units == 3
    assert clock.time(lasting(0.2, "long")).units == 2
    late = clock.time(lasting(0.03, "late"))
    assert (late.measured_batch, late.units, late.seconds) == (4, 1, pytest.approx(0.03))


@pytest.mark.parametrize(("batch", "measured"), [(100, 100), (400, 16)])
def test_clock_takes_the_wanted_batch_where_two_smaller_ones_say_that_it_fits(
    batch, measured, monkeypatch
):
    """A probe of four images is mostly overhead here, and says little of a hundred."""
    now, sizes = [0.0], []
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"distill.plan.clock.time.{name}", lambda: now[0])

    def work(size):
        sizes.append(size)

        def call():
            now[0] += 0.08 + 0.001 * size

        return call, 1

    clock = Clock(DataShape(2, 1, (8, 8), 10, 1, 1), torch.device("cpu"), effort=QUICK)
    found = clock.time(Unit("step", batch, work, lambda size: Cost(1, 8)))
    assert found.seconds == pytest.approx(0.08 + 0.001 * batch)
    assert (found.measured_batch, sizes[-1]) == (measured, measured)


def test_plan_has_a_time_for_every_stage(plan):
    stages = plan["time"]["stages"]
    assert list(stages) == ["experts", "committee", "project", "match", "relabel", "evaluate"]
    for stage in stages.values():
        assert stage["seconds"] > 0
        total = sum(part["times"] * part["seconds"] for part in stage["parts"])
        assert total == pytest.approx(stage["seconds"])
    assert plan["time"]["seconds"] == pytest.approx(sum(s["seconds"] for s in stages.values()))
    steps = {part["what"]: part["times"] for part in stages["experts"]["parts"]}
    assert steps[next(name for name in steps if name.startswith("training step"))] == 2 * 3 * 5


def test_stages_hold_what_they_read_and_their_work(plan):
    stages = plan["memory"]["stages"]
    image = 4 * 64
    # 100 of 1,080 images to train on, 120 held out, 597 to test; the hard labels as logits.
    resident = image * (100 + 120 + 597) + 4 * 100 * 10
    assert stages["evaluate"]["device"] > resident
    assert stages["experts"]["device"] > image * 220 + 4 * 100 * 10
    for stage in stages.values():
        assert stage["peak"] == stage["host"] + stage["device"]
        assert stage["host"] > 100e6


def test_calibration_of_another_machine_prices_a_plan_on_many_devices(tmp_path, recipe, command):
    file = tmp_path / "here.json"
    small = [part for key in ("committee.epochs=2",) for part in ("--set", key)]
    first = json.loads(command("plan", recipe, *small, "--calibrate", file, "--json").out)
    raw = json.loads(file.read_text())
    raw["device"] = "NVIDIA H100"
    for unit in raw["units"]:
        unit["seconds"] = 0.001
    file.write_text(json.dumps(sealed(raw)))
    many = ("--calibration", file, "--nodes", "2", "--gpus", "4")
    found = json.loads(command("plan", recipe, *small, *many, "--json").out)
    assert found["time"]["calibration"]["device"] == "NVIDIA H100"
    for name, stage in found["time"]["stages"].items():
        parts = stage["parts"]
        assert {part["basis"] for part in parts} == {"measured"}, name
        assert stage["seconds"] == pytest.approx(0.001 * sum(part["times"] for part in parts))
        assert stage["wall_seconds"] <= stage["seconds"]
        memory = found["memory"]["stages"][name]
        assert memory["peak"] == memory["device"]
    experts = found["time"]["stages"]["experts"]
    assert experts["tasks"] == 2
    assert experts["wall_seconds"] == pytest.approx(experts["seconds"] / 2)
    match = found["time"]["stages"]["match"]
    assert match["wall_seconds"] == match["seconds"], "outer steps wait for each other"
    assert first["labels"] == found["labels"]
    text = command("plan", recipe, *small, *many).out
    for words in ("8 devices", "NVIDIA H100", "measured", "is not counted"):
        assert words in text


def test_measuring_and_reading_a_calibration_exclude_each_other(recipe, refused, tmp_path):
    both = ("--calibrate", tmp_path / "a", "--calibration", tmp_path / "b")
    assert "give one of them" in refused(2, "plan", recipe, *both)


RECOVER = TINY[: TINY.index("[experts]")] + TINY[TINY.index("[committee]") :]
RECOVER = RECOVER[: RECOVER.index("[projector]")].replace(', "vgg11:width=4:norm=batch"', "")
RECOVER += """
[recover]
ipc = 3
iterations = 20
candidates = 6
drawn = 1

[evaluate]
students = ["mlp"]
epochs = 2
"""


def test_recovered_and_selected_sets_are_planned(tmp_path, command):
    found = json.loads(command("plan", write_recipe(tmp_path, RECOVER), "--json").out)
    stages = found["time"]["stages"]
    assert list(stages) == ["committee", "recover", "relabel", "evaluate"]
    assert found["labels"]["learned"] == 0
    assert "matching" not in found["memory"]
    steps = {part["what"]: part["times"] for part in stages["recover"]["parts"]}
    # 3 calls of 20 iterations, each member drawn for half of them; 10 classes of crops.
    assert steps["recovery step of resnet18:width=4, statistics on"] == 3 * 10
    assert next(times for what, times in steps.items() if what.startswith("judged")) == 10
    text = RECOVER.replace("[recover]", "[select]").replace("iterations = 20\n", "")
    selected = write_recipe(tmp_path / "s", text.replace("drawn = 1\n", "factor = 1\n"))
    stages = json.loads(command("plan", selected, "--json").out)["time"]["stages"]
    assert list(stages) == ["committee", "select", "relabel", "evaluate"]
    assert stages["select"]["seconds"] > 0


MATCH_ONLY = TINY[: TINY.index("[committee]")]


def test_json_has_one_shape(tmp_path, command):
    outcome = command("plan", write_recipe(tmp_path, MATCH_ONLY), "--json", "--set", "match.ipc=2")
    assert outcome.code == 0
    assert outcome.err == ""
    found = json.loads(outcome.out)
    assert set(found) == {
        "recipe", "data", "parameters", "disk", "images", "labels", "budget", "memory", "time"
    }  # fmt: skip
    assert found["recipe"] == "tiny"
    assert found["images"]["images"] == 2 * 10 * 64 * 4
    assert set(found["labels"]) == {"hard", "learned"}
    assert set(found["disk"]) == {"experts", "set"}
    assert set(found["memory"]["matching"]) == {"adjoint", "frozen", "unrolled"}
    assert list(found["time"]["stages"]) == ["experts", "match"]


def test_cycles_are_looked_for_rarely_while_a_plan_is_made_and_as_before_after_it(
    command, monkeypatch
):
    before, seen = gc.get_threshold(), []

    def stop(*_, **__):
        seen.append(gc.get_threshold())
        raise WorkError("enough")

    monkeypatch.setattr("distill.plan.make_plan", stop)
    assert command("plan", "digits").code == 1
    assert seen[0][0] > before[0]
    assert gc.get_threshold() == before


@pytest.mark.parametrize("load", [0.0, 7.25])
def test_text_names_what_was_measured(load, tmp_path, command, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 1.0, 1.0))
    monkeypatch.setattr("distill.plan.core_count", lambda: 2)
    text = command("plan", write_recipe(tmp_path, MATCH_ONLY)).out
    said = "other work was under way: the load was 7.2 before the calibration, on 2 cores;"
    assert (said in text) == (load > 1)
    for words in ("parameters", "disk", "memory of matching", "(this recipe's)", "of MTT's"):
        assert words in text
    assert "30 x" in text
    assert "training step of convnet2:width=4" in text
    assert "measured" in text


def test_tower_that_is_not_here_leaves_its_times_unknown(tmp_path, command):
    recipe = write_recipe(tmp_path, TINY.replace("config:tiny-vit", "config:no"))
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
