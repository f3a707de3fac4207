"""Whose labels teach on coded real images: classes, votes on them, or votes on their originals.

    python benchmarks/coded_labels.py coded-labels runs/30kb --epochs 150,300 --temperatures 1,2,4

The run has selected random images under a coding, with votes as labels (`select.labels`), and its
committee. For each kind of label and number of epochs, fresh students are trained on the set's
coded images by the protocol of its recipe, and tested once, after their last epoch, on the
validation split; the test split is not touched. The students of a seed are the same for all labels.
Writes benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import RESULTS, provenance, this_call, write_result
from torch import Tensor

from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob, statistics_of
from distill.evaluation.students import grade_student
from distill.recipes.loading import check_recipe, with_evaluation
from distill.run.artefacts import SELECT_STAGE
from distill.run.context import Context
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.set_file import SetFile, read_set, set_path
from distill.teachers.loading import load_committee
from synth.images import gather
from synth.training.prediction import predict

_AT_ONCE = 256


def originals(context: Context, content: SetFile) -> Tensor:
    """The real images [n, c, h, w] of a set of random ones, as they were before they were coded."""
    recipe = context.recipe.table("select")
    if recipe.method != "random":
        raise SystemExit(f"the set has images selected by {recipe.method}; random ones are needed")
    per_class = len(content.hard) // context.classes
    return gather(context.random_real(per_class, context.generator(SELECT_STAGE))[0])


def kinds(
    context: Context, content: SetFile, temperatures: list[float]
) -> Iterator[tuple[str, Tensor | None]]:
    """Label logits [n, k] by what they are of; None for the classes."""
    committee = load_committee(context)

    def votes(images: Tensor) -> Tensor:
        return predict(committee.vote, images, _AT_ONCE)

    yield "classes", None
    on_coded, on_originals = votes(gather(content.images)), votes(originals(context, content))
    for temperature in temperatures:
        yield f"votes on the coded images, T = {temperature:g}", on_coded / temperature
        yield f"votes on the originals, T = {temperature:g}", on_originals / temperature
    yield "votes on the originals, as the set keeps them", content.learned


def measure(
    context: Context, content: SetFile, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Accuracies of students by label and number of epochs."""
    table, rows = context.recipe.table("evaluate"), []
    for kind, logits in kinds(context, content, options.temperatures):
        source = "hard" if logits is None else "learned"
        judged = EvaluatedSet(replace(content, learned=logits, coded_labels=None))
        right = None
        if logits is not None:
            right = float((logits.argmax(dim=1) == content.hard).float().mean())
        for student in options.students:
            for epochs in options.epochs:
                jobs = [
                    StudentJob(STUDENTS, student, source, seed, trial=True, epochs=epochs)
                    for seed in range(options.seeds)
                ]
                runs = [grade_student(context, table, judged, job).accuracy for job in jobs]
                rows.append(
                    {
                        "labels": kind,
                        "right": right,
                        "student": student,
                        "epochs": epochs,
                        **statistics_of(runs),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def measure_set(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rows of a set."""
    content = read_set(set_path(path))
    if content.coded is None or content.learned is None:
        raise SystemExit(f'{path} holds no coded images with votes; see select.labels = "votes"')
    changes = {"students": options.students, "protocol": "hard", "lr": options.lr}
    recipe = with_evaluation(check_recipe(content.manifest["recipe"], str(path)), changes)
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), path, recipe, "cpu", True, stop)
        return {
            "recipe": content.manifest["recipe"],
            "images": len(content.images),
            "validation_images": len(context.data.validation),
            "rows": measure(context, content, options),
        }


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument(
        "--students", type=lambda text: text.split(","), default="convnet3:width=32"
    )
    parser.add_argument("--temperatures", type=_numbers, default="2")
    parser.add_argument(
        "--epochs", type=lambda text: [int(part) for part in text.split(",")], default="200"
    )
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    result = {
        **provenance(this_call()),
        "seeds": list(range(options.seeds)),
        "lr": options.lr,
        **measure_set(options.run, options),
    }
    write_result(RESULTS / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
