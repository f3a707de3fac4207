"""The README quotes only what result files hold, and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from distill.commands.cli import COMMANDS

ROOT = Path(__file__).parent.parent


def test_readme_tables_are_made_from_result_files() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_readme_names_only_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^distill (\w+)", text, flags=re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)


def test_readme_scripts_exist_and_are_executable() -> None:
    for name in ("demo", "test", "setup"):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111
