"""README, results and paper quote only what result files hold, and what they name exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distill
from distill.commands.cli import COMMANDS
from distill.names import recipe_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def result_of(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def percent(stats: dict[str, Any]) -> str:
    return f"{100 * stats['mean']:.1f} %"


def gradient_figures() -> list[str]:
    result, ours, theirs = result_of("gradient"), "adjoint, compiled", "mtt-style"
    peaks, seconds = result["peak_bytes"]["20"], result["seconds_one_thread"]["20"]
    ratio = f"{seconds[ours] / seconds[theirs]:.2f} of the time"
    return [ratio, *(f"{peaks[name] / 2**20:,.0f} MiB" for name in (ours, theirs))]


def codec_figures() -> list[str]:
    points = result_of("glyphs-labels")["sweep"]["points"]
    by_codec = {point["codec"]: point for point in points if point["images"] == "set"}
    roots, full = by_codec["seed+roots"], by_codec["full-fp16"]
    assert roots["mean"] >= full["mean"]
    return [f"{roots['ratio']:.0f} times", percent(roots), percent(full)]


def projector_figures() -> list[str]:
    result = result_of("projector-glyphs-1000")
    probe, students = result["projectors"]["probe"], result["students"]["10"]["convnet3:width=32"]
    sizes = (probe["bytes"], probe["external bytes"])
    return [
        *(f"{size / 1e6:.1f} MB" for size in sizes),
        f"{result['stored label bytes']['10'] / 1e6:.0f} MB",
        *(percent(students[name]) for name in ("probe", "stored")),
    ]


def budget_figures() -> list[str]:
    summary, student = result_of("fashion-mnist-30kb-network")["summary"], "convnet3:width=32"
    ((labels, stats),) = summary["students"][student].items()
    coded = summary["controls"]["coded"][student][labels]
    return [f"{summary['bytes']['totals'][labels]:,} bytes", percent(stats), percent(coded)]


def control_figures(name: str, student: str) -> list[str]:
    summary = result_of(name)["summary"]
    found = (summary["students"], summary["controls"]["random"], summary["controls"]["whole"])
    return [percent(group[student]["hard"]) for group in found]


@pytest.mark.parametrize(
    ("start", "figures"),
    [
        ("Fashion-MNIST as ten", control_figures("fashion-mnist-ipc1", "convnet3:width=128")),
        ("- **Exact", gradient_figures()),
        ("- **One budget", budget_figures()),
        ("- **Labels", codec_figures()),
        ("- **Or no", projector_figures()),
        ("- **Honest", control_figures("digits", "convnet3:width=32")),
    ],
)
def test_readme_figures_are_those_of_result_files(start: str, figures: list[str]) -> None:
    paragraph = " ".join(re.split(r"\n(?:\n|- )", README[README.index(start) :])[0].split())
    assert [figure for figure in figures if figure not in paragraph] == []


def test_readme_fits_in_130_lines() -> None:
    assert len(README.splitlines()) <= 130


def test_script_of_15_lines_distils_a_dataset_with_own_network_and_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script of the README as it stands there, with fewer steps."""
    found = re.search(
        r"^## \[In Python\].*?^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE
    )
    assert found
    script = found[1]
    assert len([line for line in script.splitlines() if line]) <= 15
    quick = {
        "base": "digits-exact",
        "data": {"size": 8},
        "experts": {"count": 1, "epochs": 2},
        "match": {"iterations": 2, "inner_steps": 3, "span": 1, "max_start_epoch": 1},
        "relabel": {"epochs": 5},
        "evaluate": {"seeds": 1, "epochs": 2, "whole_epochs": 1},
    }
    monkeypatch.setattr(distill, "distill", partial(distill.distill, recipe=quick))
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "README.md", "exec"), {})
    data = distill.load("own")
    assert data.images.shape == (10, 1, 8, 8)
    assert data.votes is not None
    with np.load("shared/set.npz") as arrays:
        assert len(arrays["images"]) == 10


def test_readme_names_only_recipes_and_files_that_exist() -> None:
    methods = README[README.index("## Methods") : README.index("## Read the code")]
    cells = [line.split("|")[3] for line in methods.splitlines() if line.startswith("|")][2:]
    named = {recipe for cell in cells for recipe in re.findall(r"`([\w-]+)`", cell)}
    assert named
    assert named <= set(recipe_names())
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_result_file_is_named_on_the_results_page() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert [path.name for path in RESULTS.iterdir() if f"/{path.name})" not in page] == []


def test_tables_are_made_from_result_files() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_numbers_of_the_paper_stand_in_tables_that_are_made() -> None:
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    words = re.sub(r"<!-- table ([\w-]+) -->.*?<!-- end \1 -->", "", page, flags=re.DOTALL)
    assert page.count("<!-- table ") > 5
    assert "<!-- table " not in words
    # Left are code, targets of links, names with numbers, years of papers and numbers of lists.
    for other in (r"`[^`]+`", r"\]\([^)]*\)", r"\b(ConvNet|ResNet|CIFAR|float)-?\d+",
                  r"et al\. (19|20)\d\d", r"^\d\. "):  # fmt: skip
        words = re.sub(other, "", words, flags=re.MULTILINE)
    assert [line for line in words.splitlines() if re.search(r"\d", line)] == []


def test_readme_names_only_commands_that_exist() -> None:
    named = set(re.findall(r"^distill (\w+)", README, flags=re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)


def test_readme_scripts_exist_and_are_executable() -> None:
    for name in ("demo", "test", "setup"):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111
