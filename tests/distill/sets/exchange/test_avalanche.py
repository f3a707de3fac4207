"""A set as a replay memory: tensors and a program that need none of our code."""

import ast
import os
import runpy
import subprocess
import sys

import pytest
import torch

import distill
from tests.distill.cases import write_recipe


@pytest.fixture
def exported(finished, tmp_path, command):
    out = tmp_path / "memory"
    assert command("export", "set", finished, "--format", "avalanche", "--out", out).code == 0
    return out


@pytest.fixture
def program(exported, monkeypatch):
    """The names of the exported program where Avalanche is not installed."""
    monkeypatch.setitem(sys.modules, "avalanche", None)
    monkeypatch.setitem(sys.modules, "avalanche.benchmarks.utils", None)
    return runpy.run_path(str(exported / "replay_memory.py"))


def test_memory_holds_pixels_classes_and_soft_labels(exported, finished):
    found = torch.load(exported / "memory.pt", weights_only=True)
    data = distill.load(finished)
    assert torch.equal(found["images"], data.preprocess.inverse(data.images))
    assert torch.equal(found["classes"], data.hard)
    assert torch.equal(found["soft"], data.labels)
    assert found["class_names"] == data.manifest["class_names"]


def test_dataset_has_the_classes_that_are_asked_for_and_the_transform_of_a_benchmark(program):
    whole = program["Memory"]()
    assert whole.targets == program["memory"]()["classes"].tolist()
    some = program["Memory"]([7, 2], transform=lambda image: image - 1)
    assert set(some.targets) == {2, 7}
    image, number = some[0]
    place = whole.targets.index(int(number))
    assert torch.equal(image, whole[place][0] - 1)


def test_buffer_without_avalanche_says_what_to_install(program):
    with pytest.raises(ImportError, match="pip install avalanche-lib"):
        program["DistilledBuffer"]()


def test_program_imports_nothing_of_ours(exported):
    tree = ast.parse((exported / "replay_memory.py").read_text(encoding="utf-8"))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {getattr(node, "module", None) or node.names[0].name for node in named}
    assert {module.split(".")[0] for module in modules} == {"pathlib", "torch", "avalanche"}


HERDED = """
[data]
source = "digits"
size = 8

[select]
method = "herding"
ipc = 10

[evaluate]
students = ["mlp"]
"""

# Five experiences of two digits each; prints the accuracy on the first eight digits afterwards,
# without and with the memory. Images are normalised as a benchmark's own transform would.
TRAINING = """
import sys
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from avalanche.benchmarks import class_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training import Naive
from avalanche.training.plugins import ReplayPlugin
from replay_memory import DistilledBuffer

raw = load_digits()
pixels, classes = torch.tensor(raw.images / 16, dtype=torch.float32), torch.tensor(raw.target)
def normalise(images):
    return (images - 0.3) / 0.4
images = normalise(pixels[:, None])
def data(part):
    found = TensorDataset(images[part], classes[part])
    found.targets = classes[part].tolist()
    return as_classification_dataset(found)
train, test = slice(0, 1200), slice(1200, None)
def accuracy_on_old(plugins):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    strategy = Naive(
        model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), train_mb_size=20,
        train_epochs=5, plugins=plugins, evaluator=None,
    )
    both = {"train": data(train), "test": data(test)}
    benchmark = class_incremental_benchmark(both, num_experiences=5, class_order=list(range(10)))
    for experience in benchmark.train_stream:
        strategy.train(experience)
    old = classes[test] < 8
    return float((model(images[test]).argmax(1) == classes[test])[old].float().mean())
buffer = DistilledBuffer(transform=normalise)
plugin = ReplayPlugin(mem_size=buffer.max_size, storage_policy=buffer)
print(accuracy_on_old([]), accuracy_on_old([plugin]), len(buffer.buffer), buffer.max_size)
assert not {"distill", "synth", "projectors"} & set(sys.modules)
"""


@pytest.mark.slow
def test_avalanche_remembers_old_classes_by_the_memory(tmp_path, command):
    pytest.importorskip("avalanche", reason="pip install avalanche-lib")
    recipe, run, out = write_recipe(tmp_path, HERDED), tmp_path / "run", tmp_path / "memory"
    assert command("run", recipe, "--out", run, "--stage", "select", "--quiet").code == 0
    assert command("export", "set", run, "--format", "avalanche", "--out", out).code == 0
    environment = {**os.environ, "PYTHONPATH": str(out), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=tmp_path,
    )
    without, remembered, kept, most = done.stdout.split()[-4:]
    assert float(without) < 0.1, "without a memory, old classes are forgotten"
    assert float(remembered) > 0.6
    assert kept == most == "100"
