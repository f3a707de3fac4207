"""The borders between the packages, and what no package may do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "synth": {"synth"},
    "projectors": {"projectors"},
    "distill": {"distill", "synth", "projectors"},
}
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LIBRARIES = ("synth", "projectors")


def trees(package: str) -> Iterator[tuple[str, ast.Module]]:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, f"{package} has no modules"
    for path in paths:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def called_name(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import, wherever it stands, by statement or by call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value.split(".")[0]


def imports_of(package: str, wanted: set[str]) -> list[str]:
    return [
        f"{path}:{line} imports {name}"
        for path, tree in trees(package)
        for line, name in imported(tree)
        if name in wanted
    ]


def calls_of(package: str, name: str) -> list[str]:
    """Where `package` calls the builtin `name`."""
    return [
        f"{path}:{node.lineno}"
        for path, tree in trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_it_may(package):
    assert imports_of(package, set(ALLOWED) - ALLOWED[package]) == []


@pytest.mark.parametrize("package", ALLOWED)
def test_package_does_not_pickle(package):
    assert imports_of(package, PICKLERS) == []


@pytest.mark.parametrize("package", LIBRARIES)
def test_library_prints_nothing_and_ends_no_process(package):
    for name in ("print", "exit", "quit"):
        assert calls_of(package, name) == []
    assert imports_of(package, {"click", "logging"}) == []


@pytest.mark.parametrize("package", ALLOWED)
def test_package_names_what_it_catches(package):
    bare = [
        f"{path}:{node.lineno}"
        for path, tree in trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert bare == []


@pytest.mark.parametrize("package", ALLOWED)
def test_package_never_loads_objects(package):
    forbidden = {("allow_pickle", True), ("weights_only", False)}
    found = [
        f"{path}:{node.value.lineno} {node.arg}"
        for path, tree in trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword)
        and isinstance(node.value, ast.Constant)
        and (node.arg, node.value.value) in forbidden
    ]
    assert found == []


def test_imports_are_found_inside_functions_and_calls():
    source = (
        "def f():\n    import distill.recipes.build\n    from projectors import lora\n"
        "    importlib.import_module('synth.losses')\n    from . import near\n"
    )
    assert list(imported(ast.parse(source))) == [(2, "distill"), (3, "projectors"), (4, "synth")]


@pytest.mark.parametrize("package", LIBRARIES)
def test_library_is_imported_without_its_neighbours(package):
    others = sorted(set(ALLOWED) - {package})
    code = f"import sys, {package}; print([name for name in {others} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
