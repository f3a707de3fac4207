"""The borders between the packages, and what no package may do."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.layering_cases import DOORS, FLOORS

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


def modules(package: str) -> dict[str, ast.Module]:
    """The modules of a package by their dotted names."""
    named = {}
    for path, tree in trees(package):
        parts = Path(path).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = tree
    return named


def imported_modules(tree: ast.AST, known: Iterable[str]) -> Iterator[tuple[ast.stmt, str]]:
    """The modules among `known` that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node, name) for name in inner if name in known)
            if node.module in known and not all(name in known for name in inner):
                yield node, node.module


def upward_imports(trees_by_name: dict[str, ast.Module]) -> list[str]:
    """Imports of distill/ from a room to one above it."""
    found = []
    for name, tree in trees_by_name.items():
        room = name.split(".")[1] if "." in name else "__init__"
        for node, other in imported_modules(tree, trees_by_name):
            target = other.split(".")[1] if "." in other else "__init__"
            if room in DOORS or target == room:
                continue
            if target in DOORS or FLOORS.index(target) < FLOORS.index(room):
                found.append(f"{name}:{node.lineno} imports {other}, which stands above it")
    return found


def circles(trees_by_name: dict[str, ast.Module]) -> list[set[str]]:
    """Modules that need each other to be imported; imports inside functions do not count."""
    needs = {
        name: {
            other
            for statement in tree.body
            if isinstance(statement, ast.Import | ast.ImportFrom | ast.If)
            for _, other in imported_modules(ast.Module([statement], []), trees_by_name)
            if other != name
        }
        for name, tree in trees_by_name.items()
    }
    # What needs nothing that is left is taken away; what then stays is in a circle, or above one.
    while ready := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in ready:
            del needs[name]
    reached = {name: _reachable(name, needs) for name in needs}
    return [{name, *others} for name, others in reached.items() if name in others]


def _reachable(name: str, needs: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = list(needs[name])
    while left:
        other = left.pop()
        if other in needs and other not in seen:
            seen.add(other)
            left += needs[other]
    return seen


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


def test_every_room_of_the_application_has_its_floor():
    rooms = {path.stem for path in (ROOT / "distill").iterdir() if path.suffix in (".py", "")}
    assert rooms - {"__pycache__"} == {*FLOORS, *DOORS}


def test_imports_of_the_application_run_down():
    assert upward_imports(modules("distill")) == []


@pytest.mark.parametrize("package", ALLOWED)
def test_no_modules_need_each_other(package):
    assert circles(modules(package)) == []


def test_planted_imports_are_found():
    planted = {
        "distill.store.files": ast.parse("def f():\n    from distill.run import folder"),
        "distill.run.folder": ast.parse("from distill.store import files"),
        "distill.sets.views": ast.parse("import distill.sets.cost"),
        "distill.sets.cost": ast.parse("if True:\n    from distill.sets.views import x"),
        "distill.sets.dataset": ast.parse("from distill.sets.cost import x"),
    }
    assert upward_imports(planted) == [
        "distill.store.files:2 imports distill.run.folder, which stands above it"
    ]
    assert circles(planted) == [{"distill.sets.views", "distill.sets.cost"}] * 2
