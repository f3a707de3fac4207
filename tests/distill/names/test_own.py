"""Own code in specs: never without leave, and only what a module defines."""

import sys

import pytest

from distill.errors import RecipeError, WorkError
from distill.names import NetworkEntry, allowed_code, given_parts, resolve
from distill.recipes.specs import find_network, parse_network

SOURCE = """
from os import system

open({mark!r}, "w").close()


def small(channels, size, classes, width=4, name="a"):
    pass


value = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of one's own on the path, which leaves a mark when it is imported."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(mark=str(tmp_path / "mark")))
    monkeypatch.syspath_prepend(tmp_path)
    yield name, tmp_path / "mark"
    sys.modules.pop(name, None)


def test_module_that_is_not_allowed_is_never_imported(module):
    name, mark = module
    for spec in (f"{name}:small", f"teacher:{name}:small", f"{name}:small:width=3"):
        with pytest.raises(RecipeError, match=f"add --allow-code {name}"):
            parse_network(spec)
    with allowed_code(["another"]), pytest.raises(RecipeError, match="add --allow-code"):
        parse_network(f"{name}:small")
    assert not mark.exists()


def test_allowed_module_gives_a_network_with_options_until_the_block_ends(module):
    name, mark = module
    with allowed_code([name]):
        entry, options = parse_network(f"{name}:small:width=8")
        assert (options, entry.trained) == ({"width": 8, "name": "a"}, False)
        assert resolve(entry) is sys.modules[name].small
        assert parse_network(f"teacher:{name}:small:name=b")[0].trained
        assert mark.exists()
    with pytest.raises(RecipeError, match="add --allow-code"):
        find_network(f"{name}:small")


def test_only_what_the_module_defines_can_be_named(module):
    name, _ = module
    with allowed_code([name]):
        for attribute in ("system", "value"):
            with pytest.raises(RecipeError, match="no class or function that"):
                resolve(find_network(f"{name}:{attribute}"))
        with pytest.raises(WorkError, match="cannot be imported"):
            resolve(find_network(f"{name}:missing"))
        for attribute in ("__loader__", "small.__globals__", "_hidden"):
            with pytest.raises(RecipeError, match="there is no network"):
                find_network(f"{name}:{attribute}")


def test_module_that_is_not_on_the_path_says_where_it_belongs():
    with allowed_code(["not_there"]), pytest.raises(WorkError, match="PYTHONPATH"):
        resolve(find_network("not_there:Net"))


def test_names_of_limbeck_come_first_and_misspelt_ones_are_suggested():
    with allowed_code(["mlp"]):
        assert find_network("mlp").object == "synth.networks.plain:MLP"
    with pytest.raises(RecipeError, match="did you mean torchvision"):
        find_network("torchvison:resnet18")


@pytest.mark.parametrize("name", ["../x", "a b", "", "a:b", "__main__"])
def test_what_is_no_module_cannot_be_allowed(name):
    with pytest.raises(RecipeError, match="the name of a module is needed"), allowed_code([name]):
        pass


def test_given_object_is_found_for_as_long_as_it_is_given():
    entry = NetworkEntry("given:Net", "", "", given=dict)
    with given_parts([entry]):
        assert resolve(find_network("given:Net")) is dict
    with pytest.raises(RecipeError, match="was given in Python; give it again"):
        find_network("given:Net")
