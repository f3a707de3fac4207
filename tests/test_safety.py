"""Nothing runs code from a file, reaches the network unasked, or installs what is not pinned."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("synth", "projectors", "distill", "scripts", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
# Modules that run what a file says, and calls that do.
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "imp"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp"}


def name_of(node):
    """`a.b.c` of a call's function, or ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def constant(call, keyword):
    """The constant that a call gives to a keyword, or None."""
    for given in call.keywords:
        if given.arg == keyword and isinstance(given.value, ast.Constant):
            return given.value.value
    return None


def faults_of(tree):
    """What a parsed file does that could run code from data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from import_faults([alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from import_faults([node.module])
        elif isinstance(node, ast.Call):
            yield from call_faults(node)


def import_faults(names):
    for name in names:
        if name.partition(".")[0] in MODULES:
            yield f"imports {name}"


def call_faults(call):
    name = name_of(call.func)
    if name in CALLS:
        yield f"calls {name}"
    if name == "torch.load" and constant(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load") and constant(call, "allow_pickle") is not False:
        yield "numpy.load without allow_pickle=False"
    if any(constant(call, keyword) is True for keyword in ("allow_pickle", "shell")):
        yield "allow_pickle=True or shell=True"
    escaped = any(given.arg == "autoescape" for given in call.keywords)
    if name in ("jinja2.Environment", "Environment") and not escaped:
        yield "a jinja2 environment without autoescape"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_runs_no_code_from_data(path):
    assert not list(faults_of(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.savez(path, allow_pickle=True)",
        "jinja2.Environment()",
        "subprocess.run(line, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(text):
    assert len(list(faults_of(ast.parse(text)))) >= 1


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(extras):
    """Names of all that is installed for the package with these extras, here."""
    seen, waiting = set(), [("limbeck", frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        try:
            needs = importlib.metadata.distribution(name).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add((name, wanted))
        for need in map(Requirement, needs):
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in {*wanted, ""}
            ):
                waiting.append((canonical(need.name), frozenset(need.extras)))
    return {name for name, _ in seen} - {"limbeck"}


def test_everything_that_setup_installs_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", pin) for pin in pins)
    names = [canonical(pin.partition("==")[0]) for pin in pins]
    assert len(set(names)) == len(names)
    assert sorted(closure({"dev"}) - set(names)) == []


def test_setup_installs_by_the_lock_alone():
    text = (ROOT / "scripts" / "setup").read_text()
    installs = [part for part in text.split(".venv/bin/python") if "pip install" in part]
    assert installs
    assert all("--constraint constraints.txt" in part for part in installs)


BLOCKED = """
import socket, sys
def refuse(*rest, **more):
    raise AssertionError(f"the network was asked for: {rest}")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from distill.__main__ import run
codes = [run(words.split("|")) for words in sys.argv[1:]]
assert not any(codes), codes
"""
RECIPE = """
[data]
source = "digits"
size = 8
subset = 100
[experts]
network = "convnet1:width=4"
count = 1
epochs = 1
[match]
ipc = 1
iterations = 1
inner_steps = 2
span = 1
max_start_epoch = 0
[evaluate]
students = ["convnet1:width=4"]
seeds = 1
epochs = 1
whole_epochs = 1
"""


def test_no_command_asks_for_the_network(tmp_path):
    recipe, run = tmp_path / "tiny.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    words = (
        ("ls",),
        ("plan", str(recipe)),
        ("run", str(recipe), "--out", str(run), "--quiet"),
        ("show", str(run)),
        ("verify", str(run)),
        ("export", "set", str(run), "--format", "imagefolder", "--out", str(tmp_path / "out")),
    )
    lines = ["|".join(line) for line in words]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *lines], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_block_would_be_noticed():
    text = BLOCKED.partition("from distill")[0] + "socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the network was asked for" in done.stderr
