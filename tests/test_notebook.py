"""The notebook of the documentation runs from its first cell to its last, and stores no outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

import distill

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def test_cells_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells("code")):
        exec(compile("".join(cell["source"]), f"notebook cell {number}", "exec"), names)
    names["plt"].close("all")
    assert len(distill.load(tmp_path / "digits.h5")) == 10
    assert names["learned"]["mean"] > names["random"]["mean"]


def test_nothing_of_a_run_is_stored() -> None:
    for cell in cells("code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_links_lead_to_pages() -> None:
    text = "".join("".join(cell["source"]) for cell in cells("markdown"))
    assert "(how-to/python.md)" in text
    assert (NOTEBOOK.parent / "how-to" / "python.md").is_file()
