"""What refinement of coded images gives: accuracy of fresh students at equal bytes.

    distill run digits-exact --stage experts --stage match --set data.validation=0.4 \
        --out runs/digits
    distill select digits-herding --set data.validation=0.4 --set select.method=random \
        --set select.ipc=42 --set select.features=pixels --out runs/real
    python benchmarks/refinement.py refinement-distilled runs/digits 250,400,700
    python benchmarks/refinement.py refinement-real runs/real 1500,2500,4000 \
        --epochs 20 --seeds 3 --networks 1

The set is compressed into each number of bytes by three rules: without refinement, refined by the
squared error of pixels, and by that of the features of randomly initialised networks. Students are
tested once, after their last epoch, on the validation split; the test split is not touched. The
students of a seed are the same for all rules. Writes benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from code_state import RESULTS
from record import provenance, this_call, write_result
from torch import Generator, Tensor

from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob, statistics_of
from distill.evaluation.students import grade_student
from distill.recipes.loading import check_recipe, with_evaluation
from distill.run.context import Context
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.coded_set import coding_spec
from distill.sets.compress import Distance, compress_set, squared_error
from distill.sets.set_file import SetFile, read_set, set_path
from synth.formation import decode_images
from synth.networks import ConvNet

# Gradient steps, and the width of the networks whose features are compared.
_STEPS, _WIDTH = 30, 32


def feature_error(content: SetFile, count: int, seed: int) -> Callable[[Tensor, int], Distance]:
    """The squared error of features of what students see, relative to their spread.

    Features as Distribution Matching takes them (Zhao and Bilen 2023), of each image.
    """
    generator = Generator().manual_seed(seed)
    networks = [_network(content, generator) for _ in range(count)]

    def distance(pixels: Tensor, factor: int) -> Distance:
        def features(stored: Tensor) -> list[Tensor]:
            seen = decode_images(content.preprocess(stored), factor)
            return [network.features(seen).flatten(1) for network in networks]

        with torch.no_grad():
            wanted = features(pixels)
            spread = [(part - part.mean(dim=0)).square().mean() for part in wanted]

        def error(decoded: Tensor) -> Tensor:
            parts = zip(features(decoded), wanted, spread, strict=True)
            terms = [(now - then).square().mean() / scale for now, then, scale in parts]
            return torch.stack(terms).mean()

        return error

    return distance


def _network(content: SetFile, generator: Generator) -> ConvNet:
    _, channels, height, width = content.images.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        network = ConvNet(channels, (height, width), 1, depth=3, width=_WIDTH)
    return network.requires_grad_(False)


def rules(
    content: SetFile, networks: int
) -> dict[str, tuple[int, Callable[[Tensor, int], Distance]]]:
    """Steps and distance of each rule."""
    return {
        "plain": (0, squared_error),
        "pixels": (_STEPS, squared_error),
        "features": (_STEPS, feature_error(content, networks, 0)),
    }


def measure(
    context: Context, content: SetFile, budget: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Accuracies of students by rule, with coding, errors, bytes and seconds."""
    table = context.recipe.table("evaluate")
    found: dict[str, Any] = {}
    for name, (steps, distance) in rules(content, options.networks).items():
        started = time.monotonic()
        made = compress_set(content, budget, steps, distance)
        seconds = time.monotonic() - started
        judged = EvaluatedSet(made.content)
        runs = [
            grade_student(
                context,
                table,
                judged,
                StudentJob(STUDENTS, table.students[0], "hard", seed, trial=True),
            ).accuracy
            for seed in range(options.seeds)
        ]
        found[name] = {
            "coding": coding_spec(made.coding),
            "bytes": made.bytes["total"],
            "squared_error": made.error,
            "seconds": round(seconds, 1),
            **statistics_of(runs),
        }
        print(budget, name, found[name], flush=True)
    for name in ("pixels", "features"):
        pairs = zip(found[name]["runs"], found["plain"]["runs"], strict=True)
        gains = statistics_of([refined - plain for refined, plain in pairs])
        # Its interval is that of a fraction, which a difference is not.
        found[name]["gain"] = {key: gains[key] for key in ("mean", "std", "runs")}
    return found


def measure_set(path: Path, budgets: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """All budgets of a set."""
    content = read_set(set_path(path))
    changes = {"students": [options.student], "labels": ["hard"], "epochs": options.epochs}
    recipe = with_evaluation(check_recipe(content.manifest["recipe"], str(path)), changes)
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), path, recipe, "cpu", True, stop)
        found = {str(budget): measure(context, content, budget, options) for budget in budgets}
        return {
            "recipe": content.manifest["recipe"],
            "images": len(content.images),
            "validation_images": len(context.data.validation),
            "budgets": found,
        }


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("run", type=Path, help="a run's folder, or a set.h5")
    parser.add_argument("budgets", help="numbers of bytes, comma-separated")
    parser.add_argument("--student", default="convnet3:width=32")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", type=int, default=3, help="whose features are compared")
    parser.add_argument("--epochs", type=int, default=300)
    options = parser.parse_args()
    result = {
        **provenance(this_call()),
        "student": options.student,
        "seeds": list(range(options.seeds)),
        "epochs": options.epochs,
        "networks": options.networks,
        "labels": "hard",
        **measure_set(options.run, [int(part) for part in options.budgets.split(",")], options),
    }
    write_result(RESULTS / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
