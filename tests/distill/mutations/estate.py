"""All that the commands write, and the commands that read each of it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from distill.plan.calibration import write_calibration
from tests.distill.cases import STUDENT, contents, copy_run, write_recipe
from tests.distill.mutations.own_codec import MODULE
from tests.distill.mutations.things import SHORT, Reader, Thing
from tests.distill.plan.test_plan import CALIBRATED

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
    *_exports("npz", "safetensors", "torch", "imagefolder", "hf", "avalanche"),
    Reader(("compress", "IT", "--bytes", "3000", "--out", "OUT"), "out", 1),
    Reader(("order", "IT", "--out", "OUT"), "out", 1),
    Reader(("merge", "IT", "RUN", "--out", "OUT"), "out", 1),
    Reader(("evaluate", "IT", "--labels", "hard,learned", "--json", *SHORT), "json", 1),
    Reader(
        ("evaluate", "IT", "--steps", "2", "--labels", "hard,learned", "--json", *SHORT), "json", 1
    ),
    Reader(
        ("audit", "IT", "--labels", "hard", "--references", "0", "--json", "--quiet"), "json", 1
    ),
    Reader((*_EXTEND, "--recipe", "HERD", "--out", "OUT", *SMALL), often=1),
)
_SWEPT = Reader(("sweep", "IT", "--out", "OUT", "--json", *IMAGES), "json", 1)
_OF_SETS = (
    *_OF_ANY_SET,
    _SWEPT,
    Reader(("encode", "IT", "--codec", "dense", "--out", "OUT", "--quiet"), "out", 1),
    Reader(("verify", "IT", "--accuracy", "--json", "--quiet"), "json", 1),
)


def _encoded(spec: str, *more: str) -> tuple[Reader, ...]:
    """Of a set whose labels are in a codec: what reads them, with more words."""
    of_labels = Reader(("evaluate", "IT", "--labels", spec, "--json", *SHORT), "json", 3)
    return tuple(
        replace(reader, words=(*reader.words, *more)) for reader in (*_OF_ANY_SET, of_labels)
    )


FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "exchange"
_ALLOWED = ("--allow-code", MODULE)
_OWN_CODEC = f"seed+{MODULE}:Halves"
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
    Thing("coded.h5", (*_OF_ANY_SET, _SWEPT), often=2),
    Thing("encoded.h5", _encoded("projector"), often=2),
    # Those whose labels are the teachers themselves, in few bits.
    Thing("kept.h5", _encoded("teacher:bits=4"), often=2),
    Thing("own.h5", _encoded(_OWN_CODEC, *_ALLOWED)),
    Thing("merged.h5", _OF_ANY_SET),
    Thing("grown/set.h5", _OF_ANY_SET),
    # Of the fixtures, in colours.
    Thing("colour.h5", (SHOW, VERIFY, *_exports("ddranking", "hf"))),
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
    Thing("run", _OF_RUNS, ("*", "projector/*", "sweep/*"), often=8),
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
        "machine.json",
        (Reader(("plan", "RECIPE", "--calibration", "IT", "--json"), "json"),),
    ),
    Thing("npz/set.npz", _import("npz")),
    Thing("safetensors/set.safetensors", _import("safetensors")),
    Thing("torch/set.pt", _import("torch")),
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
    for name, codec in (("encoded", "projector"), ("kept", "teacher:bits=4"), ("own", _OWN_CODEC)):
        out = folder / f"{name}.h5"
        run("encode", run_folder, "--codec", codec, "--out", out, *_ALLOWED, "--quiet")
    run("merge", run_folder, run_folder, "--out", folder / "merged.h5")
    words = ("--data", "digits", "--recipe", folder / "herd.toml", "--out", folder / "grown")
    run("extend", run_folder, *words, *SMALL)
    words = ("--from", "mtt", "--statistics", "cifar10", "--out", folder / "colour.h5")
    run("import", FIXTURES / "mtt", *words)
    run("export", "projector", run_folder, "--format", "compact", "--out", folder / "compact")
    write_calibration(folder / "machine.json", CALIBRATED)
    run("pack", "digits", "--size", "8", "--out", folder / "pack", "--quiet")
    for form in ("npz", "safetensors", "torch", "imagefolder"):
        run("export", "set", run_folder, "--format", form, "--out", folder / form)
    assert contents(run_folder).keys() >= {"encoding.json", "sweep/sweep.json"}
