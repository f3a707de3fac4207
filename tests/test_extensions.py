"""The recipes of the page "Extend Limbeck", in a copy of the source and in a package."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import h5py
import pytest
import torch

from distill.data import fit_preprocess
from distill.recipes.build import build_data
from distill.recipes.tables.data import DataTable

ROOT = Path(__file__).resolve().parent.parent
HOW_TO = ROOT / "docs" / "how-to"
PAGE = (HOW_TO / "extend.md").read_text(encoding="utf-8")
LAYOUT = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
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
image_rms = 2.0
"""
AVERAGED = """
[data]
source = "digits"
subset = 200
zca = false

[average]
ipc = 2

[evaluate]
students = ["convnet1:width=4"]
labels = "hard"
seeds = 1
epochs = 2
whole_seeds = 0
"""
# Files beyond those that a part needs: in the tables, the count after "and".
OPTIONAL = {"distill/recipes/tables/match.py", "distill/recipes/digits-average.toml"}


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
    path = title.rpartition(" ")[2]
    return path if "/" in path else f"distill/recipes/{path}"


def add(copy: Path, title: str, text: str) -> None:
    """Write a block into a copy of the source: a new file, or lines of one that is there."""
    path = copy / target(title)
    if title == path.name or title.startswith("New file "):
        assert not path.exists()
        path.write_text(text, encoding="utf-8")
        return
    source = path.read_text(encoding="utf-8")
    place, indent = place_of(title, text, ast.parse(source))
    added = f"{text.rstrip()},\n" if title.startswith("Entry in ") else text
    lines = source.splitlines(keepends=True)
    lines.insert(place, textwrap.indent(added, " " * indent))
    path.write_text("".join(lines), encoding="utf-8")


def place_of(title: str, text: str, tree: ast.Module) -> tuple[int, int]:
    """After how many lines of a module a block is written, and its indentation in spaces."""
    what, name = title.split()[0], title.split()[2]
    if what == "Import":
        (new,) = ast.parse(text).body
        assert isinstance(new, ast.ImportFrom)
        # Imports are sorted by module.
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        package = [node for node in imports if f"{node.module}".startswith("distill.")]
        following = next(node for node in package if f"{node.module}" > f"{new.module}")
        return following.lineno - 1, 0
    (statement,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in names_of(node)
    ]
    if what == "Line":
        assert statement.end_lineno is not None
        return statement.end_lineno, statement.col_offset
    table = statement.value
    inside = table.args if isinstance(table, ast.Call) else [table]
    (entries,) = [node for node in inside if isinstance(node, ast.Tuple)]
    last = entries.elts[-1]
    assert last.end_lineno is not None
    return last.end_lineno, last.col_offset


def names_of(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    """The names that a statement gives values."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


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


def rows_of(page: str) -> dict[str, list[str]]:
    """The counts of each part in the table "to add | files" of a page; parts may share a row."""
    table = page.partition("| to add | files |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (\d.*?) \|$", table, re.MULTILINE)
    return {
        re.sub(r"[\[\]]|\(#[\w-]+\)", "", part): re.findall(r"\d", cell.partition(":")[0])
        for parts, cell in rows
        for part in re.split(r", (?:or )?(?=an? |another |any )", parts)
    }


def test_the_page_counts_the_files_that_each_part_takes():
    rows = re.findall(r"^\|.*\(#([\w-]+)\).* \| (\d.*) \|$", PAGE, re.MULTILINE)
    counted = {anchor: [int(number) for number in re.findall(r"\d", cell)] for anchor, cell in rows}
    assert counted.pop("in-a-package-of-your-own") == [0]
    found = {}
    for section in ADDITIONS:
        files = {target(title) for title in BLOCKS[section]}
        found[section.lower().replace(" ", "-")] = sorted({len(files - OPTIONAL), len(files)})
    assert found == counted
    assert found.pop("another-way-to-make-a-set")[0] <= 5
    assert max(needed[0] for needed in found.values()) <= 2


def test_both_pages_count_alike():
    assert len(rows_of(PAGE)) == 9
    assert rows_of(LAYOUT) == rows_of(PAGE)


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


def test_a_stage_added_to_the_source_makes_a_set_that_is_planned_and_evaluated(copy, tmp_path):
    (tmp_path / "averaged.toml").write_text(AVERAGED)
    words = ("averaged.toml", "--out", "run", "--quiet")
    made = distill(tmp_path, [copy], "average", *words)
    assert made.returncode == 0, made.stderr
    with h5py.File(tmp_path / "run" / "set.h5") as file:
        images = torch.from_numpy(file["images"][:])
    train = build_data(DataTable(source="digits", subset=200, zca=False)).train
    real = fit_preprocess(train.images)(train.images)
    for label, pair in enumerate(images.view(10, 2, 1, 8, 8)):
        members = real[train.labels == label]
        # Of the two parts, the first has one image more where the class has an odd number.
        share = (len(members) + 1) // 2 / len(members)
        mean = share * pair[0] + (1 - share) * pair[1]
        torch.testing.assert_close(mean, members.mean(dim=0), rtol=0, atol=1e-5)
        assert not torch.allclose(pair[0], pair[1], atol=1e-2)
    done = distill(tmp_path, [copy], "run", *words)
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]
    assert list(stages) == ["average", "evaluate"]
    assert "average" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    planned = distill(tmp_path, [copy], "plan", "averaged.toml", "--json")
    assert planned.returncode == 0, planned.stderr
    (part,) = json.loads(planned.stdout)["time"]["stages"]["average"]["parts"]
    assert (part["times"], part["what"], part["batch"]) == (20, "mean of real images", 10)


def test_a_stage_added_to_the_source_has_a_command_whose_example_is_listed(copy, tmp_path):
    shown = distill(tmp_path, [copy], "average", "--help").stdout
    assert "distill average digits-average --out runs/digits-average" in shown
    listed = json.loads(distill(tmp_path, [copy], "ls", "recipes", "--json").stdout)
    assert "digits-average" in [row["name"] for row in listed["recipes"]]
    planned = distill(tmp_path, [copy], "plan", "digits-average", "--json")
    assert planned.returncode == 0, planned.stderr


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
