"""A packed set is worked on in a memory that does not grow with its images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distill.larger_cases import IMAGE_BYTES

CASES = Path(__file__).parents[1] / "larger_cases.py"
LIMIT = 48 << 20


def measure(folder, images, *words, **shape):
    # Large blocks go back to the system at once: what is counted is then what is held.
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **malloc, **shape}
    return subprocess.run(
        [sys.executable, CASES, folder, str(images), str(LIMIT), *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets RLIMIT_DATA")
def test_a_set_four_times_the_memory_is_distilled_and_judged(tmp_path):
    # Bytes as they lie on the disk; in memory they would be float32, four times as many again.
    images = 4 * LIMIT // IMAGE_BYTES
    few, many = measure(tmp_path / "few", images // 4), measure(tmp_path / "many", images)
    for done in (few, many):
        assert done.returncode == 0, done.stderr[-2000:]
    peaks = [json.loads(done.stdout)["peak"] for done in (few, many)]
    # What allocators keep varies; the images that came on top would be 144 MB.
    assert peaks[1] - peaks[0] < 4 << 20, peaks
    assert peaks[1] < LIMIT
    accuracy = json.loads(many.stdout)["found"]["controls"]["whole"]["mlp:width=8"]["hard"]
    assert accuracy["mean"] > 0.5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets RLIMIT_DATA")
def test_a_set_that_is_held_whole_would_pass_the_limit(tmp_path):
    done = measure(tmp_path, 4 * LIMIT // IMAGE_BYTES, "whole")
    assert done.returncode != 0
    assert "allocate" in done.stderr


def judge_synthetic(folder, images, *changes, **shape):
    """Peak and findings of a set that is made, labelled and judged with these changes."""
    done = measure(folder, images, *changes, **shape)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def compare(few, many, folder):
    """The larger set is four times the limit, and takes no more memory than the smaller one."""
    assert (folder / "run" / "set.h5").stat().st_size >= 4 * LIMIT
    assert many["peak"] - few["peak"] < 4 << 20, (few["peak"], many["peak"])
    assert many["peak"] < LIMIT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets RLIMIT_DATA")
def test_a_synthetic_set_four_times_the_memory_is_made_and_judged(tmp_path):
    most = 4 * LIMIT // (4 * IMAGE_BYTES) // 2
    found = {
        ipc: judge_synthetic(
            tmp_path / str(ipc), 3 * most, 'select.method="random"', f"select.ipc={ipc}"
        )
        for ipc in (most // 4, most)
    }
    compare(found[most // 4], found[most], tmp_path / str(most))
    for labels in ("hard", "votes"):
        assert found[most]["found"]["students"]["mlp:width=8"][labels]["mean"] > 0.5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets RLIMIT_DATA")
def test_labels_four_times_the_memory_are_voted_and_trained_on(tmp_path):
    classes = 1000
    most = 4 * LIMIT // (2 * classes * classes) + 1
    found = {
        epochs: judge_synthetic(
            tmp_path / str(epochs),
            2 * classes,
            f"relabel.epochs={epochs}",
            "relabel.batch_size=50",
            "select.ipc=1",
            "select.candidates=1",
            "evaluate.epochs=3",
            'committee.members=["mlp:width=64:depth=1"]',
            "committee.epochs=4",
            LARGER_CLASSES=str(classes),
            LARGER_SIDE="8",
        )
        for epochs in (most // 4, most)
    }
    compare(found[most // 4], found[most], tmp_path / str(most))
