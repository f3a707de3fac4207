import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.__main__ import run
from distill.stages import search
from distill.store import large_arrays as rows
from tests.distill.cases import Outcome, copy_run, write_recipe


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Sums of floats, and so the bytes of artefacts, may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe as a file."""
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A whole run of the tiny recipe. Read it; change only a copy (`run_copy`)."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to change."""
    return copy_run(finished, tmp_path / "run")


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates of a search within a budget are trained for a few batches alone."""
    monkeypatch.setattr(search, "_BATCHES", 100)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `distill` in this process."""

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Outcome(code, shown.out, shown.err)

    return call


@pytest.fixture
def refused(command: Callable[..., Outcome]) -> Callable[..., str]:
    """Run `distill`, which must fail with `code` and exactly one line; returns that line."""

    def call(code: int, *arguments: str | Path) -> str:
        outcome = command(*arguments)
        assert outcome.code == code, outcome
        assert outcome.out == ""
        assert outcome.err.startswith("error: ")
        assert outcome.err.endswith("\n")
        assert outcome.err.count("\n") == 1
        assert "--debug" not in outcome.err, "an error that was not foreseen"
        return outcome.err

    return call


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two CPUs on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'limbeck[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # Workers inherit it, and import the functions of test files by their names.
    folders = os.pathsep.join(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", folders)
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 2**20,
        )
    yield ray
    ray.shutdown()


@pytest.fixture
def by_parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Whatever is stored counts as large, and comes in tiny pieces."""

    def begin() -> None:
        monkeypatch.setattr(rows, "HELD_BYTES", 0)
        monkeypatch.setattr(rows, "_BLOCK_BYTES", 600)
        monkeypatch.setattr(rows, "_CHUNK_BYTES", 600)
        monkeypatch.setattr("distill.store.content_digests._BLOCK_BYTES", 100)

    return begin
