"""Every entry names an object that is there and has the form that its table promises."""

import dataclasses
import inspect
from typing import get_args

import pytest
from torch import nn

from distill.names import (
    CODECS,
    CODINGS,
    DATA,
    FORMATS,
    GRADIENTS,
    LABELLING,
    LAYOUTS,
    MAKING,
    NETWORKS,
    PROJECTOR_FORMATS,
    STRATEGIES,
    TEACHERS,
    choices,
    load_object,
    resolve,
    selection,
)
from distill.recipes.schema import TABLES
from distill.recipes.tables.match import MatchTable
from distill.sets.exchange.projector import ExportRequest
from projectors.codecs import CODECS as REGISTERED
from synth.coding import CODINGS as PACKED
from synth.committee.strategies import CROWD_METHODS

STRATEGY = {**STRATEGIES, **MAKING, **LABELLING}
# What the object of a strategy is called with, by the key that it is a value of.
CALLED = {
    "committee.vote": ["context", "table", "members", "networks"],
    "recover.schedule": ["priors", "count", "call", "generator"],
    "recover.init": ["context", "table"],
    "match.init": ["start"],
    "match.label_init": ["start", "images"],
}


def parameters(found):
    return list(inspect.signature(found).parameters)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_a_module_with_the_options_of_its_entry(name):
    family, entry = resolve(NETWORKS[name]), NETWORKS[name]
    assert issubclass(family, nn.Module)
    assert parameters(family)[:3] == ["channels", "size", "classes"]
    assert set(entry.options) == set(parameters(family)[3:])
    assert not entry.bare or entry.bare in entry.options


def test_codecs_are_those_that_projectors_knows_with_the_fields_as_options():
    found = {name: resolve(entry) for name, entry in CODECS.items() if entry.object}
    assert set(found.values()) == set(REGISTERED.values())
    for name, codec in found.items():
        fields = {field.name for field in dataclasses.fields(codec)}
        own = {"inner", "batch_size"} if CODECS[name].role == "pool" else set()
        assert set(CODECS[name].options) == fields - own
    roles = {name: entry.role for name, entry in CODECS.items() if not entry.object}
    assert set(roles.values()) == {"stored", "views", "network", "name"}
    assert all(entry.meaning for entry in CODECS.values() if entry.role == "name")


def test_codings_are_those_that_synth_packs_with_the_fields_as_options():
    assert {name: resolve(entry) for name, entry in CODINGS.items()} == PACKED
    for name, entry in CODINGS.items():
        fields = {field.name: field.default for field in dataclasses.fields(PACKED[name])}
        # Shape and groups come from the set.
        del fields["shape"]
        fields.pop("groups", None)
        assert entry.options == fields


@pytest.mark.parametrize("name", DATA)
def test_a_data_source_takes_a_request(name):
    assert parameters(resolve(DATA[name])) == ["request"]


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_is_built_from_keys_of_its_table(name):
    entry = GRADIENTS[name]
    # `compiled` is what the key `compile` comes to.
    assert set(entry.takes) <= {*MatchTable.model_fields, "compiled"}
    assert set(entry.takes) <= set(parameters(resolve(entry)))
    assert parameters(resolve(entry)())[:4] == ["loop", "start", "target", "lr"]
    assert not entry.like or GRADIENTS[entry.like].like == ""


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_reads_a_path(name):
    assert parameters(resolve(LAYOUTS[name])) == ["path"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_writes_a_set_and_may_read_it_again(name):
    entry = FORMATS[name]
    assert parameters(resolve(entry)) == ["folder", "data", "archive"]
    assert bool(entry.file) == bool(entry.reader)
    if entry.reader:
        assert parameters(load_object(entry.reader)) == ["path"]


@pytest.mark.parametrize("name", PROJECTOR_FORMATS)
def test_a_format_of_projectors_takes_options_of_the_request(name):
    entry = PROJECTOR_FORMATS[name]
    assert parameters(resolve(entry)) == ["projector", "folder", *entry.takes]
    assert set(entry.takes) <= {field.name for field in dataclasses.fields(ExportRequest)}


@pytest.mark.parametrize("name", [name for name, entry in STRATEGY.items() if entry.object])
def test_a_strategy_with_an_object_can_be_called_by_its_stage(name):
    key, _, value = name.partition("=")
    found = parameters(resolve(STRATEGY[name]))
    if key != "select.method":
        assert found == CALLED[key]
        return
    reads = selection(value).reads
    assert reads in ("features", "images", "teachers", "experts")
    assert found == (["features", "count"] if reads == "features" else ["context", "table"])


@pytest.mark.parametrize("name", [name for name, entry in STRATEGY.items() if not entry.object])
def test_a_strategy_without_an_object_is_a_key_of_a_recipe_with_that_value(name):
    key, _, value = name.partition("=")
    table, _, field = key.partition(".")
    assert field in TABLES[table].model_fields
    if key == "relabel.aggregate":
        assert value in ("logits", "probabilities", *CROWD_METHODS)
    elif value:
        assert value in get_args(TABLES[table].model_fields[field].annotation)


def test_every_value_with_an_entry_is_accepted_and_others_are_refused_by_name():
    with pytest.raises(ValueError, match="it should be 'adjoint', 'frozen' or 'unrolled'"):
        MatchTable(ipc=1, gradient="exact")
    for name in GRADIENTS:
        assert MatchTable(ipc=1, gradient=name).gradient == name
    assert list(choices("recover.schedule")) == ["random", "pairs", "fixed"]
    assert choices("recover.sched") == {}


def test_limbeck_itself_brings_no_teacher():
    assert TEACHERS.own == {}
