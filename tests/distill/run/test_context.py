"""Jobs of a context give the same here and in workers, and count what they did."""

import os
from functools import partial

import pytest
import torch

from distill.recipes.build import build_data
from distill.recipes.loading import load_recipe
from distill.run.context import Context
from distill.run.engines import Load, Local
from distill.run.folder import open_run
from distill.run.interrupt import Stop
from distill.run.progress import Progress
from tests.distill.cases import TINY, write_recipe

made: list[int] = []


def no_load(job):
    return Load(0.0, 0)


def work(factor, context, job):
    """What a job does: its result, the process, and how often that prepared."""
    offset = context.once("offset", lambda: made.append(job) or 100)
    context.progress.advance(f"did {job}")
    context.progress.advance(count=2)
    context.log("work", job=job)
    context.checkpoint("work").part("own").save({}, job)
    return offset + factor * job + len(context.data.train), os.getpid(), len(made)


def part(context, number):
    context.progress.advance()
    context.log("part", number=number)
    return {"images": torch.full((2,), number).numpy(), "more": torch.ones(1).numpy()}, [number]


class Shown(Progress):
    """Remembers what was counted as done."""

    def __init__(self):
        super().__init__(quiet=True)
        self.advance = self.remember
        self.calls = []

    def remember(self, note="", count=1):
        self.calls.append((note, count))


@pytest.fixture(params=[1, 2], ids=["here", "workers"])
def context(request, tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path, TINY)))
    made.clear()
    with open_run(tmp_path / "run", recipe.model_dump(mode="json")) as run:
        device = torch.device("cpu")
        found = Context(run, recipe, device, Shown(), Stop(), key="k", engine=Local(request.param))
        found.data = build_data(recipe.data)
        yield found


def test_jobs_give_the_same_here_and_in_workers(context):
    found = dict(context.map(partial(work, 2), [1, 2, 3, 4], no_load))
    assert {job: result[0] for job, result in found.items()} == {
        job: 100 + 2 * job + len(context.data.train) for job in range(1, 5)
    }
    assert {result[2] for result in found.values()} == {1}, "made once in each process"
    assert ({result[1] for result in found.values()} == {os.getpid()}) == context.engine.here
    calls = context.progress.calls
    assert sum(count for _, count in calls) == 12
    assert {note for note, _ in calls} - {""} == {f"did {job}" for job in range(1, 5)}


def test_workers_write_nothing_into_the_run(context):
    dict(context.map(partial(work, 2), [1, 2], no_load))
    written = 2 if context.engine.here else 0
    assert len(context.run.read_metrics()) == written
    saved = context.checkpoint("work").part("own").load()
    assert (saved is not None) == context.engine.here


def test_parts_that_were_kept_are_not_made_again(context):
    checkpoint = context.checkpoint("part")
    checkpoint.part(1).save({"images": torch.full((2,), 9), "more": torch.ones(1)}, ["kept"])
    found = dict(context.map_parts(checkpoint, part, [1, 5, 1], no_load, leave_out=("more",)))
    assert {number: header for number, (_, header) in found.items()} == {
        0: [0],
        1: ["kept"],
        2: [2],
    }
    assert [int(found[number][0]["images"][0]) for number in range(3)] == [0, 9, 2]
    assert all(set(tensors) == {"images"} for tensors, _ in found.values())
    assert sorted(count for _, count in context.progress.calls) == [1, 1, 5]
    assert set(checkpoint.part(2).load()[0]) == {"images", "more"}
    again = dict(context.map_parts(checkpoint, part, [1, 5, 1], no_load))
    assert {number: header for number, (_, header) in again.items()} == {
        number: header for number, (_, header) in found.items()
    }


def test_what_is_made_once_is_the_last_of_its_name(context):
    made.clear()
    for key in ("a", "a", "b", "a"):
        assert context.once("set", lambda key=key: made.append(1) or key, key) == key
    assert len(made) == 3
    context.forget()
    assert context.once("set", lambda: "new", "a") == "new"
