"""The page on the layout of the code is true."""

import re
from pathlib import Path

from tests.layering_cases import FLOORS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
PACKAGES = ("synth", "projectors", "distill")


def section(title):
    return re.search(rf"^## {title}.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL).group()


def test_every_folder_stands_in_the_section_of_its_package():
    for package in PACKAGES:
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        inner = {path.parent.name for path in (ROOT / package).glob("*/*/__init__.py")}
        text = section(package)
        missing = [name for name in folders | inner - {"tables"} if f"`{name}/`" not in text]
        assert missing == []


def test_rooms_are_listed_from_the_top_down():
    first_column = [row.split("|")[1] for row in section("distill").splitlines() if "|" in row]
    listed = re.findall(r"`(\w+)(?:/|\.py)`", "".join(first_column))
    assert listed == list(FLOORS)


def test_files_that_are_named_exist():
    named = re.findall(r"`((?:synth|projectors|distill|tests)/[\w/.]+)`", PAGE)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
