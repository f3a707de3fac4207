"""What decides how much students learn from a set: its labels, and one key of their training.

    python benchmarks/student_ways.py network-ways runs/30kb --labels teacher:bits=4 \\
        --way "" --way mix=none --way temperature=1 --way views=crop_scale_rotate_flip

A way is some keys of [evaluate] that differ from those of the run's recipe, "" for none; --labels
names the label sources that students are trained on in turn, `hard` among them. Students are
trained by them on the set (or --on random: on as many random real images) and tested once, after
their last epoch, on the validation split; the test split is not touched. The students of a seed are
the same for all ways. Several runs, such as with other teachers, are measured side by side. Writes
benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from record import RESULTS, provenance, this_call, write_result

from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import RANDOM, STUDENTS, StudentJob, statistics_of
from distill.evaluation.results import open_judged
from distill.evaluation.students import grade_student
from distill.recipes.loading import check_recipe, with_evaluation
from distill.recipes.schema import Recipe
from distill.run.context import Context
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.set_file import read_set, set_path
from synth.training.prediction import predict_classes

_GROUPS = {"set": STUDENTS, "random": RANDOM}


def changed(recipe: Recipe, way: str) -> Recipe:
    """The recipe with the keys of a way, such as "mix=none,temperature=1"."""
    pairs = (part.partition("=") for part in way.split(",") if part)
    return with_evaluation(recipe, {key: value for key, _, value in pairs})


def right(context: Context, judged: EvaluatedSet) -> float | None:
    """Share of the validation images whose class the committee names; None without one."""
    if judged.committee is None:
        return None
    images, labels = context.split("validation")
    found = predict_classes(judged.committee.vote, images)
    return float((found == labels).float().mean())


def rows_of(
    context: Context, judged: EvaluatedSet, recipe: Recipe, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Accuracies by label source, way and student."""
    for labels in options.labels:
        for way in options.way:
            table = changed(recipe, way).table("evaluate")
            for student in options.students or table.students:
                jobs = [
                    StudentJob(_GROUPS[options.on], student, labels, seed, trial=True)
                    for seed in range(options.seeds)
                ]
                runs = [grade_student(context, table, judged, job).accuracy for job in jobs]
                row = {"labels": labels, "way": way, "student": student, **statistics_of(runs)}
                print(row, flush=True)
                yield row


def measure(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rows of a run."""
    content = read_set(set_path(path))
    recipe = with_evaluation(check_recipe(content.manifest["recipe"], str(path)), {})
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), path, recipe, "cpu", True, stop)
        judged, _ = open_judged(context, set_path(path))
        return {
            "recipe": content.manifest["recipe"],
            # Random images are as many as are stored; a stored one may hold several that are seen.
            "images": len(content.seen_hard if options.on == "set" else content.hard),
            "validation_images": len(context.data.validation),
            "committee_right": right(context, judged),
            "rows": list(rows_of(context, judged, recipe, options)),
        }


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--labels", type=lambda text: text.split(","), default="hard")
    parser.add_argument("--way", action="append", help="keys of [evaluate], several by commas")
    parser.add_argument("--students", type=lambda text: text.split(","), default=None)
    parser.add_argument("--on", choices=_GROUPS, default="set")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(words)
    options.way = options.way or [""]
    return options


def main() -> None:
    """Measure and record."""
    options = parse(sys.argv[1:])
    result = {
        **provenance(this_call()),
        "seeds": list(range(options.seeds)),
        "on": options.on,
        "runs": {run.name: measure(run, options) for run in options.runs},
    }
    write_result(RESULTS / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
