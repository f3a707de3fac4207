"""Runs golden cases in a folder, and says what their artefacts are."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shlex
import shutil
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distill.__main__ import run
from tests.golden.cases import CASES
from tests.golden.parts import Parts, parts_of
from tests.golden.recipes import RECIPES

DIGESTS = Path(__file__).with_name("digests.json")
_FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "exchange"

# What is put into a case's folder before it begins, locks and checkpoints are no artefacts.
_GIVEN = ("fixtures", *RECIPES)
_NO_ARTEFACT = {".lock", ".manifest.json", "checkpoints", "jobs.jsonl"}

# Results are the same to the last bit only with the same kernels.
_LIBRARIES = ("torch", "torchvision", "numpy", "h5py", "scikit-learn", "peft", "open-clip-torch")
_CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")


def machine() -> dict[str, Any]:
    """What the bits of a result depend on besides the program."""
    facts = Path("/proc/cpuinfo")
    words = set(facts.read_text(encoding="utf-8").split()) if facts.exists() else set()
    vendor = sorted(words & {"AuthenticAMD", "GenuineIntel", "ARM"})
    return {
        "machine": platform.machine(),
        "cpu": " ".join([*vendor, *(flag for flag in _CPU_FLAGS if flag in words)]),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in _LIBRARIES},
    }


class Workshop:
    """Folders of cases, each made once, with the cases that it goes on from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[str] = set()

    def digests(self, name: str) -> dict[str, Parts]:
        """The parts of every artefact of a case, by its path in the case's folder."""
        folder, case = self._make(name), CASES[name]
        before = {} if case.base is None else _contents(self._folder / case.base)
        known = {content: path for path, content in before.items()}
        return {
            path: {"copy": f"of {known[content]}"}
            if content in known
            else parts_of(folder / path, case.recipe)
            for path, content in _contents(folder).items()
            if before.get(path) != content
        }

    def _make(self, name: str) -> Path:
        """The folder of a case after its commands."""
        folder, case = self._folder / name, CASES[name]
        if name in self._made:
            return folder
        if case.base is not None:
            shutil.copytree(self._make(case.base), folder)
        else:
            folder.mkdir(parents=True)
            shutil.copytree(_FIXTURES, folder / "fixtures")
            for file, text in RECIPES.items():
                (folder / file).write_text(text, encoding="utf-8")
        with _one_thread(), contextlib.chdir(folder):
            for command in case.commands:
                last = command is case.commands[-1]
                _type(command, case.code if last else 0)
        self._made.add(name)
        return folder


def _type(line: str, expected: int) -> None:
    command, _, kept = line.partition(" > ")
    out, err = io.StringIO(), io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("ignore")
        code = run(shlex.split(command))
    if code != expected:
        raise AssertionError(
            f"distill {command}: exit code {code}, not {expected}: {err.getvalue()}"
        )
    if kept:
        Path(kept).write_text(out.getvalue(), encoding="utf-8")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads may differ in their last bits."""
    threads, named = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("OMP_NUM_THREADS")
        if named is not None:
            os.environ["OMP_NUM_THREADS"] = named


def _contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every artefact below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and place.parts[0] not in _GIVEN and not _NO_ARTEFACT & {*place.parts}:
            found[place.as_posix()] = path.read_bytes()
    return found
