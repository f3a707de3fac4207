"""A packed set is worked on in a memory that does not grow with its images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from larger_cases import IMAGE_BYTES, write_pack

CASES = Path(__file__).with_name("larger_cases.py")
LIMIT = 48 << 20


def measure(folder, images, *words):
    write_pack(folder / "packed", images)
    # Large blocks go back to the system at once: what is counted is then what is held.
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **malloc}
    return subprocess.run(
        [sys.executable, CASES, folder, str(LIMIT), *words],
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
