"""Bytes of expert buffers, and what storing fewer of them costs in accuracy.

    python benchmarks/experts_buffer.py --runs runs/experts-buffer

Bytes: the published settings of MTT and DATM on CIFAR-10, CIFAR-100 and Tiny ImageNet, by the
store's own formula and as a fraction of MTT's layout (every epoch of every expert in float32); a
small buffer of each kind is written to disk to check the formula.

Accuracy, on `digits` with 40 % of the training images held out: the same experts (trained once a
seed) are stored in each way, matched with the same seed, and three fresh students are tested on
the held-out images; the test images are not used. Two settings: `short` is the window of the
recipe digits-exact, `long` keeps 23 snapshots of slower experts. `convex` is the idea of MCT
(arXiv 2406.19827) without its store: each snapshot is replaced by its nearest point on the line
from the first kept snapshot to the last, so two snapshots and one number an epoch would do.

Work that a results file holds already is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from code_state import RESULTS, commit, same_code
from record import provenance, write_result
from torch import Tensor

from distill.recipes.build import build_data, build_network, build_views, seed_of
from distill.recipes.loading import load_recipe
from distill.recipes.schema import Recipe, kept_epochs
from distill.run.artefacts import EXPERTS, SET
from distill.sets.set_file import read_set
from distill.stages.run_recipe import run_recipe
from distill.store.experts import read_info, read_snapshots, write_experts
from distill.store.snapshot_storage import share_of_mtt, trajectory_bytes
from distill.store.trajectories import Trajectory
from synth.parameters import ParameterLayout
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy

STORAGES = ("float32", "float16", "bfloat16", "int4")
# name: parameters, epochs of an expert, first start epoch, last one, span. 100 experts each.
# MTT: its commands, whose max_start_epoch is exclusive; DATM: its configs, widest window.
PUBLISHED = {
    "MTT CIFAR-10 IPC1": (320_010, 50, 0, 1, 2),
    "MTT CIFAR-10 IPC10": (320_010, 50, 0, 19, 2),
    "MTT CIFAR-10 IPC50": (320_010, 50, 0, 39, 2),
    "MTT CIFAR-100 IPC1": (504_420, 50, 0, 19, 3),
    "MTT Tiny ImageNet IPC10": (857_160, 50, 0, 39, 2),
    "DATM CIFAR-10 IPC1": (320_010, 100, 0, 3, 2),
    "DATM CIFAR-10 IPC10": (320_010, 100, 0, 19, 2),
    "DATM CIFAR-10 IPC50": (320_010, 100, 0, 39, 2),
    "DATM CIFAR-100 IPC50": (504_420, 100, 20, 69, 2),
    "DATM Tiny ImageNet IPC50": (857_160, 100, 40, 69, 2),
}
COMMON = [
    "data.validation=0.4",
    "experts.network=convnet3:width=16",
    "match.segments=1",
    "match.iterations=40",
]
WINDOWS = {
    "short": [],
    "long": [
        "experts.epochs=24",
        "experts.lr=0.01",
        "experts.momentum=0.0",
        "match.max_start_epoch=20",
    ],
}
WAYS = ("float32", "float16", "int4", "convex")
STUDENTS, EPOCHS = 3, 150


def published_bytes() -> dict[str, Any]:
    """Bytes of 100 experts in each storage, and their share of MTT's layout."""
    settings = {}
    for name, (parameters, epochs, first, last, span) in PUBLISHED.items():
        kept = len({*range(first, last + 1), *range(first + span, last + span + 1)})
        mtt = 100 * trajectory_bytes(parameters, epochs + 1, "float32")
        settings[name] = {
            "parameters": parameters,
            "snapshots": epochs + 1,
            "kept": kept,
            "mtt_bytes": mtt,
            "bytes": {s: 100 * trajectory_bytes(parameters, kept, s) for s in STORAGES},
            "share": {s: share_of_mtt(kept, s, parameters, 100, epochs) for s in STORAGES},
        }
    return settings


def bytes_on_disk(parameters: int = 320_010, kept: int = 5, count: int = 2) -> dict[str, Any]:
    """Real files of a few experts: their size beside the formula's."""
    generator = torch.Generator().manual_seed(0)
    layout = ParameterLayout(("all",), (torch.Size([parameters]),))
    storages = {}
    for storage in STORAGES:
        walks = [0.01 * torch.randn(kept, parameters, generator=generator) for _ in range(count)]
        experts = [Trajectory(walk.cumsum(dim=0), [0.5] * (kept - 1)) for walk in walks]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / EXPERTS
            write_experts(path, "convnet3", "random walks", layout, experts, storage)
            storages[storage] = {
                "file": path.stat().st_size,
                "formula": count * trajectory_bytes(parameters, kept, storage),
            }
    return {"parameters": parameters, "kept": kept, "experts": count, "storages": storages}


def recipe_of(window: str, seed: int) -> Recipe:
    """The recipe of one row."""
    return load_recipe("digits-exact", [*COMMON, *WINDOWS[window]], seed)


def convexified(snapshots: Tensor) -> Tensor:
    """Each of snapshots [m, p] at its nearest point of the line from the first to the last."""
    first, line = snapshots[0], snapshots[-1] - snapshots[0]
    shares = (snapshots - first) @ line / (line @ line)
    return first + shares[:, None] * line


def store(base: Path, path: Path, recipe: Recipe, way: str) -> dict[str, float]:
    """Store the window of the experts at `base` in one way; returns its bytes and errors."""
    info = read_info(base)
    kept = kept_epochs(recipe)

    def window(file: Path, expert: int) -> Tensor:
        return torch.stack([read_snapshots(file, expert, (e, e))[0] for e in kept])

    def trajectories() -> Iterator[Trajectory]:
        for expert in range(info.count):
            rows = window(base, expert)
            rows = convexified(rows) if way == "convex" else rows
            yield Trajectory(rows, [0.0] * info.epochs, kept)

    storage = "float32" if way == "convex" else way
    write_experts(path, info.network, info.data, info.layout, trajectories(), storage)
    errors = []
    for expert in range(info.count):
        recorded, restored = window(base, expert), window(path, expert)
        for index, epoch in enumerate(kept):
            if epoch + recipe.match.span in kept:
                target = kept.index(epoch + recipe.match.span)
                lost = (restored - recorded)[target] - (restored - recorded)[index]
                errors.append(float(lost.norm() / (recorded[target] - recorded[index]).norm()))
    return {
        "bytes": path.stat().st_size,
        "segment_error": statistics.mean(errors),
        "largest_segment_error": max(errors),
    }


def students(recipe: Recipe, path: Path) -> list[float]:
    """Accuracies on the held-out images of fresh students trained on learned labels."""
    data, content = build_data(recipe.data), read_set(path)
    images = content.preprocess(data.validation.images)
    views = build_views(recipe.data.augmentation, one_per_batch=True)
    lr = float(content.manifest["student_lr"])
    settings = TrainSettings(EPOCHS, lr, momentum=0.0, weight_decay=0.0, schedule="constant")
    accuracies = []
    for index in range(STUDENTS):
        seed = seed_of(recipe.seed, "student", index)
        spec = recipe.experts.network
        network = build_network(spec, data.channels, data.size, data.classes, seed)
        generator = torch.Generator().manual_seed(seed)

        def batches(epoch: int, generator: torch.Generator = generator) -> Iterator[Any]:
            return shuffled_batches(content.seen_images, content.learned, 100, views, generator)

        for _ in train(network, batches, settings):
            pass
        accuracies.append(accuracy(network, images, data.validation.labels))
    return accuracies


def row(folder: Path, window: str, seed: int, way: str) -> dict[str, Any]:
    """Match from experts stored in one way, and test students."""
    recipe = recipe_of(window, seed)
    base = folder / window / str(seed) / "experts"
    run_recipe(recipe, base, ("experts",), quiet=True)
    out = base.with_name(way)
    if not out.exists():
        shutil.copytree(base, out)
    stored = store(base / EXPERTS, out / EXPERTS, recipe, way)
    run_recipe(recipe, out, ("match",), quiet=True)
    runs = students(recipe, out / SET)
    job = {"window": window, "seed": seed, "way": way, "commit": commit()}
    return {**job, **stored, "runs": runs}


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean accuracy of each way, and its difference to float32, seed by seed."""
    by_window: dict[str, Any] = {}
    for window in WINDOWS:
        means = {
            way: {r["seed"]: statistics.mean(r["runs"]) for r in rows
                  if (r["window"], r["way"]) == (window, way)}
            for way in WAYS
        }  # fmt: skip
        for way, by_seed in means.items():
            lost = [value - means["float32"][seed] for seed, value in by_seed.items()]
            if lost:
                by_window.setdefault(window, {})[way] = {
                    "accuracy": statistics.mean(by_seed.values()),
                    "less_float32": statistics.mean(lost),
                    "seeds": lost,
                }
    return by_window


def main() -> None:
    """Measure what is missing and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "experts-buffer.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.is_file() else []
    rows = [made for made in rows if same_code(made["commit"])]
    done = {(r["window"], r["seed"], r["way"]) for r in rows}
    wanted = [(w, s, way) for s in range(options.seeds) for w in WINDOWS for way in WAYS]
    for job in [None, *(p for p in wanted if p not in done)]:
        if job is not None:
            rows.append(row(options.runs, *job))
            print(rows[-1], flush=True)
        result = {
            **provenance("python benchmarks/experts_buffer.py --runs runs/experts-buffer"),
            "published": published_bytes(),
            "on_disk": bytes_on_disk(),
            "recipes": {window: recipe_of(window, 0).model_dump(mode="json") for window in WINDOWS},
            "compared": compared(rows),
            "rows": rows,
        }
        write_result(options.out, result)


if __name__ == "__main__":
    main()
