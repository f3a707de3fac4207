"""The recipes of the page "Extend Limbeck", in a copy of the source and in a package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOW_TO = ROOT / "docs" / "how-to"
PAGE = (HOW_TO / "extend.md").read_text(encoding="utf-8")
PACKAGES = ("synth", "projectors", "distill")
FENCE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SIGNS = "projectors/codecs/signs.py"

# The parts of a recipe that a copy of the source, and a package, must both run.
SHADES = """
seed = 0

[data]
source = "shades:4"
zca = false

[committee]
members = [{members}]
epochs = 4
batch_size = 20
augmentation = "none"

[select]
ipc = 2
method = "{method}"

[relabel]
epochs = 3
batch_size = 4
augmentation = "none"

[encode]
codec = "signs"

[evaluate]
students = ["pooled:side=2"]
seeds = 1
epochs = 3
whole_seeds = 0
"""
MATCHED = """
[data]
source = "digits"
subset = 100

[experts]
network = "convnet1:width=4"
count = 1
epochs = 2

[match]
ipc = 1
iterations = 2
inner_steps = 2
max_start_epoch = 0
gradient = "normalised"
snapshots = "sqrt"
"""


def sections() -> dict[str, dict[str, str]]:
    """The blocks of every section of the page by their titles; the codec's file is another's."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    found = {
        title: dict(FENCE.findall(text))
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    page = (HOW_TO / "own-codec.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found["A label codec"][f"New file {SIGNS}"] = next(b for b in blocks if "class Signs" in b)
    return found


BLOCKS = sections()
ADDITIONS = [title for title in BLOCKS if title != "In a package of your own"]


def target(title: str) -> str:
    """The file of the source that a block is written into."""
    if title.endswith(".toml"):
        return f"distill/recipes/{title}"
    return title.rpartition(" ")[2]


def add(copy: Path, title: str, text: str) -> None:
    """Write a block into a copy of the source: a new file, or the last entry of a table."""
    path = copy / target(title)
    if not title.startswith("Entry in "):
        assert not path.exists()
        path.write_text(text, encoding="utf-8")
        return
    table = title.split()[2]
    source = path.read_text(encoding="utf-8")
    start = re.search(
        rf"^{table}: Registry\[\w+\] = Registry\(\n    \"[\w ]+\",\n    \(\n", source, re.M
    )
    assert start, f"{path} has no table {table}"
    end = source.index("\n    ),\n", start.end()) + 1
    path.write_text(f"{source[:end]}{text.rstrip()},\n{source[end:]}", encoding="utf-8")


def distill(folder: Path, packages: list[Path], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` with these folders on the path of imports."""
    paths = os.pathsep.join(map(str, packages))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "distill", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with everything that the page adds to it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in PACKAGES:
        skipped = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for section in ADDITIONS:
        for title, text in BLOCKS[section].items():
            add(folder, title, text)
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the page, installed by pip into a folder of its own."""
    blocks = BLOCKS["In a package of your own"]
    about = tomllib.loads(blocks["New file pyproject.toml"])["project"]
    added = {target(t): text for s in ADDITIONS for t, text in BLOCKS[s].items() if "New" in t}
    points, files = [], {"shades/__init__.py": ""}
    for group, names in about["entry-points"].items():
        points += [f"[{group}]", *(f"{name} = {place}" for name, place in names.items())]
        for place in names.values():
            path = f"{place.partition(':')[0].replace('.', '/')}.py"
            files[path] = blocks.get(f"New file {path}") or next(
                text for other, text in added.items() if Path(other).name == Path(path).name
            )
    folder = tmp_path_factory.mktemp("package")
    wheel = write_wheel(folder, about, files, points)
    words = ["--no-deps", "--no-index", "--quiet", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True, timeout=120)
    return folder / "site"


def write_wheel(
    folder: Path, about: dict[str, str], files: dict[str, str], points: list[str]
) -> Path:
    """A wheel of these modules and entry points, as a build would make it."""
    name, version = about["name"].replace("-", "_"), about["version"]
    place = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{place}/METADATA": (
            f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {version}\n"
            f"Summary: {about['description']}\n"
        ),
        f"{place}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{place}/entry_points.txt": "\n".join(points) + "\n",
    }
    files[f"{place}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{place}/RECORD"))
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
    return path


def test_the_page_counts_the_files_that_each_part_takes():
    rows = re.findall(r"^\| \[(?:a|an) ([^\]]+)\]\(#([\w-]+)\) \| (\d)", PAGE, re.MULTILINE)
    counted = {anchor: int(count) for _, anchor, count in rows}
    found = {
        section.lower().replace(" ", "-"): len({target(title) for title in BLOCKS[section]})
        for section in ADDITIONS
    }
    assert found == counted
    assert max(found.values()) <= 2


def test_parts_added_to_the_source_make_a_set(copy, tmp_path):
    recipe = SHADES.format(members='"pooled", "pooled:side=8"', method="outermost")
    (tmp_path / "shades.toml").write_text(recipe)
    done = distill(tmp_path, [copy], "run", "shades.toml", "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    encoded = json.loads((tmp_path / "run" / "encoding.json").read_text())
    assert encoded["codec"] == "signs"
    listed = json.loads(distill(tmp_path, [copy], "ls", "--json").stdout)
    names = {kind: [row["name"] for row in rows] for kind, rows in listed.items()}
    assert "digits-outermost" in names["recipes"]
    assert "select.method=outermost" in names["strategies"]
    for kind, name in (("networks", "pooled"), ("codecs", "signs"), ("data", "shades")):
        assert name in names[kind]
    change = ("--set", "data.source=shades")
    wrong = distill(tmp_path, [copy], "run", "shades.toml", "--out", "b", *change)
    assert wrong.returncode == 2
    assert "write it as shades:4" in wrong.stderr


def test_a_gradient_added_to_the_source_matches(copy, tmp_path):
    (tmp_path / "matched.toml").write_text(MATCHED)
    done = distill(tmp_path, [copy], "run", "matched.toml", "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "set.h5").is_file()
    planned = distill(tmp_path, [copy], "plan", "matched.toml", "--json")
    assert planned.returncode == 0, planned.stderr
    assert "normalised" in planned.stdout


def test_parts_of_an_installed_package_make_the_same_kind_of_set(package, tmp_path):
    recipe = SHADES.format(members='"light-meter", "pooled"', method="herding")
    (tmp_path / "shades.toml").write_text(recipe)
    paths = [package, ROOT]
    done = distill(tmp_path, paths, "run", "shades.toml", "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    encoded = json.loads((tmp_path / "run" / "encoding.json").read_text())
    assert encoded["codec"] == "signs"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    trained = [row for row in rows if row["stage"] == "committee"]
    measured = [row for row in trained if row["member"] == "light-meter"]
    assert [row["epoch"] for row in measured] == [1]
    assert measured[0]["accuracy"] == 1
    assert len([row for row in trained if row["member"] == "pooled"]) == 4
    again = distill(tmp_path, paths, "run", "shades.toml", "--out", "run", "--quiet")
    assert again.returncode == 0, again.stderr
    planned = distill(tmp_path, paths, "plan", "shades.toml")
    assert planned.returncode == 0, planned.stderr
    change = ("--set", "evaluate.students=light-meter")
    wrong = distill(tmp_path, paths, "run", "shades.toml", "--out", "b", *change)
    assert wrong.returncode == 2
    assert "light-meter is a teacher with weights of its own" in wrong.stderr


def test_parts_of_an_installed_package_are_listed_and_not_imported(package, tmp_path):
    code = (
        "import sys; from distill.__main__ import run; run(['ls', '--json']);"
        "sys.exit(sorted({'torch', 'shades'} & set(sys.modules)) or None)"
    )
    paths = os.pathsep.join(map(str, (package, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    for kind, name in (
        ("networks", "pooled"),
        ("codecs", "signs"),
        ("data", "shades"),
        ("teachers", "light-meter"),
    ):
        row = next(row for row in listed[kind] if row["name"] == name)
        assert row["source"] == "limbeck-shades 1.0"
        assert row["summary"] == "shades of gray, and who can tell them apart"
