"""Where test classes are uneven, accuracies stand beside their mean over classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from distill.evaluation.confusion import balanced_accuracy, grade
from tests.distill.cases import read_json, write_recipe

RECIPE = """
[data]
source = "folder:photos"
size = 8
augmentation = "none"

[select]
ipc = 1
method = "random"

[evaluate]
students = ["mlp"]
labels = ["hard"]
seeds = 2
epochs = 1
whole_epochs = 1
"""


def test_balanced_accuracy_by_hand():
    labels = torch.tensor([0] * 8 + [1] * 4 + [3] * 2)
    always_first = torch.zeros(14, dtype=torch.int64)
    assert balanced_accuracy(always_first, labels, 5) == pytest.approx(1 / 3)
    assert balanced_accuracy(labels, labels, 5) == 1
    half = torch.tensor([0] * 8 + [1, 1, 0, 0] + [3, 0])
    assert balanced_accuracy(half, labels, 5) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_even_classes_have_none():
    labels = torch.tensor([0, 0, 0, 1, 1])
    assert balanced_accuracy(labels, labels, 2) is None


def test_a_student_of_many_classes_has_one_too():
    labels = torch.tensor([0, 0, *range(1, 40)])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 40))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.eye(40)[0])
    graded = grade(network, torch.zeros(41, 1, 2, 2), labels, 40)
    assert graded.confusion is None
    assert graded.accuracy == pytest.approx(2 / 41)
    assert graded.balanced == pytest.approx(1 / 40)


def test_an_evaluation_says_both(tmp_path, monkeypatch, command):
    rng = np.random.default_rng(0)
    for name, count in (("large", 60), ("small", 10)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(count):
            noise = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, RECIPE, "uneven")
    outcome = command("run", "uneven.toml", "--out", "run")
    assert "note: classes are uneven: 'large' has 43 training images" in outcome.err
    summary = read_json(tmp_path / "run" / "summary.json")
    stats = summary["students"]["mlp"]["hard"]
    [[a, b], [c, d]] = summary["confusion"]["mlp"]["hard"]
    assert stats["mean"] == pytest.approx((a + d) / (a + b + c + d))
    assert stats["balanced"] == pytest.approx((a / (a + b) + d / (c + d)) / 2)
    assert "balanced" in summary["controls"]["whole"]["mlp"]["hard"]
    words = "test classes have 2 to 12 images, and always naming the largest has an accuracy of 0.8"
    assert words in summary["protocol"]["balanced"]
    assert "balanced" in (tmp_path / "run" / "report.html").read_text()
    outcome = command("evaluate", "run", "--quiet")
    assert "% balanced over classes" in outcome.out
    found = json.loads(command("evaluate", "run", "--quiet", "--json").out)
    assert found["students"]["mlp"]["hard"]["balanced"] == stats["balanced"]
