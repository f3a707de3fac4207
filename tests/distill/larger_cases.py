"""A child process that works on packed data within a limit of memory, and says what it took.

Used as `python larger_cases.py FOLDER IMAGES LIMIT [whole | KEY=VALUE...]`; prints bytes as JSON.
With `whole`, it first tries to hold all training images at once; KEY=VALUE changes the recipe. What
is larger than HELD counts as large. The limit holds for private memory (RLIMIT_DATA) beyond what a
first, tiny set of the same shape took, so that libraries, which have to be there for any set, do
not count.
"""

import json
import os
import resource
import sys
from pathlib import Path

import torch

from distill.data import load_data
from distill.data.source_splits import SourceSplits
from distill.data.sources.packed import pack_data
from distill.data.splits import Split
from distill.machine import peak_bytes, reset_peak
from distill.recipes.loading import check_recipe
from distill.stages.run_recipe import run_recipe
from distill.store import large_arrays as rows
from synth.images import gather

SIDE = int(os.environ.get("LARGER_SIDE", "128"))
CLASSES = int(os.environ.get("LARGER_CLASSES", "2"))
IMAGE_BYTES = 3 * SIDE * SIDE
EXTENT = (3, SIDE, SIDE)
SMALL = max(120, CLASSES)
HELD = 1 << 20


class Drawn:
    """Images of bytes that are drawn when they are asked for: those of a class are alike."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % CLASSES
        self.shape = torch.Size((count, *EXTENT))
        self.device = torch.device("cpu")
        self._noise = torch.randint(0, 64, EXTENT, generator=generator)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places):
        rolled = torch.stack([self._noise.roll(int(place), 2) for place in places])
        return (torch.stack([pattern(label) for label in self.labels[places]]) + rolled) / 255

    def split(self, size: int):
        for start in range(0, len(self), size):
            yield self[torch.arange(start, min(start + size, len(self)))]


def pattern(label: torch.Tensor) -> torch.Tensor:
    """What all images of a class have in common."""
    drawn = torch.Generator().manual_seed(int(label))
    return torch.randint(0, 2, EXTENT, generator=drawn).mul_(160).float()


def write_pack(folder: Path, count: int) -> Path:
    """Pack `count` training images, a few for validation, and a quarter as many for the test."""
    drawn = [Drawn(n, seed) for seed, n in enumerate((count, SMALL, count // 4))]
    train, validation, test = (Split(images, images.labels) for images in drawn)
    names = tuple(f"class {label}" for label in range(CLASSES))
    pack_data(SourceSplits(train, test, names, validation), "drawn", folder)
    return folder


def recipe(folder: Path) -> dict:
    return {
        "data": {"source": f"packed:{folder}", "augmentation": "flip"},
        "committee": {"members": ["mlp:width=8"], "epochs": 1, "batch_size": 16},
        "select": {"ipc": 2, "method": "mosaics", "candidates": 8, "crops": 1, "factor": 1},
        "relabel": {"epochs": 2, "batch_size": 8},
        "evaluate": {
            "students": ["mlp:width=8"],
            "seeds": 1,
            "epochs": 1,
            "batch_size": 16,
            "whole_epochs": 1,
            "labels": ["hard", "votes"],
        },
    }


def work(folder: Path, out: Path, changes: list[str] = ()) -> dict:
    """Train a committee, make a set, label it and judge it; returns the accuracies."""
    raw = recipe(folder)
    for change in changes:
        key, _, value = change.partition("=")
        table, _, name = key.partition(".")
        raw[table][name] = json.loads(value)
    run_recipe(check_recipe(raw, "larger"), out, quiet=True)
    found = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {"students": found["students"], "controls": found["controls"]}


def main() -> None:
    torch.set_num_threads(1)
    rows.HELD_BYTES = HELD
    rows._BLOCK_BYTES = HELD
    folder, images, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    write_pack(folder / "packed", images)
    device = torch.device("cpu")
    changes = [] if sys.argv[4:] == ["whole"] else sys.argv[4:]
    tiny = [*changes, "select.ipc=1", "select.candidates=1", "relabel.epochs=2"]
    work(write_pack(folder / "first", SMALL), folder / "first-run", tiny)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    data = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (data + limit, data + limit))
    reset_peak(device)
    before = peak_bytes(device)
    if sys.argv[4:] == ["whole"]:
        gather(load_data(f"packed:{folder / 'packed'}").train.images)
    found = work(folder / "packed", folder / "run", changes)
    sys.stdout.write(json.dumps({"peak": peak_bytes(device) - before, "found": found}))


if __name__ == "__main__":
    main()
