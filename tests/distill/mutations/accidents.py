"""What may happen to a file: by accident, so that no digest fits any more, or by intent."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import h5py
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from distill.store.packed import INDEX_SEAL
from distill.store.seals import SEAL, sealed
from tests.distill.cases import edited
from tests.distill.fuzz_cases import changed, damage
from tests.distill.store.test_fuzz import meddle

HOSTILE = (
    "=a\n\n## Measured accuracy\n\n99.9 %\n```\n<script>alert(1)</script>\n---\n| x |",
    "\x1b]0;owned\x07\x9b31m\u202egnp",
    "../../../../etc/passwd",
    "{{ 7 * 7 }}%s%n{0}",
    "x" * 100_000,
    "",
)


def flip(path: Path, random: Random) -> None:
    """One bit."""
    raw = bytearray(path.read_bytes())
    raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    path.write_bytes(bytes(raw))


def flip_letter(path: Path, random: Random) -> None:
    """The lowest bit of a letter or digit: what is spelled stays spelled."""
    raw = bytearray(path.read_bytes())
    letters = [place for place, byte in enumerate(raw) if 48 <= byte <= 57 or 97 <= byte <= 122]
    raw[random.choice(letters or [0])] ^= 1
    path.write_bytes(bytes(raw))


def cut(path: Path, random: Random) -> None:
    """The end is lost; now and then all of it."""
    raw = path.read_bytes()
    path.write_bytes(raw[: random.choice((0, random.randrange(len(raw)), len(raw) - 1))])


def zero_tail(path: Path, random: Random) -> None:
    """The end reads as zeros, as on a disk that lost its cache."""
    raw = path.read_bytes()
    kept = random.randrange(len(raw))
    path.write_bytes(raw[:kept] + bytes(len(raw) - kept))


def burst(path: Path, random: Random) -> None:
    """One to four accidents of several bytes each."""
    path.write_bytes(damage(path.read_bytes(), random))


def swap_blocks(path: Path, random: Random) -> None:
    """Two blocks of the file have changed places."""
    raw = bytearray(path.read_bytes())
    size = max(1, min(512, len(raw) // 8))
    first = random.randrange(len(raw) // 2 or 1)
    second = random.randrange(len(raw) // 2, max(len(raw) - size, len(raw) // 2 + 1))
    a, b = bytes(raw[first : first + size]), bytes(raw[second : second + size])
    raw[first : first + len(b)], raw[second : second + len(a)] = b, a
    path.write_bytes(bytes(raw))


def replace_kind(path: Path, random: Random) -> None:
    """Another kind of thing lies there."""
    others = [other for other in sorted(path.parent.iterdir()) if other != path]
    other = random.choice(others or [path])
    kind = random.randrange(5)
    raw = other.read_bytes() if other.is_file() else b"\0" * 100
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to("nowhere")
    elif kind == 3:
        path.write_text("a text\n" * 50)
    else:
        path.write_bytes(raw)


ACCIDENTS: tuple[Callable[[Path, Random], None], ...] = (
    flip,
    flip,
    flip,
    flip_letter,
    flip_letter,
    cut,
    zero_tail,
    burst,
    swap_blocks,
    replace_kind,
)


def forge(path: Path, random: Random) -> None:
    """Change what a file says, with every digest that it holds of itself made to fit."""
    if path.suffix == ".h5":
        forge_hdf5(path, random)
    elif path.suffix == ".json":
        value = json.loads(path.read_text())
        new = forged(value, random)
        if isinstance(value, dict) and isinstance(new, dict) and SEAL in value:
            new = sealed(new, INDEX_SEAL if INDEX_SEAL in value else SEAL)
        path.write_text(json.dumps(new))
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        place = random.randrange(len(rows))
        row = forged(rows[place], random)
        rows[place] = sealed(row) if isinstance(row, dict) and SEAL in rows[place] else row
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".safetensors":
        forge_safetensors(path, random)
    elif path.suffix == ".toml":
        forge_recipe(path, random)
    elif path.suffix == ".pt2":
        forge_archive(path, random)
    else:
        burst(path, random)


def forged(value: object, random: Random) -> object:
    """A JSON value with two values swapped, a hostile text, or a part changed."""
    kind = random.randrange(3)
    if kind == 0 and isinstance(value, dict) and len(value) > 1:
        first, second = random.sample(sorted(value), 2)
        return {**value, first: value[second], second: value[first]}
    if kind == 1:
        text = json.dumps(value)
        places = [found.span() for found in re.finditer(r'"(?:[^"\\]|\\.)*"', text)]
        if places:
            start, end = random.choice(places)
            return json.loads(text[:start] + json.dumps(random.choice(HOSTILE)) + text[end:])
    return changed(value, random)


def forge_hdf5(path: Path, random: Random) -> None:
    """Swap attributes or arrays, write a hostile text, or meddle as a program could."""
    kind = random.randrange(4)
    if kind > 1:
        meddle(path, random)
        return
    with edited(path) as file:
        items: list[h5py.Group | h5py.Dataset] = [file]
        file.visititems(lambda _, item: items.append(item))
        if kind == 0:
            item = random.choice([item for item in items if len(item.attrs) > 1] or [file])
            names = sorted(item.attrs)
            if len(names) > 1:
                first, second = random.sample(names, 2)
                a, b = item.attrs[first], item.attrs[second]
                item.attrs[first], item.attrs[second] = b, a
            return
        texts = [(item, name) for item in items for name in item.attrs]
        item, name = random.choice(texts or [(file, "limbeck")])
        text = random.choice(HOSTILE)
        item.attrs[name] = json.dumps([text]) if random.random() < 0.5 else text


def forge_safetensors(path: Path, random: Random) -> None:
    """Change the tensors or the header of a safetensors file."""
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = dict(file.metadata() or {})
    kind = random.randrange(4)
    name = random.choice(sorted(tensors))
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        value = tensors[name].reshape(-1)
        tensors[name] = random.choice((value[:0], value[None], value.astype("f8"), value[:1]))
    elif kind == 2 and header:
        header[random.choice(sorted(header))] = random.choice((*HOSTILE, "{}", "[", "null"))
    else:
        tensors[random.choice(("added", "../x"))] = np.zeros(3, "f4")
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path, header)


def forge_archive(path: Path, random: Random) -> None:
    """Change one file of an archive, whose checksums then fit it."""
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(sorted(found))
    if name.endswith(".json"):
        found[name] = json.dumps(forged(json.loads(found[name]), random)).encode()
    else:
        found[name] = damage(found[name], random)
    with zipfile.ZipFile(path, "w") as archive:
        for place, raw in found.items():
            archive.writestr(place, raw)


def forge_recipe(path: Path, random: Random) -> None:
    """Put a strange value after one of a recipe's keys."""
    lines = path.read_text().splitlines()
    places = [index for index, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    place = random.choice(places)
    strange = random.choice(
        ("-1", "0", "1e308", "nan", "1e-300", "[]", "{}", "''", "'../../x'", "1979-05-27", "true",
         "-99999999999999999999", "[[[]]]", *(json.dumps(text[:2000]) for text in HOSTILE))
    )  # fmt: skip
    lines[place] = f"{lines[place].partition(' = ')[0]} = {strange}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def copy_of(path: Path, place: Path) -> Path:
    """A copy of a file or a folder at `place`."""
    if path.is_dir():
        shutil.copytree(path, place, symlinks=True)
    else:
        shutil.copy(path, place)
    return place
