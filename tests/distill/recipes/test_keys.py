"""Every key of a recipe is shown at work: some packaged recipe sets it to more than its default."""

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from distill.names import recipe_names
from distill.recipes.loading import check_recipe, recipe_text
from distill.recipes.schema import TABLES

_MACHINE = "how a machine computes, not what: float32 is what a CPU does best"
_CHECKPOINTS = "decides what an interruption costs, and nothing that comes out"
_COMPILE = "how a machine computes, not what: auto knows when it pays"

# Keys that no packaged recipe sets to anything else than their default, and why.
LEFT_ALONE = {
    "data.skip_damaged": "for a user's folder with damaged pictures",
    "experts.precision": _MACHINE,
    "experts.compile": _COMPILE,
    "experts.sharpness_alpha": "its default is FTD's",
    "match.compile": _COMPILE,
    "match.checkpoint_every": _CHECKPOINTS,
    "committee.weights": "a file on the user's disk",
    "committee.mean": "of a file on the user's disk",
    "committee.std": "of a file on the user's disk",
    "committee.compile": _COMPILE,
    "recover.precision": _MACHINE,
    "recover.blend_kept": "its default is FADRM's",
    "recover.patch_complexity": "its default is RETA's",
    "recover.checkpoint_every": _CHECKPOINTS,
    "evaluate.hard_smoothing": "its default is HALD's",
    "evaluate.anneal_factor": "its default is LPQLD's",
    "evaluate.compile": _COMPILE,
}

KEYS = {f"{name}.{key}" for name, table in TABLES.items() for key in table.model_fields}


def set_otherwise(text: str) -> Iterator[str]:
    """The keys that a recipe sets to another value than their default."""
    raw = tomllib.loads(text)
    loaded = check_recipe(raw, "the recipe")
    for name, table in TABLES.items():
        for key in raw.get(name, {}):
            field = table.model_fields[key]
            if field.is_required() or getattr(getattr(loaded, name), key) != default(field):
                yield f"{name}.{key}"


def default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


@pytest.fixture(scope="module")
def shown() -> set[str]:
    return {key for recipe in recipe_names() for key in set_otherwise(recipe_text(recipe))}


def test_every_key_is_set_by_a_packaged_recipe_or_left_alone_for_a_reason(shown):
    assert sorted(KEYS - shown - LEFT_ALONE.keys()) == []


def test_keys_that_are_left_alone_exist_and_no_recipe_sets_them(shown):
    assert sorted(LEFT_ALONE.keys() - KEYS) == []
    assert sorted(LEFT_ALONE.keys() & shown) == []


@pytest.mark.parametrize(("share", "counts"), [("0.1", False), ("0.2", True)])
def test_a_key_that_is_set_to_its_default_does_not_count(share, counts):
    text = f'[data]\nsource = "digits"\nvalidation = {share}\n[select]\nipc = 1\nmethod = "random"'
    assert ("data.validation" in set(set_otherwise(text))) is counts
