"""Artefacts as small parts with a digest each, so that a difference names what differs.

Left out is what is new in every run (seconds, memory, versions, digests of what holds them) and
the recipe with its defaults, which grows with every new key.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors import safe_open

from distill.store.attributes import DIGESTS
from distill.store.seals import fits, unsealed

Parts = dict[str, str]

LEFT_OUT = "left out"

# A value whose JSON is no longer than this stands for itself.
_SHORT = 24
_DIGITS = 12

# So many arrays of one group are told apart; more have one digest.
_ARRAYS = 8

# Keys of JSON and attributes of HDF5, at any depth.
_VOLATILE = {
    "seconds",
    "peak_memory_bytes",
    "versions",
    "peft_version",
    "key",
    "outputs",
    "recipe",
    "recipe_digest",
}

# Lines of texts and pages that say the same; torch puts the paths of source files into a program.
_VOLATILE_LINES = re.compile(r"exported with|[Rr]ecipe digest|projector\.pt2` \||\*\*all\*\*")
_RECIPE_DETAILS = re.compile(r"<details><summary>Recipe</summary>.*?</details>", re.DOTALL)
_SECTION = re.compile(r'<section id="([\w-]+)"')
_VOLATILE_SECTIONS = ("stages", "recipe", "versions", "costs", "provenance")


def parts_of(path: Path, with_recipe: bool) -> Parts:
    """The parts of a file by name, each a digest or a short value.

    Args:
        path: the file; its suffix says how it is read.
        with_recipe: whether the recipe that it holds counts.
    """
    ignored = _VOLATILE - ({"recipe"} if with_recipe else set())
    read = _READERS.get(path.name) or _READERS.get(path.suffix)
    if read is None:
        return {"bytes": _digest(path.read_bytes())}
    return dict(read(path, ignored))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _spell(value: Any) -> str:
    if value == LEFT_OUT:
        return LEFT_OUT
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= _SHORT else _digest(text.encode())


def _array(value: np.ndarray) -> str:
    return _digest(f"{value.dtype}{value.shape};".encode() + np.ascontiguousarray(value).tobytes())


def _tidy(value: Any, ignored: set[str]) -> Any:
    """The value without what is ignored; texts that hold JSON are opened."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, dict):
        tidied = {k: LEFT_OUT if k in ignored else _tidy(v, ignored) for k, v in value.items()}
        return LEFT_OUT if tidied and set(map(str, tidied.values())) == {LEFT_OUT} else tidied
    if isinstance(value, list):
        return [_tidy(item, ignored) for item in value]
    return value


def _flatten(value: Any, depth: int, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value and depth:
        for key in sorted(value):
            yield from _flatten(value[key], depth - 1, f"{name}.{key}" if name else key)
    else:
        yield name or "all", _spell(value)


def _arrays(digests: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Digests of arrays by name; groups of many as one."""
    groups: dict[str, dict[str, str]] = {}
    for name in sorted(digests):
        groups.setdefault(name.rpartition("/")[0], {})[name] = digests[name]
    for group, members in groups.items():
        if len(members) > _ARRAYS:
            yield f"{group}/* ({len(members)} arrays)", _spell(members)
        else:
            yield from members.items()


def _json(path: Path, ignored: set[str], depth: int = 2) -> Iterator[tuple[str, str]]:
    value = json.loads(path.read_text(encoding="utf-8"))
    # A digest that a file holds of itself counts what is left out here.
    value = unsealed(value) if isinstance(value, dict) and fits(value) else value
    yield from _flatten(_tidy(value, ignored), depth)


def _summary(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    yield from _json(path, ignored, depth=3)


def _evaluation(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    yield from _json(path, ignored, depth=1)


def _manifest(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    value = unsealed(json.loads(path.read_text(encoding="utf-8")))
    # The digests of outputs count the recipe that is stored in them.
    value["stages"] = {name: sorted(entry["outputs"]) for name, entry in value["stages"].items()}
    yield from _flatten(_tidy(value, ignored), 3)


def _rows(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    stages: dict[str, list[Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = _tidy(json.loads(line), ignored)
        stages.setdefault(row.get("stage", "rows"), []).append(row)
    for stage in sorted(stages):
        yield f"{stage}, {len(stages[stage])} rows", _spell(stages[stage])


def _hdf5(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    attributes: dict[str, str] = {}
    arrays: dict[str, str] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key, value in item.attrs.items():
            if key == DIGESTS:
                continue
            plain = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
            tidied = LEFT_OUT if key in ignored else _tidy(plain, ignored)
            depth = 2 if key == "recipe" else 0
            attributes.update(_flatten(tidied, depth, f"{name}@{key}"))
        if isinstance(item, h5py.Dataset):
            arrays[name] = _array(np.asarray(item[()]))

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    yield from sorted(attributes.items())
    yield from _arrays(arrays)


def _safetensors(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    with safe_open(path, "pt") as file:
        yield from _flatten(_tidy(file.metadata() or {}, ignored), 2, "metadata")
        yield from _arrays({name: _tensor(file.get_tensor(name)) for name in file.keys()})  # noqa: SIM118


def _tensor(value: torch.Tensor) -> str:
    flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
    return _digest(f"{value.dtype}{tuple(value.shape)};".encode() + flat.numpy().tobytes())


def _torch(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    content = torch.load(path, weights_only=True)
    for name, value in content.items() if isinstance(content, dict) else [("all", content)]:
        if isinstance(value, torch.Tensor):
            yield name, _tensor(value)
        else:
            yield from _flatten(_tidy(value, ignored), 1, name)


def _numpy(path: Path, ignored: set[str]) -> Iterator[tuple[str, str]]:
    with np.load(path, allow_pickle=False) as file:
        for name in sorted(file.files):
            if file[name].dtype.kind == "U":
                yield from _flatten(_tidy(file[name].tolist(), ignored), 1, name)
            else:
                yield name, _array(file[name])


def _program(path: Path, _: set[str]) -> Iterator[tuple[str, str]]:
    """The weights of an exported program; its graph is spelled by torch."""
    with zipfile.ZipFile(path) as file:
        named = [n for n in file.namelist() if "/weight_" in n or "/tensor_" in n]
        yield from _arrays({name: _digest(file.read(name)) for name in named})


def _text(path: Path, _: set[str]) -> Iterator[tuple[str, str]]:
    text = _RECIPE_DETAILS.sub(LEFT_OUT, path.read_text(encoding="utf-8"))
    yield "text", _digest(_stable(text).encode())


def _page(path: Path, _: set[str]) -> Iterator[tuple[str, str]]:
    """A page by section; what comes before the first is its head."""
    pieces = _SECTION.split(path.read_text(encoding="utf-8"))
    sections = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    for name, text in {"head": pieces[0], **sections}.items():
        volatile = name in _VOLATILE_SECTIONS
        yield name, LEFT_OUT if volatile else _digest(_stable(text).encode())


def _stable(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not _VOLATILE_LINES.search(line))


_READERS: dict[str, Callable[[Path, set[str]], Iterator[tuple[str, str]]]] = {
    "summary.json": _summary,
    "evaluation.json": _evaluation,
    "manifest.json": _manifest,
    ".json": _json,
    ".jsonl": _rows,
    ".h5": _hdf5,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".npz": _numpy,
    ".pt2": _program,
    ".md": _text,
    ".html": _page,
}
