"""A run that is killed anywhere, or lacks the disk, ends as an unbroken one once it goes on."""

import contextlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from random import Random

import pytest

from tests.distill.cases import (
    STAGES,
    TINY,
    artefacts,
    child,
    contents,
    outputs_of,
    read_json,
    write_recipe,
)
from tests.distill.run.launcher import launcher

LIMIT = 120
LOG = logging.getLogger(__name__)


def started(*arguments, **options):
    """A process of `distill` that is killed with this one's patience."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "distill", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=LIMIT,
        check=False,
        **options,
    )


def progress_of(run):
    """Bytes written so far: how far a run is, whatever the load of the machine."""
    found = 0
    # Not Path.rglob, which fails where a folder vanishes: the run removes its own on the way.
    for folder, _, names in os.walk(run):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.stat(os.path.join(folder, name)).st_size
    return found


def rows_of(run):
    """The rows of metrics.jsonl, each as often as it is there."""
    return sorted((run / "metrics.jsonl").read_text().splitlines())


class Killer:
    """Kills `distill run` at moments drawn from a seed, and looks at what is left each time.

    As many kills as `each` fall in one stage; then it waits for the next stage.
    """

    def __init__(self, recipe, run, each, *options, start=child):
        self.words = ("run", str(recipe), "--out", str(run), "--quiet", *options)
        self.run, self.each, self.random = run, each, Random(each)
        self.start, self.points = start, Counter()

    def once(self):
        """Start, and kill once so much more was written; True if the run ended first."""
        process = self.start(*self.words)
        while process.poll() is None and self.points[self.stage()] >= self.each:
            time.sleep(0.005)
        # Mostly soon, so that there is still work for later kills; at the latest after the stage.
        ahead = self.random.choice((1, 200, 2_000, 20_000))
        stage, target = self.stage(), progress_of(self.run) + self.random.randrange(1, ahead + 1)
        wait = self.random.random() * 0.02
        while process.poll() is None and progress_of(self.run) < target and self.stage() == stage:
            time.sleep(0.005)
        time.sleep(wait)
        process.kill()
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        if process.returncode:
            self.points[self.stage()] += 1
            LOG.info("kill %s by finished stages: %s", self.points.total(), dict(self.points))
        return process.returncode == 0

    def stage(self):
        """How many stages are finished, by the manifest."""
        manifest = self.run / "manifest.json"
        return len(read_json(manifest)["stages"]) if manifest.is_file() else 0

    def check_left(self):
        """Whatever stands under its own name is whole."""
        for name in ("manifest.json", "evaluation.json", "summary.json"):
            if (self.run / name).is_file():
                read_json(self.run / name)


def kill_until(killer, kills):
    """Kill so many times; a run that ends before is begun anew."""
    while killer.points.total() < kills:
        if killer.once():
            shutil.rmtree(killer.run)
        killer.check_left()


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_run_that_is_killed_anywhere_ends_the_same(kills, finished, recipe, command, tmp_path):
    run = tmp_path / "run"
    with launcher(tmp_path) if kills > 4 else nullcontext(child) as start:
        kill_until(Killer(recipe, run, -(-kills // len(STAGES)), start=start), kills)
    assert command("run", recipe, "--out", run, "--quiet").code == 0
    assert outputs_of(run) == outputs_of(finished)
    assert artefacts(run) == artefacts(finished)
    assert rows_of(run) == rows_of(finished)
    assert set(contents(run)) == set(contents(finished))


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A recipe whose votes label the views of matching, under a budget of bytes."""
    pytest.importorskip("constriction", reason="pip install 'limbeck[compact]'")
    keys = """segments = 2
labels = "votes"
class_share = 0.2
images = "rounded:depth=2"
budget_bytes = 1500
span = 1"""
    return write_recipe(tmp_path_factory.mktemp("crowded"), TINY.replace("span = 1", keys))


@pytest.mark.slow
def test_run_with_a_budget_votes_and_workers_that_is_killed_ends_the_same(
    crowded, command, tmp_path
):
    alone, run = tmp_path / "alone", tmp_path / "run"
    assert command("run", crowded, "--out", alone, "--quiet", "--workers", "1").code == 0
    with launcher(tmp_path) as start:
        killer = Killer(crowded, run, 8, "--workers", "2", start=start)
        kill_until(killer, 50)
    assert set(killer.points) >= set(range(len(STAGES)))
    assert command("run", crowded, "--out", run, "--quiet", "--workers", "2").code == 0
    assert outputs_of(run) == outputs_of(alone)
    assert artefacts(run) == artefacts(alone)
    assert rows_of(run) == rows_of(alone)
    assert set(contents(run)) == set(contents(alone))


def files_at_most(size):
    """What a child does before it starts: no file may grow beyond `size` bytes."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


@pytest.mark.parametrize(
    ("share", "stages"),
    [
        (0.02, ("experts",)),
        pytest.param(0.02, STAGES, marks=pytest.mark.slow),
        pytest.param(0.5, STAGES, marks=pytest.mark.slow),
    ],
)
def test_full_disk_ends_in_one_line_and_the_run_goes_on(
    share, stages, finished, recipe, command, tmp_path
):
    """A limit on the size of files fails a write as a full disk does, and needs no rights."""
    run = tmp_path / "run"
    size = int(share * (finished / "committee.h5").stat().st_size)
    chosen = [word for stage in stages for word in ("--stage", stage)]
    words = ("run", recipe, "--out", run, "--quiet", *chosen)
    done = started(*words, preexec_fn=files_at_most(size))
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "cannot be written whole: no space is left" in done.stderr
    assert not [path for path in run.rglob("*.tmp") if path.is_file()]
    assert command(*words).code == 0
    assert outputs_of(run) == {stage: outputs_of(finished)[stage] for stage in stages}
    whole = artefacts(finished)
    assert artefacts(run) == {name: whole[name] for name in artefacts(run)}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes, where the system lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("this process may not mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_full_file_system_is_said_in_one_line(small_disk, finished, recipe):
    (small_disk / "ballast").write_bytes(bytes((2 << 20) - (96 << 10)))
    run = small_disk / "run"
    done = started("run", recipe, "--out", run, "--quiet")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "no space is left" in done.stderr
    assert not [path for path in run.rglob("*.tmp") if path.is_file()]


def read_only_by_attribute(folder):
    """Root writes through permissions, but not through this attribute, where there is one."""
    if shutil.which("chattr") is None:
        return False
    return subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode == 0


@pytest.fixture
def sealed(tmp_path):
    """A folder that may not be written to, even by root."""
    place = tmp_path / "sealed"
    place.mkdir()
    place.chmod(0o555)
    root = os.geteuid() == 0
    if root and not read_only_by_attribute(place):
        words = ["mount", "--bind", str(place), str(place)]
        again = ["mount", "-o", "remount,ro,bind", str(place)]
        if any(subprocess.run(line, capture_output=True).returncode for line in (words, again)):
            pytest.skip("root writes everywhere here, and may neither seal nor mount a folder")
    yield place
    if root:
        subprocess.run(["chattr", "-i", str(place)], capture_output=True, check=False)
        subprocess.run(["umount", str(place)], capture_output=True, check=False)
    place.chmod(0o755)


def test_read_only_folder_is_said_in_one_line(sealed, recipe, refused):
    line = refused(1, "run", recipe, "--out", sealed / "run", "--quiet")
    assert f"--out {sealed / 'run'} cannot be written" in line
    assert not list(sealed.iterdir())


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")]
)
def test_folder_that_becomes_read_only_is_said_in_one_line(
    error, run_copy, recipe, refused, monkeypatch
):
    """As where a disk is mounted anew, or rights are taken away, while a run is open."""
    (run_copy / "evaluation.json").unlink()

    def replace(source, target):
        error.filename = str(target)
        raise error

    monkeypatch.setattr("distill.store.files.os.replace", replace)
    line = refused(1, "run", recipe, "--out", run_copy, "--quiet")
    assert str(run_copy) in line
    assert error.strerror in line
    assert not list(run_copy.glob(".*.tmp"))


def test_second_run_on_a_folder_is_told_to_wait(recipe, refused, tmp_path):
    run = tmp_path / "run"
    first = child("run", str(recipe), "--out", str(run), "--set", "match.iterations=5000", "-q")
    try:
        while not (run / "manifest.json").is_file():
            assert first.poll() is None
            time.sleep(0.01)
        line = refused(1, "run", recipe, "--out", run, "--quiet")
        assert f"--out {run} is in use by another process; wait for it" in line
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_clock_that_jumps_changes_nothing(jump, finished, recipe, command, monkeypatch, tmp_path):
    """The wall clock may jump by decades in the middle of a run."""
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr("time.time", lambda: real() + jump * (next(calls) % 3))
    run = tmp_path / "run"
    words = ("run", recipe, "--out", run, "--quiet", "--stage", "experts", "--stage", "match")
    assert command(*words).code == 0
    for path in (run / "experts.h5", run / "manifest.json"):
        os.utime(path, (real() + jump, real() + jump))
    assert command(*words).code == 0
    found = outputs_of(run)
    assert found == {name: outputs_of(finished)[name] for name in found}
    seconds = [
        entry["seconds"]
        for entry in json.loads((run / "manifest.json").read_text())["stages"].values()
    ]
    assert all(0 <= each < 1e4 for each in seconds)
