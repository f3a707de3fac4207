"""Work that was stopped in its middle, and the commands that go on with it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distill.cases import (
    STUDENT,
    CountingStop,
    copy_run,
    listen_with,
    read_json,
    rewrite_manifest,
    write_recipe,
)
from tests.distill.making_cases import RECOVER
from tests.distill.mutations.estate import VERIFY
from tests.distill.mutations.things import Reader, Thing
from tests.distill.run.test_interrupted import unmake

# Stage -> the check at which it is stopped.
STOPPED = {"experts": 4, "match": 3, "committee": 12, "relabel": 2, "project": 3, "evaluate": 8}
RECOVERY = RECOVER.replace(
    "candidates = 4",
    'candidates = 20\ninit = "groups"\naim = "anchors"\nbatch_size = 5',
)
_EVALUATION = (
    "evaluate", "RUN", "--students", STUDENT, "--labels", "hard,learned", "--seeds", "1",
    "--epochs", "3", "--json", "--quiet",
)  # fmt: skip


def _checkpoint(place: str, recipe: str, stage: str, *, large: bool = False) -> Thing:
    words = ("run", f"ESTATE/{recipe}.toml", "--out", "IT", "--stage", stage, "--quiet")
    return Thing(
        place, (VERIFY, Reader(words, "place", 3)), ("checkpoints/*/*",), often=1, large=large
    )


CHECKPOINTS = (
    *(_checkpoint(f"stopped-{stage}", "tiny", stage) for stage in STOPPED),
    _checkpoint("stopped-recover", "recovery", "recover"),
    # Voted labels and starting images that lie on the disk, as memory does not hold them.
    _checkpoint("large-relabel", "tiny", "relabel", large=True),
    _checkpoint("large-recover", "recovery", "recover", large=True),
    Thing("stopped-cache", (Reader(_EVALUATION, "json"),), often=1, variable="XDG_CACHE_HOME"),
)


def forget_dependents(run: Path, stage: str) -> None:
    """As a run does that begins anew with a stage."""
    manifest = read_json(run / "manifest.json")
    if stage == "match":
        del manifest["stages"]["relabel"]
    if stage != "evaluate":
        del manifest["stages"]["evaluate"]
        for name in ("evaluation.json", "summary.json", "report.html"):
            (run / name).unlink()
    rewrite_manifest(run, manifest)


def build(folder: Path, finished: Path, run: Callable[[list[str]], int]) -> None:
    """Stop runs in each stage, and an evaluation."""
    recovery = write_recipe(folder, RECOVERY, "recovery")
    taught = folder / "taught"
    assert run(["run", str(recovery), "--out", str(taught), "--stage", "committee", "-q"]) == 0

    def stop(at: int, where: str, *words: object, large: bool = False, **variables: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"distill.{where}.listen", listen_with(CountingStop(at)))
            for name, value in variables.items():
                patch.setenv(name, value)
            if large:
                patch.setattr("distill.store.large_arrays.HELD_BYTES", 0)
            assert run([str(word) for word in words]) == 130

    for stage, at in STOPPED.items():
        for kind in ("stopped", "large"):
            place = f"{kind}-{stage}"
            if place in places():
                out = copy_run(finished, folder / place)
                unmake(out, stage)
                forget_dependents(out, stage)
                words = ("run", folder / "tiny.toml", "--out", out, "--quiet")
                stop(at, "stages.run_recipe", *words, large=kind == "large")
    for kind in ("stopped", "large"):
        out = copy_run(taught, folder / f"{kind}-recover")
        words = ("run", recovery, "--out", out, "--stage", "recover", "--quiet")
        stop(21, "stages.run_recipe", *words, large=kind == "large")
    words = [folder / "run" if word == "RUN" else word for word in _EVALUATION]
    stop(5, "evaluation.whole", *words, XDG_CACHE_HOME=str(folder / "stopped-cache"))
    assert list((folder / "stopped-cache").rglob("*.jsonl"))


def places() -> set[str]:
    """Where the things of this file lie."""
    return {thing.place for thing in CHECKPOINTS}
