"""How long an epoch of training takes here and at an older commit, and what bfloat16 does to it.

    python benchmarks/training.py time --old cc58091
    python benchmarks/training.py accuracy

`time` trains a ConvNet-3 of width 128 on 20,000 images of Fashion-MNIST in three processes that
take their epochs in turn: the older commit, this one as it is, and this one compiled and in
bfloat16. Each takes one epoch before anything is measured, in which what is compiled is compiled;
those seconds are recorded too. `accuracy` trains networks from five seeds in float32 and, compiled,
in bfloat16, as experts, teachers and students of random real images are trained. Both write
benchmarks/results/training-WHAT.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from code_state import RESULTS
from record import provenance, this_call, write_result
from torch import Tensor, nn

from distill.data import load_data
from synth.augment import Augmentation, dsa, parse_families
from synth.images import HardLogits
from synth.networks import ConvNet
from synth.training.batches import Batch, shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy

ROOT = Path(__file__).resolve().parent.parent
IMAGES, BATCH = 20_000, 100

# Runs in a process of its own, at any commit: it asks only for what both have.
CHILD = """
import sys, time
import torch
try:
    from synth.training.loop import TrainSettings, train
    from synth.training.batches import shuffled_batches
except ImportError:
    from synth.training import TrainSettings, train
    from synth.batches import shuffled_batches
from synth.augment import dsa, parse_families
from synth.images import HardLogits
from synth.networks import ConvNet
from distill.data import load_data

images, batch, epochs, threads = (int(word) for word in sys.argv[1:5])
new = {"precision": "bfloat16", "compiled": True} if sys.argv[5] == "fast" else {}
torch.set_num_threads(threads)
torch.manual_seed(0)
data = load_data("fashion-mnist", subset=images).train
pixels = (data.images - data.images.mean()) / data.images.std()
labels = HardLogits(data.labels, 10)
network = ConvNet(1, (28, 28), 10, depth=3, width=128)
settings = TrainSettings(epochs, 0.01, **new)
views = dsa(parse_families("colour_crop_cutout_flip_scale_rotate"))
generator = torch.Generator().manual_seed(0)
def batches(epoch):
    return shuffled_batches(pixels, labels, batch, views, generator)
steps = train(network, batches, settings)
for _ in sys.stdin:
    started = time.perf_counter()
    loss = next(steps).loss
    print(time.perf_counter() - started, loss, flush=True)
"""


class Trainer:
    """A process that trains one epoch each time it is asked."""

    def __init__(self, folder: Path, kind: str, epochs: int, threads: int) -> None:
        words = [str(number) for number in (IMAGES, BATCH, epochs, threads)]
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *words, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )

    def epoch(self) -> tuple[float, float]:
        """Seconds and mean loss of the next epoch."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, loss = self._process.stdout.readline().split()
        return float(seconds), float(loss)

    def end(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.wait()


def time_epochs(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of epochs at both commits, taken in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch) / "old"
        add = ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(old), options.old]
        subprocess.run(add, check=True, capture_output=True)
        trainers = {}
        try:
            for name, folder, kind in (
                ("old", old, "plain"),
                ("eager float32", ROOT, "plain"),
                ("compiled bfloat16", ROOT, "fast"),
            ):
                trainers[name] = Trainer(folder, kind, options.epochs + 1, options.threads)
            first = {name: trainer.epoch()[0] for name, trainer in trainers.items()}
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
            for _ in range(options.epochs):
                for name, trainer in trainers.items():
                    taken[name].append(trainer.epoch())
                    print(name, *taken[name][-1], flush=True)
        finally:
            for trainer in trainers.values():
                trainer.end()
            remove = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(old)]
            subprocess.run(remove, check=True, capture_output=True)
    seconds = {name: [row[0] for row in rows] for name, rows in taken.items()}
    both = zip(seconds["compiled bfloat16"], seconds["old"], strict=True)
    pairs = [new / old for new, old in both]
    return {
        "old": options.old,
        "threads": options.threads,
        "images": IMAGES,
        "batch": BATCH,
        "first_epoch_seconds": {name: round(value, 2) for name, value in first.items()},
        "seconds": {name: [round(value, 2) for value in row] for name, row in seconds.items()},
        "losses": {name: [round(row[1], 4) for row in rows] for name, rows in taken.items()},
        "median_ratio": round(statistics.median(pairs), 3),
    }


WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "compiled bfloat16": {"precision": "bfloat16", "compiled": True},
}


def kinds_of_network(data: Any, epochs: int) -> dict[str, tuple[Any, ...]]:
    """Images, classes, views, batch size and settings of each kind of network."""
    images, labels = normalised(data, data.train.images), data.train.labels
    families = parse_families("colour_crop_cutout_flip_scale_rotate")
    few = torch.cat([torch.nonzero(labels == k)[:10, 0] for k in range(10)])
    expert = TrainSettings(epochs, 0.01, momentum=0.0, weight_decay=0.0, schedule="constant")
    teacher = TrainSettings(epochs, 0.002, "adamw", weight_decay=0.01)
    plain = Augmentation(parse_families("crop_scale_rotate"))
    student = TrainSettings(100, 0.01)
    return {
        "expert": (images, labels, dsa(families), 128, expert),
        "teacher": (images, labels, plain, 128, teacher),
        "student of 10 random images per class": (
            images[few], labels[few], dsa(families), 100, student,
        ),
    }  # fmt: skip


def normalised(data: Any, images: Tensor) -> Tensor:
    """Images by the mean and deviation of the training images."""
    return (images - data.train.images.mean()) / data.train.images.std()


def trained(parts: tuple[Any, ...], width: int, seed: int, changes: dict[str, Any]) -> nn.Module:
    """A network of a kind, trained from a seed."""
    images, labels, views, batch, settings = parts
    torch.manual_seed(seed)
    network = ConvNet(1, (28, 28), 10, depth=3, width=width)
    generator = torch.Generator().manual_seed(seed)

    def batches(epoch: int) -> Iterator[Batch]:
        return shuffled_batches(images, HardLogits(labels, 10), batch, views, generator)

    for _ in train(network, batches, replace(settings, **changes)):
        pass
    return network


def compare_accuracies(options: argparse.Namespace) -> dict[str, Any]:
    """Test accuracies of networks trained in both ways, as three kinds of networks are."""
    data = load_data("fashion-mnist", subset=options.images)
    test = normalised(data, data.test.images)
    rows: dict[str, dict[str, list[float]]] = {}
    for kind, parts in kinds_of_network(data, options.epochs).items():
        rows[kind] = {name: [] for name in WAYS}
        for seed in range(options.seeds):
            for name, changes in WAYS.items():
                network = trained(parts, options.width, seed, changes)
                rows[kind][name].append(round(accuracy(network, test, data.test.labels), 4))
                print(kind, name, seed, rows[kind][name][-1], flush=True)
    return {
        "network": f"convnet3:width={options.width}",
        "images": options.images,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "accuracies": rows,
        "differences": {kind: _difference(row) for kind, row in rows.items()},
    }


def _difference(row: dict[str, list[float]]) -> dict[str, float]:
    """The mean difference over seeds, and its standard error."""
    pairs = list(zip(row["compiled bfloat16"], row["float32"], strict=True))
    differences = [new - old for new, old in pairs]
    return {
        "mean": round(statistics.mean(differences), 5),
        "standard_error": round(statistics.stdev(differences) / len(differences) ** 0.5, 5),
    }


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("time", "accuracy"))
    parser.add_argument("--old", default="cc58091", help="the older commit")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    measured = time_epochs(options) if options.what == "time" else compare_accuracies(options)
    result = {**provenance(this_call()), **measured}
    write_result(RESULTS / f"training-{options.what}.json", result)


if __name__ == "__main__":
    main()
