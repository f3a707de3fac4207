"""What a user of Python may rely on."""

import inspect
import re
from pathlib import Path

import distill
import projectors

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def test_public_names_are_few_typed_and_documented():
    assert distill.__all__ == ["compress", "distill", "evaluate", "load", "relabel"]
    for name in distill.__all__:
        function = getattr(distill, name)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
            assert f"{parameter.name}: " in function.__doc__, (name, parameter.name)


def test_signature_of_the_one_call_is_frozen():
    parameters = inspect.signature(distill.distill).parameters
    assert list(parameters) == [
        "data", "recipe", "network", "teachers", "ipc", "budget_bytes", "out", "progress",
    ]  # fmt: skip
    assert list(inspect.signature(distill.evaluate).parameters) == [
        "set", "network", "teachers", "data", "device", "quiet", "settings",
    ]  # fmt: skip
    assert list(inspect.signature(distill.relabel).parameters) == [
        "set", "teachers", "data", "device", "quiet", "settings",
    ]  # fmt: skip
    assert list(inspect.signature(projectors.fit).parameters) == [
        "images", "labels", "teacher", "classes", "tower", "settings", "view", "progress",
    ]  # fmt: skip


def test_every_public_name_has_an_example_that_a_test_runs():
    """`tests/test_docs.py` runs the blocks of this page, except those with a title."""
    page = (DOCS / "how-to" / "python.md").read_text(encoding="utf-8")
    run = "".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    names = [*(f"distill.{name}(" for name in distill.__all__), "projectors.fit("]
    assert [name for name in names if name not in run] == []
