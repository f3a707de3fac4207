"""A recipe that runs through every stage in seconds, and how tests run commands."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from distill.recipes.build import choose_device
from distill.recipes.schema import Recipe
from distill.run.context import Context
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.manifest import write_manifest
from distill.run.progress import Progress
from distill.store.attributes import seal_attributes
from distill.store.seals import unsealed

TINY = """
summary = "a tiny run"
seed = 0

[data]
source = "digits"
size = 8
subset = 100
augmentation = "colour_crop_cutout_scale_rotate"

[experts]
network = "convnet2:width=4"
count = 2
epochs = 3
batch_size = 20
lr = 0.05
momentum = 0.5

[match]
ipc = 1
iterations = 6
inner_steps = 3
span = 1
max_start_epoch = 1
student_lr = 0.05
checkpoint_every = 2

[committee]
members = ["convnet2:width=8:norm=batch", "vgg11:width=4:norm=batch", "resnet18:width=4"]
epochs = 10
batch_size = 20
lr = 0.01
augmentation = "crop"

[relabel]
epochs = 4
batch_size = 10

[projector]
tower = "config:tiny-vit"
rank = 2
templates = ["the handwritten digit {}"]
steps = 5
batch_size = 16

[evaluate]
students = ["convnet2:width=4"]
seeds = 2
epochs = 3
whole_epochs = 1
"""
STAGES = ("experts", "committee", "project", "match", "relabel", "evaluate")
STUDENT = "convnet2:width=4"
# What a run writes before its first stage is finished.
RUN_FILES = {".lock", ".manifest.json", "manifest.json", "metrics.jsonl"}
ARTEFACTS = ("experts.h5", "committee.h5", "set.h5", "evaluation.json", "projector")


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


def write_recipe(folder: Path, text: str = TINY, name: str = "tiny") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rewrite_manifest(run: Path, manifest: dict[str, Any]) -> None:
    """Let a run have this manifest, as if it had written it itself."""
    write_manifest(run, unsealed(manifest))


def outputs_of(run: Path) -> dict[str, dict[str, str]]:
    """The digests of each stage's outputs, as the manifest holds them."""
    stages = read_json(run / "manifest.json")["stages"]
    return {name: entry["outputs"] for name, entry in stages.items()}


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder, by relative path."""
    if not folder.exists():
        return {}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def artefacts(run: Path) -> dict[str, str]:
    """Digests of the bytes of everything that must not depend on when or where it was made."""
    return {name: value for name, value in contents(run).items() if name.startswith(ARTEFACTS)}


def copy_run(finished: Path, destination: Path) -> Path:
    shutil.copytree(finished, destination)
    return destination


def reading_context(folder: Path, recipe: Recipe) -> Context:
    """The context of a recipe on a run's artefacts, which are only read."""
    run = Run(folder, read_only=True)
    return Context(run, recipe, choose_device("cpu"), Progress(quiet=True), Stop())


@contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """An artefact to change as one who means harm would: digests of attributes fit again."""
    with h5py.File(path, "r+") as file:
        yield file
        seal_attributes(file)


def flip_byte(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0xFF
    path.write_bytes(bytes(raw))


def flip_data(path: Path, needle: bytes) -> None:
    """Flip a byte within the first occurrence of `needle`, which must be there."""
    flip_byte(path, path.read_bytes().index(needle) + len(needle) // 2)


def child(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start `distill` as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "distill", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


class CountingStop(Stop):
    """Stops at the n-th check, or never; counts the checks."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.at = at
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.at:
            self.requested = True
        super().check()


def listen_with(stop: Stop) -> Any:
    """Stands in for `distill.run.interrupt.listen`."""

    @contextmanager
    def listen():
        yield stop

    return listen


def descendants(name: str) -> list[int]:
    """Processes below this one whose title starts with `name`."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            process = int(folder.name)
            titles[process] = (folder / "cmdline").read_bytes().decode(errors="replace")
            parents[process] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (ValueError, OSError):
            continue

    def is_ours(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == os.getpid():
                return True
        return False

    return [p for p, title in titles.items() if title.startswith(name) and is_ours(p)]
