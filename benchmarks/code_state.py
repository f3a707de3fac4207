"""The commit that a figure comes from, and whether the code is still what it was there."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("synth", "projectors", "distill")  # what a figure depends on


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def commit() -> str:
    """The commit that the working tree is at, with a plus sign if the code differs from it."""
    found = _git("rev-parse", "HEAD")
    found.check_returncode()
    changed = _git("status", "--porcelain", "--", *PACKAGES).stdout.strip()
    return found.stdout.strip() + ("+" if changed else "")


def same_code(other: str) -> bool:
    """Whether the packages are what they were at a commit; not so where that had a plus sign."""
    return (
        not other.endswith("+") and not _git("diff", "--quiet", other, "--", *PACKAGES).returncode
    )


def is_after(other: str, earlier: str) -> bool:
    """Whether a commit without a plus sign is another one, or comes after it."""
    return not _git("merge-base", "--is-ancestor", earlier, other).returncode
