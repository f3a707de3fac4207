"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

from projectors import codecs
from projectors.codecs import CODECS

MODULES = [module.name for module in pkgutil.iter_modules(codecs.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_show(name):
    module = importlib.import_module(f"projectors.codecs.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_codec_shows_an_example(codec):
    assert ">>>" in codec.__doc__
