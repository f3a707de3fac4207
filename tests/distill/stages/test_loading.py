"""Everything that speaks of stages reads one list of them."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.commands.cli import COMMANDS, cli
from distill.commands.run import VERBS
from distill.errors import RecipeError
from distill.plan import make_plan
from distill.plan.clock import QUICK
from distill.plan.sizes import set_file
from distill.recipes.loading import check_recipe, load_recipe
from distill.recipes.schema import TABLES, Recipe
from distill.recipes.stages import MAKERS, STAGE_ENTRIES
from distill.run import artefacts
from distill.stages.loading import STAGES, check_stages, planned
from distill.stages.units.networks import Units
from distill.stages.units.shapes import data_shape
from distill.stages.units.unit import NotPricedError, Unit
from tests.distill.cases import TINY, write_recipe

ROOT = Path(__file__).resolve().parents[3]
MORE = """
[refine]
tower = "config:tiny-vit"
steps = 2

[encode]
codec = "dense:dtype=float16"
"""
HEAD, _, REST = TINY.partition("[experts]")
MATCH, _, TAIL = REST.partition("[committee]")
MADE = {
    "match": f"[experts]{MATCH}",
    "recover": "[recover]\nipc = 1\niterations = 2\ncandidates = 4\ndrawn = 1\nbn_weight = 0\n",
    "select": "[select]\nipc = 1\ncandidates = 4\nfactor = 1\n",
}


def made_by(maker, more=MORE):
    """The tiny recipe with a set that this stage makes, and more tables."""
    return f"{HEAD}{MADE[maker]}\n[committee]{TAIL}{more}"


@pytest.fixture
def of(tmp_path):
    """The recipe of a text, as it is loaded from a file."""

    def load(text, *changes):
        return load_recipe(str(write_recipe(tmp_path, text)), list(changes))

    return load


def units_of(recipe):
    return Units(recipe, data_shape(recipe.data), torch.device("cpu"))


def test_names_of_stages_are_those_of_the_list():
    constants = [name for name in vars(artefacts) if name.endswith("_STAGE")]
    assert [getattr(artefacts, name) for name in constants] == list(STAGE_ENTRIES)
    assert list(STAGES) == list(STAGE_ENTRIES)
    assert [stage.entry for stage in STAGES.values()] == list(STAGE_ENTRIES.values())


def test_stages_read_tables_of_the_recipe_and_what_was_made_before():
    assert list(TABLES) == [name for name in Recipe.model_fields if name in TABLES]
    assert set(TABLES) == {"data", *(entry.table for entry in STAGE_ENTRIES.values())}
    order = list(STAGE_ENTRIES)
    for entry in STAGE_ENTRIES.values():
        assert {*entry.tables, *entry.needs} <= set(TABLES)
        assert all(order.index(name) < order.index(entry.name) for name in entry.inputs)
    assert MAKERS == ("match", "recover", "select")
    for name in ("refine", "relabel", "encode", "evaluate"):
        assert set(MAKERS) <= set(STAGE_ENTRIES[name].inputs), (
            "its images may come from any of them"
        )


def test_every_stage_is_in_one_of_these_recipes(of):
    found = {stage.name for maker in MADE for stage in planned(of(made_by(maker)))}
    assert found == set(STAGES)


@pytest.mark.parametrize("maker", MADE)
def test_every_stage_states_its_units_without_running_anything(maker, of):
    recipe = of(made_by(maker))
    units = units_of(recipe)
    for stage in planned(recipe):
        tasks = stage.units(units, getattr(recipe, stage.entry.table))
        parts = [part for task in tasks for part in task.parts]
        assert parts, stage.name
        assert all(task.count > 0 for task in tasks)
        for part in parts:
            assert part.times > 0
            assert isinstance(part.unit, Unit)
            cost = part.unit.cost(part.unit.batch)
            assert cost.peak_bytes > 0
            assert cost.flops > 0 or stage.name == "encode"
    assert "committee" not in vars(units), "networks are built when they are timed"


def test_refining_and_encoding_are_priced(of, monkeypatch):
    monkeypatch.setattr("distill.plan.QUICK", replace(QUICK, repeated=0.0, calls=1))
    recipe = of(made_by("match"))
    found = make_plan(recipe)
    assert list(found["time"]["stages"]) == [stage.name for stage in planned(recipe)]
    assert list(found["memory"]["stages"]) == list(found["time"]["stages"])
    parts = {name: stage["parts"] for name, stage in found["time"]["stages"].items()}
    assert [(part["what"], part["times"]) for part in parts["refine"]] == [
        ("refining step of config:tiny-vit", 2)
    ]
    assert [part["what"] for part in parts["encode"]] == [
        "labels of 4 epochs encoded by dense:dtype=float16"
    ]
    for stage in found["time"]["stages"].values():
        assert stage["seconds"] > 0
    with_images = set_file(recipe, units_of(recipe).shape)
    plain = set_file(recipe.model_copy(update={"refine": None}), units_of(recipe).shape)
    assert with_images - plain > 4 * 10 * 64, "the refined images stand beside the others"


def test_codecs_that_are_tried_are_all_priced(of):
    text = made_by("match").replace('codec = "dense:dtype=float16"', "target_bytes = 500")
    recipe = of(text)
    (task,) = STAGES["encode"].units(units_of(recipe), recipe.encode)
    assert len(task.parts) > 3
    assert len({part.unit.what for part in task.parts}) == len(task.parts)
    judged = of(text.replace("target_bytes = 500", "max_loss = 0.1"))
    tasks = STAGES["encode"].units(units_of(judged), judged.encode)
    words = [part.unit.what for task in tasks for part in task.parts]
    assert any(word.startswith("training step of convnet2:width=4, adamw") for word in words)
    network = of(text.replace("target_bytes = 500", 'codec = "teacher:residual=0.5+dense"'))
    (task,) = STAGES["encode"].units(units_of(network), network.encode)
    assert [part.unit.what.split(" of ")[0] for part in task.parts] == ["online labels", "labels"]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_students_are_priced_by_the_optimiser_of_the_recipe(optimizer, of):
    recipe = of(TINY, f"evaluate.soft_optimizer={optimizer}", "evaluate.precision=bfloat16")
    tasks = STAGES["evaluate"].units(units_of(recipe), recipe.evaluate)
    words = {part.unit.what for task in tasks for part in task.parts}
    steps = [word for word in words if word.startswith("training step")]
    assert all(word.endswith(", bfloat16") for word in steps)
    assert any(f", {optimizer}, crop_scale_rotate" in word for word in steps)
    assert not any("adamw" in word for word in steps)


def test_what_is_not_priced_says_so(of):
    recipe = of(TINY, "relabel.active=random")
    with pytest.raises(NotPricedError, match=r"relabel\.active = random is not priced"):
        STAGES["relabel"].units(units_of(recipe), recipe.relabel)


def test_commands_follow_the_list(command):
    with_verb = [entry.name for entry in STAGE_ENTRIES.values() if entry.verb]
    assert list(VERBS) == with_verb
    assert [name for name in COMMANDS if name in STAGE_ENTRIES] == [
        *with_verb,
        "encode",
        "evaluate",
    ]
    shown = command("run", "--help").out
    choices = re.search(
        r"--stage \[([^\]]+)\]", re.sub(r"\s+", "", shown).replace("--stage", "--stage ")
    )
    assert choices is not None
    assert choices[1].split("|") == list(STAGE_ENTRIES)
    text = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.endswith("| one stage of it |")]
    assert re.findall(r"`(\w+)`", row) == with_verb


@pytest.mark.parametrize("name", VERBS)
def test_example_of_a_verb_runs_as_it_is_written(name):
    """Its recipe has the tables, and what its stages read is made by the lines before."""
    help_text = VERBS[name].get_help(
        cli.make_context("distill", [name, "--help"], resilient_parsing=True)
    )
    lines = [line.strip() for line in help_text.partition("Example:")[2].splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("distill ")]
    assert commands[-1][0] == name
    done = set()
    for verb, recipe_name, *options in commands:
        assert options == ["--out", f"runs/{recipe_name}"]
        recipe = load_recipe(recipe_name)
        stages = [
            stage
            for stage in STAGE_ENTRIES[verb].verb
            if stage in [s.name for s in planned(recipe)]
        ]
        check_stages(recipe, [verb])
        for stage in stages:
            done.add(stage)
            wanted = {*STAGES[stage].inputs, *STAGES[stage].also_inputs(recipe)}
            assert wanted & {other.name for other in planned(recipe)} <= done, (verb, stage)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[relabel]\n", "[relabel] needs teachers; add a [committee] table"),
        ("[projector]\n", "[projector] needs teachers; add a [committee] table"),
        ('[encode]\ncodec = "dense"\n', "[encode] needs voted labels; add a [relabel] table"),
    ],
)
def test_tables_that_a_stage_needs_are_asked_for(table, words, of):
    text = TINY.partition("[committee]")[0] + table
    with pytest.raises(RecipeError, match=re.escape(words)):
        of(text)


@pytest.mark.parametrize(("stage", "what"), [("refine", "a tower"), ("projector", "a projector")])
def test_what_reads_pixels_takes_no_whitened_images(stage, what):
    base = {
        "data": {"source": "digits", "zca": True},
        "committee": {"members": ["mlp"]},
        "select": {"ipc": 1, "method": "random"},
    }
    with pytest.raises(RecipeError, match=f"{what} reads pixels: .* or drop .{stage}."):
        check_recipe({**base, stage: {}}, "recipe")


def test_students_are_priced_by_the_batches_and_views_of_their_protocol(of):
    recipe = of(TINY, "evaluate.protocol=rded", "evaluate.epochs=3")
    tasks = STAGES["evaluate"].units(units_of(recipe), recipe.evaluate)
    units = [part.unit for task in tasks for part in task.parts]
    steps = [unit for unit in units if unit.what.startswith("training step")]
    views = {unit.what.rpartition(", ")[2] for unit in steps}
    # Views that are labelled online are drawn with the labels; the whole data set has its own.
    assert views == {"resize_flip", "none", "colour_crop_cutout_scale_rotate"}
    assert {unit.batch for unit in steps if unit.what.endswith("resize_flip")} == {10}
    assert any(unit.what.startswith("online labels of convnet2") for unit in units)


def test_trainings_that_choose_a_protocol_are_priced(of):
    plain = of(TINY, "evaluate.labels=hard")
    tuned = of(TINY, "evaluate.labels=hard", "evaluate.optimizers=sgd,muon")
    counts = [len(STAGES["evaluate"].units(units_of(r), r.evaluate)) for r in (plain, tuned)]
    # Two for each of students, random and whole.
    assert counts[1] - counts[0] == 6
