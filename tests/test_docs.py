"""Every code block of the documentation runs, page by page and in order, as a reader would."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
from pydantic.fields import FieldInfo

from distill.__main__ import run
from distill.commands.cli import COMMANDS, cli
from distill.errors import LimbeckError
from distill.names import recipe_names
from distill.recipes.loading import load_recipe
from distill.recipes.schema import TABLES, Recipe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
TUTORIAL = "tutorial.md"
CONTINUES = "goes on from the run of the [tutorial]"
NOT_RUN = "Not run by the tests: "
# What tests/test_extensions.py writes into a copy of the source, or into a package.
ADDED = re.compile(r"(New file|Entry in [A-Z_]+ of|Line after \w+ in|Import in) [\w./-]+")
LANGUAGES = {"python", "bash", "toml", "text"}
_ROW = re.compile(r"^\| `(\w+)` \| *(.*?) *\| .*\|$", re.MULTILINE)
_FENCE = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title and its text."""

    language: str
    title: str
    text: str

    @property
    def runs(self) -> bool:
        return not self.title.startswith(NOT_RUN) and not ADDED.fullmatch(self.title)


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = [Block(*match) for match in _FENCE.findall(text)]
    assert text.count("\n```") + text.startswith("```") == 2 * len(found), "a fence is not closed"
    return found


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands of a bash block, one a line; a backslash joins lines."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def check_command(words: list[str]) -> None:
    """Parse a `distill` command without running it: names, options, recipe and overrides."""
    command, name, rest = cli, "distill", words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        context = click.Context(command, info_name=name)
        name, rest = rest[0], rest[1:]
        found = command.get_command(context, name)
        assert found is not None, f"no command {name}: {shlex.join(words)}"
        command = found
    if "--help" in rest or isinstance(command, click.Group):
        return
    values = command.make_context(name, list(rest)).params
    recipe = values.get("recipe")
    if recipe is None:
        return
    assert Path(recipe).is_file() or recipe in recipe_names(), f"no recipe {recipe}"
    load_recipe(recipe, list(values.get("overrides", ())))


def run_bash(text: str) -> None:
    for words in commands_of(text):
        if words[0] != "distill":
            subprocess.run(words, check=True, timeout=60)
            continue
        check_command(words)
        assert run(words[1:]) == 0, shlex.join(words)


def run_page(page: str) -> None:
    # Dataclasses look their module up while a block defines one.
    sys.modules["page"] = type(sys)("page")
    names = sys.modules["page"].__dict__
    for block in blocks_of(page):
        if block.language == "python":
            code = compile(block.text, f"docs/{page}", "exec")
            if block.runs:
                exec(code, names)
        elif block.language == "bash" and block.runs:
            run_bash(block.text)
        elif block.language == "bash":
            for words in commands_of(block.text):
                if words[0] == "distill":
                    check_command(words)
        elif block.language == "toml" and block.runs:
            Path(block.title).write_text(block.text, encoding="utf-8")
            load_recipe(block.title)


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the tutorial was followed, for the pages that go on from it."""
    folder = tmp_path_factory.mktemp("tutorial")
    before, threads = Path.cwd(), torch.get_num_threads()
    torch.set_num_threads(1)
    os.chdir(folder)
    try:
        run_page(TUTORIAL)
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    return folder


def test_tutorial_leads_to_a_set_that_teaches_and_a_report(tutorial: Path) -> None:
    report = (tutorial / "runs" / "first" / "report.html").read_text(encoding="utf-8")
    assert "Bytes of labels against accuracy" in report
    assert (tutorial / "both.html").is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if page != TUTORIAL])
def test_blocks_of_page_run_in_order(
    page: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if CONTINUES in " ".join((DOCS / page).read_text(encoding="utf-8").split()):
        shutil.copytree(request.getfixturevalue("tutorial"), tmp_path, dirs_exist_ok=True)
    from projectors import codecs

    # A page may add a codec of its own; it must not stay.
    monkeypatch.setattr(codecs.registry, "CODECS", dict(codecs.CODECS))
    monkeypatch.setattr(codecs, "CODECS", codecs.registry.CODECS)
    monkeypatch.chdir(tmp_path)
    run_page(page)
    if page == "how-to/own-data.md":
        made = {"set.h5", "projector", "report.html", "summary.json"}
        assert made <= {path.name for path in (tmp_path / "runs" / "mine").iterdir()}
        assert (tmp_path / "exported" / "projector" / "adapter_model.safetensors").is_file()
        assert len(list((tmp_path / "exported" / "pictures").rglob("*.png"))) == 6


@pytest.mark.parametrize("page", PAGES)
def test_blocks_say_their_language_and_why_they_do_not_run(page: str) -> None:
    for block in blocks_of(page):
        assert block.language in LANGUAGES, block
        if block.language == "toml":
            assert block.title.endswith(".toml"), "a recipe needs its file's name as title"
        elif block.title and not ADDED.fullmatch(block.title):
            assert block.title.startswith(NOT_RUN), block.title
            assert len(block.title) > len(NOT_RUN) + 6, "say why"


def test_a_wrong_option_recipe_or_key_would_be_noticed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in ("run digits", "run digit --out a", "run digits --out a --set match.ipk=1",
                  "evaluate a --studnets b", "fly", "export sets a"):  # fmt: skip
        with pytest.raises((click.ClickException, AssertionError, LimbeckError)):
            check_command(["distill", *wrong.split()])


def test_methods_end_with_the_files_to_read() -> None:
    for page in (DOCS / "methods").glob("*.md"):
        last = page.read_text(encoding="utf-8").strip().split("\n\n")[-1]
        assert last.startswith("In the code: read "), page.name
        files = re.findall(r"`([^`]+)`", last)
        assert 2 <= len(files) <= 4, page.name
        assert [file for file in files if not (ROOT / file).is_file()] == []


def test_every_command_and_recipe_table_is_documented() -> None:
    commands = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if not re.search(rf"`{name}\b", commands)]
    assert missing == []


def test_every_key_of_a_recipe_is_documented_with_its_default() -> None:
    text = (DOCS / "reference" / "recipes.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    sections = {
        title.strip("[]"): dict(_ROW.findall(body))
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    loose = {name: field for name, field in Recipe.model_fields.items() if name not in TABLES}
    fields = {"Top level": loose, **{name: table.model_fields for name, table in TABLES.items()}}
    wanted = {
        title: {key: _shown(field) for key, field in keys.items()} for title, keys in fields.items()
    }
    assert sections == wanted


def _shown(field: FieldInfo) -> str:
    """A default as TOML writes it; a dash for none, nothing where a key must be set."""
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if field.is_required() or value == "":
        return ""
    if value is None:
        return "\N{EN DASH}"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
    reason="mkdocs-material is not installed (extra docs)",
)
def test_pages_build_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, textwrap.shorten(done.stderr, 2000)
    page = (tmp_path / "site" / "reference" / "synth" / "index.html").read_text(encoding="utf-8")
    assert 'id="synth.matching_gradient"' in page


def test_methods_for_own_data_are_compared_by_committed_results() -> None:
    """Every gain and accuracy of the table of methods stands in the tables of results."""
    page = (DOCS / "how-to/own-data.md").read_text(encoding="utf-8")
    rows = page.partition("## 3. Choose a method")[2].partition("\n## ")[0]
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    tables = "\n".join(line for line in results.splitlines() if line.startswith("|"))
    gains = re.findall(r"[+-]\d+\.\d", rows)
    assert len(gains) > 6
    assert [gain for gain in gains if f"| {gain} |" not in tables] == []
    shares = re.findall(r"(\d+\.\d) %", rows)
    assert shares
    assert [share for share in shares if f"| {share} ±" not in tables] == []
