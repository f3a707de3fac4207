"""All that the commands write, and the commands that read each of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from distill.plan.calibration import write_calibration
from tests.distill.cases import STUDENT, contents, copy_run, write_recipe
from tests.distill.plan.test_plan import CALIBRATED

Answer = Literal["json", "out", "experts", "page", "place", "code", "verdict"]

SHORT = ("--students", STUDENT, "--seeds", "1", "--epochs", "1", "--quiet")
SMALL = ("--set", "data.subset=100", "--set", "data.size=8", "--quiet")
ENCODED = ("--set", "encode.codec=topk:k=3")
SWEEP = ("--codecs", "topk:k=3", *SHORT)
IMAGES = ("--images", "--codings", "frequency", "--whole-epochs", "1", *SHORT)

HERD = f"""
summary = "herded"
[data]
source = "digits"
size = 8
subset = 100
[select]
method = "herding"
ipc = 1
[evaluate]
students = ["{STUDENT}"]
labels = "hard"
seeds = 1
epochs = 1
whole_epochs = 1
"""


@dataclass(frozen=True)
class Reader:
    """A command on a thing.

    Attributes:
        words: of the command; IT is the thing, OUT a new place, RUN the run as it was, RECIPE its
            recipe.
        answer: what must not change in silence: the JSON that is printed, what lies at OUT, its
            experts, the report in IT, all results in IT, nothing ("code"), or the word of `verify`.
        often: how many times as often it is drawn as others.
    """

    words: tuple[str, ...]
    answer: Answer = "code"
    often: int = 3


@dataclass(frozen=True)
class Thing:
    """A file or a folder that commands read.

    Attributes:
        place: in the estate.
        readers: commands.
        targets: files that are changed, as patterns, where it is a folder.
        often: how many times as often it is drawn as others.
    """

    place: str
    readers: tuple[Reader, ...]
    targets: tuple[str, ...] = ("**/*",)
    often: int = 2


SHOW = Reader(("show", "IT", "--json"), "json")
VERIFY = Reader(("verify", "IT"), "verdict", 6)


def _exports(*forms: str) -> tuple[Reader, ...]:
    return tuple(
        Reader(("export", "set", "IT", "--format", form, "--out", "OUT"), "out", 1)
        for form in forms
    )


def _import(layout: str, *more: str) -> tuple[Reader, ...]:
    return (Reader(("import", "IT", "--from", layout, "--out", "OUT", *more), "out"),)


_EXTEND = ("extend", "IT", "--data", "digits")
_OF_ANY_SET = (
    SHOW,
    VERIFY,
    *_exports("npz", "safetensors", "torch", "imagefolder", "hf"),
    Reader(("compress", "IT", "--bytes", "3000", "--out", "OUT"), "out", 1),
    Reader(("order", "IT", "--out", "OUT"), "out", 1),
    Reader(("merge", "IT", "RUN", "--out", "OUT"), "out", 1),
    Reader(("evaluate", "IT", "--labels", "hard,learned", "--json", *SHORT), "json", 1),
    Reader(("sweep", "IT", "--out", "OUT", "--json", *IMAGES), "json", 1),
    Reader(
        ("audit", "IT", "--labels", "hard", "--references", "0", "--json", "--quiet"), "json", 1
    ),
    Reader((*_EXTEND, "--recipe", "HERD", "--out", "OUT", *SMALL), often=1),
)
_OF_SETS = (
    *_OF_ANY_SET,
    Reader(("encode", "IT", "--codec", "dense", "--out", "OUT", "--quiet"), "out", 1),
    Reader(("verify", "IT", "--accuracy", "--json", "--quiet"), "json", 1),
)
_OF_ENCODED_SETS = (
    *_OF_ANY_SET,
    Reader(("evaluate", "IT", "--labels", "projector", "--json", *SHORT), "json", 2),
)
_REST = ("run", "RECIPE", "--out", "IT", *ENCODED)
_OF_RUNS = (
    SHOW,
    Reader(("inspect", "digits", "--experts", "IT", "--json", "--quiet"), "json", 1),
    VERIFY,
    Reader(("report", "IT"), "page", 2),
    Reader(("report", "IT", "RUN", "--out", "OUT"), "out"),
    Reader(("evaluate", "IT", "--labels", "hard,topk:k=3", "--json", *SHORT), "json"),
    Reader(("evaluate", "IT", "--labels", "hard", "--record", "--json", *SHORT), "json"),
    Reader(("evaluate", "IT", "--labels", "votes,projector", "--json", *SHORT), "json"),
    Reader(("sweep", "IT", "--out", "OUT", "--json", *SWEEP), "json", 2),
    Reader((*_EXTEND, "--recipe", "HERD", "--out", "OUT", *SMALL), often=1),
    Reader(
        (
            "run",
            "RECIPE",
            "--out",
            "OUT",
            *ENCODED,
            "--reuse",
            "IT",
            "--stage",
            "experts",
            "--quiet",
        ),
        "experts",
        2,
    ),
    *_exports("npz"),
    Reader(("export", "projector", "IT", "--format", "compact", "--out", "OUT"), "out", 1),
)

THINGS = (
    Thing("run/set.h5", _OF_SETS, often=6),
    # Images in a coding, and labels as a projector that the set brings along.
    Thing("coded.h5", _OF_ANY_SET, often=2),
    Thing("encoded.h5", _OF_ENCODED_SETS, often=2),
    Thing("run/experts.h5", (SHOW, VERIFY), often=3),
    Thing("run/committee.h5", (SHOW, VERIFY), often=2),
    Thing(
        "run/projector",
        (
            SHOW,
            VERIFY,
            Reader(("export", "projector", "IT", "--format", "merged", "--out", "OUT"), "out"),
        ),
        often=3,
    ),
    Thing(
        "compact",
        (
            SHOW,
            VERIFY,
            Reader(("export", "projector", "IT", "--format", "merged", "--out", "OUT"), "out"),
        ),
    ),
    Thing("run", _OF_RUNS, ("*", "projector/*"), often=8),
    Thing("run/sweep", (Reader(("sweep", "RUN", "--out", "IT", "--json", *SWEEP), "json"),)),
    Thing("run/images", (Reader(("sweep", "RUN", "--out", "IT", "--json", *IMAGES), "json"),)),
    Thing(
        "pack",
        (
            SHOW,
            VERIFY,
            Reader(
                ("evaluate", "RUN", "--data", "packed:IT", "--labels", "hard", "--json", *SHORT),
                "json",
            ),
        ),
        often=3,
    ),
    Thing(
        "herd.toml",
        (
            Reader(("run", "IT", "--out", "OUT", "--quiet"), often=2),
            Reader(("plan", "IT", "--json"), often=1),
            Reader(("select", "IT", "--out", "OUT", "--quiet"), often=1),
        ),
        often=4,
    ),
    Thing(
        "machine.json",
        (Reader(("plan", "RECIPE", "--calibration", "IT", "--json"), "json"),),
    ),
    Thing("npz/set.npz", _import("npz")),
    Thing("safetensors/set.safetensors", _import("safetensors")),
    Thing("torch/set.pt", _import("torch")),
    # Pictures of others hold no digest.
    Thing(
        "imagefolder",
        (Reader(("import", "IT", "--from", "folder", "--out", "OUT", "--size", "8")),),
    ),
    Thing(
        "pictures",
        (Reader(("pack", "folder:IT", "--size", "8", "--out", "OUT", "--quiet")),),
    ),
)
STOPPED = {"experts": 4, "match": 3, "committee": 12, "relabel": 2, "project": 3, "evaluate": 8}
CHECKPOINTS = tuple(
    Thing(
        f"stopped-{stage}",
        (
            VERIFY,
            Reader(("run", "RECIPE", "--out", "IT", "--stage", stage, "--quiet"), "place", 3),
        ),
        ("checkpoints/*/*",),
        often=1,
    )
    for stage in STOPPED
)
# The whole run again, after its artefacts were damaged; it makes again what does not fit.
GOING_ON = Thing("run", (Reader(_REST, "place"),), ("*", "projector/*"))


def build(folder: Path, finished: Path, recipe: Path, run: Callable[..., int]) -> None:
    """Write everything; `run` runs a command that must succeed."""
    run_folder = copy_run(finished, folder / "run")
    shutil.copy(recipe, folder / "tiny.toml")
    write_recipe(folder, HERD, "herd")
    run("run", recipe, "--out", run_folder, *ENCODED, "--quiet")
    run("sweep", run_folder, "--out", run_folder / "sweep", *SWEEP)
    run("sweep", run_folder, "--out", run_folder / "images", *IMAGES)
    run("compress", run_folder, "--bytes", "2000", "--out", folder / "coded.h5")
    run("encode", run_folder, "--codec", "projector", "--out", folder / "encoded.h5", "--quiet")
    run("export", "projector", run_folder, "--format", "compact", "--out", folder / "compact")
    write_calibration(folder / "machine.json", CALIBRATED)
    run("pack", "digits", "--size", "8", "--out", folder / "pack", "--quiet")
    for form in ("npz", "safetensors", "torch", "imagefolder"):
        run("export", "set", run_folder, "--format", form, "--out", folder / form)
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        for index in range(4):
            noise = np.random.default_rng(index).integers(0, 256, (9, 8), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "pictures" / name / f"{index}.png")
    assert contents(run_folder).keys() >= {"encoding.json", "sweep/sweep.json"}
