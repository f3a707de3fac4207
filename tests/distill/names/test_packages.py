"""Names that installed packages bring, and what is refused of them in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RESOLVE = """
from distill.errors import LimbeckError
from distill import names
try:
    table = getattr(names, {table!r})
    print(names.resolve(table[{name!r}]))
    print(names.options_of(table[{name!r}]))
except LimbeckError as error:
    print(error)
"""


def install(folder, package, group, points, code=""):
    """What an installer leaves: the module of a package, and its metadata."""
    about = folder / f"{package}-2.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.0\n")
    lines = [f"{name} = {place}\n" for name, place in points.items()]
    (about / "entry_points.txt").write_text(f"[limbeck.{group}]\n{''.join(lines)}")
    (folder / f"{package}.py").write_text(code)


def python(folder, *words, paths=(), env=None):
    found = os.pathsep.join(map(str, (*paths, ROOT)))
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": found, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def site(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "site"


def asked(site, table, name):
    """The lines that resolving a name prints."""
    code = RESOLVE.format(table=table, name=name)
    done = python(site.parent / "here", "-c", code, paths=[site])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("group", "kind", "name"),
    [
        ("networks", "network", "convnet3"),
        ("codecs", "codec", "topk"),
        ("data", "data source", "digits"),
    ],
)
def test_a_name_of_limbeck_is_not_taken(site, group, kind, name):
    install(site, "greedy", group, {name: "greedy:Thing"})
    done = python(site.parent / "here", "-m", "distill", "ls", paths=[site])
    assert done.returncode == 1
    assert done.stderr == (
        f"error: the package greedy 2.0 brings a {kind} {name}, which is a name of Limbeck itself; "
        "uninstall it, or ask its authors for another name\n"
    )


def test_a_teacher_is_not_called_like_a_network(site):
    install(site, "greedy", "teachers", {"vgg11": "greedy:Thing"})
    done = python(site.parent / "here", "-m", "distill", "ls", "teachers", paths=[site])
    assert done.returncode == 1
    assert "brings a teacher vgg11, which is a name of Limbeck itself" in done.stderr


def test_two_packages_do_not_share_a_name(site):
    install(site, "one", "networks", {"mine": "one:Thing"})
    install(site, "two", "networks", {"mine": "two:Thing"})
    done = python(site.parent / "here", "-m", "distill", "ls", "networks", paths=[site])
    assert done.returncode == 1
    assert "brings a network mine, which is a name of the package" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_name_that_no_spec_can_write_is_refused(site):
    install(site, "odd", "networks", {"a:b": "odd:Thing"})
    lines = asked(site, "NETWORKS", "convnet3")
    assert lines[0].startswith("the package odd 2.0 brings a network 'a:b', but a name has letters")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named"),
        ("Other = 1", "AttributeError: module 'broken' has no attribute 'Thing'"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_a_line_that_names_the_package(site, code, reason):
    install(site, "broken", "networks", {"mine": "broken:Thing"}, code)
    (line,) = asked(site, "NETWORKS", "mine")
    assert line.startswith(f"mine of the package broken 2.0 cannot be imported ({reason}")
    assert line.endswith("install what it needs, or uninstall it")
    listed = python(site.parent / "here", "-m", "distill", "ls", "networks", paths=[site])
    assert listed.returncode == 0
    assert "mine" in listed.stdout


def test_options_are_the_numbers_and_texts_among_the_defaults(site):
    code = "def make(channels, size, classes, *, a=1, b=0.5, c='x', d=True, e=None): ..."
    install(site, "wide", "networks", {"mine": "wide:make"}, code)
    assert asked(site, "NETWORKS", "mine")[1] == "{'a': 1, 'b': 0.5, 'c': 'x'}"


def test_what_cannot_be_called_has_no_options(site):
    install(site, "number", "networks", {"mine": "number:thing"}, "thing = 3")
    assert "mine of the package number 2.0 cannot be called" in asked(site, "NETWORKS", "mine")[-1]


CODEC = """
class Thing:
    codec_id = "other"
"""


def test_a_codec_of_another_id_is_refused(site):
    install(site, "misnamed", "codecs", {"mine": "misnamed:Thing"}, CODEC)
    code = (
        "from distill.recipes.build import build_codec\n"
        "from distill.recipes.specs import parse_codec\n"
        "from projectors.codecs import find_codec\n"
        "for ask in (lambda: build_codec(parse_codec('mine'), 4), lambda: find_codec('mine')):\n"
        "    try:\n        ask()\n    except Exception as error:\n        print(error)\n"
    )
    done = python(site.parent / "here", "-c", code, paths=[site])
    first, second = done.stdout.splitlines()
    assert "brings a codec mine, whose codec_id is 'other'" in first
    assert "brings a codec mine, whose codec_id is 'other'" in second


def test_nothing_of_the_current_folder_is_read_or_run(tmp_path, site):
    here, mark = tmp_path / "here", tmp_path / "mark"
    trap = f"open({str(mark)!r}, 'w').close()\n"
    install(here, "trap", "networks", {"trapped": "trap:Thing"}, trap)
    install(site, "good", "networks", {"mine": "good:Thing"}, "class Thing: ...")
    # A module of the current folder that is called like that of an installed package.
    (here / "good.py").write_text(trap)
    listed = python(here, "-m", "distill", "ls", "networks", paths=[site])
    assert "trapped" not in listed.stdout
    assert "mine" in listed.stdout
    recipe = '[data]\nsource = "digits"\n[select]\nipc = 1\nmethod = "random"\n'
    (here / "mine.toml").write_text(f'{recipe}[evaluate]\nstudents = ["mine"]\n')
    done = python(here, "-m", "distill", "run", "mine.toml", "--out", "run", paths=[site])
    # The class of the installed package takes no arguments, so it was this one that was asked.
    assert "Thing() takes no arguments" in done.stderr
    assert not mark.exists()
