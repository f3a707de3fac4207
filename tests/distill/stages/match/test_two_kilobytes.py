"""Digits in 2,000 bytes of everything: within the budget, and better than coded real images."""

import json

import pytest

from distill.__main__ import run
from distill.sets.cost import count_bytes
from distill.sets.set_file import read_set

pytestmark = pytest.mark.slow

pytest.importorskip("constriction", reason="pip install 'limbeck[compact]'")

LABELS = "teacher:bits=3"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "run"
    assert run(["run", "digits", "--bytes", "2000", "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def summary(finished_run):
    return json.loads((finished_run / "summary.json").read_text(encoding="utf-8"))


def test_everything_takes_at_most_the_budget(finished_run, summary):
    counted = count_bytes(read_set(finished_run / "set.h5"))["totals"][LABELS]
    assert 1800 < counted == summary["bytes"]["total"] <= 2000


@pytest.mark.parametrize("student", ["convnet3:width=32", "mlp"])
def test_students_beat_those_of_coded_real_images(student, summary):
    own = summary["students"][student][LABELS]
    for name in ("coded", "herded"):
        control = summary["controls"][name][student][LABELS]
        assert len(own["runs"]) == len(control["runs"]) == 5
        assert control["bytes"] <= 2000
        assert own["mean"] > control["mean"]


def test_a_quantised_network_of_the_same_bytes_is_stated(summary):
    ((_, sources),) = summary["controls"]["network"].items()
    assert len(sources[LABELS]["runs"]) == 5
    assert 1500 < sources[LABELS]["bytes"] <= 2000
    assert sources[LABELS]["mean"] > 0.9
