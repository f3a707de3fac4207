"""Does the matching distance rank sets as the accuracy of their students does?

    distill run digits-exact --stage experts --stage match --out runs/rank
    python benchmarks/objective_rank.py rank-digits runs/rank --every 20 \
        --students convnet3:width=32,resnet18:width=8

Matching starts anew on the run's experts, by its recipe. Before the first outer step and after
every N, the set is judged twice: by its mean distance over segments that are the same each time,
and by fresh students' accuracy on the test images. Writes benchmarks/results/NAME.json: both at
each of these steps, and by student Spearman's rank correlation of accuracy with the distance (near
-1 where a smaller distance means a better set) and with the number of steps (what time alone
explains).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from code_state import RESULTS
from record import provenance, this_call, write_result
from scipy.stats import spearmanr

from distill.errors import WorkError
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob, statistics_of
from distill.evaluation.students import grade_student
from distill.recipes.build import build_gradient
from distill.recipes.loading import check_recipe, with_evaluation
from distill.run.artefacts import EXPERTS
from distill.run.context import Context
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.set_file import SetFile, read_set, set_path
from distill.stages.match.problem import match_problem, outer_steps
from distill.stages.match.start import starting_state
from synth.matching.mean_gradient import mean_gradient
from synth.matching.state import MatchState


def checkpoints(context: Context, every: int) -> Iterator[MatchState]:
    """The state before the first outer step, after every N, and after the last."""
    table = context.recipe.table("match")
    start = starting_state(context, table)
    yield start
    for state, _ in outer_steps(context, None, start):
        if state.step % every == 0 or state.step == table.iterations:
            yield state


def distance_of(context: Context, state: MatchState, draws: int) -> float:
    """The mean distance over the segments of `draws` outer steps that matching does not take."""
    table = context.recipe.table("match")
    problem = match_problem(context, table, len(state.labels), None)
    method = build_gradient(table)
    choices = [
        choice
        for step in range(table.iterations, table.iterations + draws)
        for choice in problem.choose(step)
    ]
    found = mean_gradient(state.now, choices, problem, method).distance
    if found is None:
        raise WorkError("the recipe matches features alone; name one with a parameter distance")
    return found


def accuracy_of(
    context: Context, content: SetFile, state: MatchState, student: str, seeds: int
) -> dict[str, Any]:
    """Statistics of the test accuracy of fresh students on the set as it is in a state."""
    learned = None if content.learned is None else state.labels
    manifest = {**content.manifest, "student_lr": float(state.student_lr)}
    now = replace(content, images=state.images, learned=learned, manifest=manifest)
    table = context.recipe.table("evaluate")
    labels = "hard" if learned is None else "learned"
    jobs = [StudentJob(STUDENTS, student, labels, seed) for seed in range(seeds)]
    judged = EvaluatedSet(now)
    return statistics_of([grade_student(context, table, judged, job).accuracy for job in jobs])


def measure(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Distances and accuracies at every checkpoint, and their rank correlations.

    Raises:
        SystemExit: if the run's images are coded: students would see others than were matched.
    """
    content = read_set(set_path(run))
    if content.coded is not None:
        sys.exit(f"the set of {run} is coded within a budget; name a run without one")
    changes = {"students": options.students}
    recipe = with_evaluation(check_recipe(content.manifest["recipe"], str(run)), changes)
    points = []
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), run, recipe, "cpu", True, stop)
        (Path(scratch) / EXPERTS).symlink_to((run / EXPERTS).resolve())
        for state in checkpoints(context, options.every):
            point = {
                "step": state.step,
                "distance": distance_of(context, state, options.draws),
                "students": {
                    student: accuracy_of(context, content, state, student, options.seeds)
                    for student in options.students
                },
            }
            print(point, flush=True)
            points.append(point)
    return {
        "recipe": recipe.model_dump(mode="json"),
        "points": points,
        "spearman": {student: ranks(points, student) for student in options.students},
    }


def ranks(points: list[dict[str, Any]], student: str) -> dict[str, Any]:
    """Spearman's correlation of a student's mean accuracy with the distance, and with the step."""
    accuracies = [point["students"][student]["mean"] for point in points]
    found: dict[str, Any] = {}
    for key in ("distance", "step"):
        result = spearmanr([point[key] for point in points], accuracies)
        found[key] = {"correlation": float(result.statistic), "p": float(result.pvalue)}
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("name")
    parser.add_argument("run", type=Path, help="a run's folder, with its experts")
    parser.add_argument("--every", type=int, default=20, help="outer steps between two checkpoints")
    parser.add_argument(
        "--draws", type=int, default=16, help="outer steps' segments a distance has"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--students", type=lambda text: text.split(","), default=["convnet3:width=32"]
    )
    options = parser.parse_args()
    result = {
        **provenance(this_call()),
        "draws": options.draws,
        "seeds": options.seeds,
        **measure(options.run, options),
    }
    write_result(RESULTS / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
