"""Damaged artefacts of a run end in success or one line, in bounded time and memory."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest

import distill
from distill.errors import LimbeckError
from distill.store.experts import read_last_snapshots
from distill.store.seals import sealed
from tests.distill.cases import copy_run, edited
from tests.distill.fuzz_cases import Tally, changed, changed_json, damage


def cases(few, many):
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


def strange_dataset(group, name, random):
    """Put a dataset of the same name that promises much, or leads elsewhere."""
    kind = random.randrange(7)
    del group[name]
    if kind == 0:
        group.create_dataset(name, (10**6, 10**6), "f4", chunks=(1000, 1000))
    elif kind == 1:
        group.create_dataset(name, (1 << 30,), "u1", chunks=(1 << 20,), compression="gzip")
    elif kind == 2:
        group.create_dataset(name, (100,), "u1", external=[("/etc/passwd", 0, 100)])
    elif kind == 3:
        layout = h5py.VirtualLayout((10, 10), "f4")
        layout[:] = h5py.VirtualSource("/nowhere.h5", "x", (10, 10))
        group.create_virtual_dataset(name, layout)
    elif kind == 4:
        group[name] = random.choice(
            (h5py.ExternalLink("/nowhere.h5", "x"), h5py.SoftLink(f"{group.name}/{name}"))
        )
    elif kind == 5:
        group.create_dataset(name, data=random.choice(("text", [1, 2], 3.5, [[True]], [b"ab"])))
    else:
        group.create_group(name)


def meddle(path: Path, random: Random) -> None:
    """Change an HDF5 file as a program could that means harm: every checksum fits."""
    with edited(path) as file:
        groups, datasets = [file], []
        file.visititems(
            lambda _, item: (datasets if hasattr(item, "shape") else groups).append(item)
        )
        kind = random.randrange(5)
        if kind == 0:
            item = random.choice(datasets)
            strange_dataset(item.parent, item.name.rsplit("/")[-1], random)
        elif kind == 1:
            item = random.choice([item for item in groups + datasets if len(item.attrs)] or [file])
            name = random.choice(sorted(item.attrs))
            found = item.attrs[name]
            try:
                new = json.dumps(changed(json.loads(found), random))
            except (TypeError, ValueError):
                new = random.choice(("", "x" * 3000, -1, 0, 2**40, np.nan, [1, 2], "[" * 50_000))
            if isinstance(new, str) and "\0" in new:
                return
            item.attrs[name] = new
        elif kind == 2:
            item = random.choice(groups[1:] + datasets)
            del item.parent[item.name]
        elif kind == 3:
            item = random.choice([item for item in datasets if item.size])
            place = tuple(random.randrange(extent) for extent in item.shape)
            with np.errstate(all="ignore"):
                item[place] = np.array(random.choice((0, 1, 255, 1e30, np.nan))).astype(item.dtype)
        else:
            item = random.choice(datasets)
            parent, name, values = item.parent, item.name, np.atleast_1d(item[()])
            del parent[name]
            shapes = [values.reshape(-1), values[:0], values[None], values.astype("f8")]
            parent.create_dataset(name, data=random.choice(shapes))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["set", "experts", "committee"])
@cases(12, 150)
def test_damaged_hdf5(name, count, finished, tmp_path):
    tally, path = Tally(), tmp_path / f"{name}.h5"
    raw = (finished / f"{name}.h5").read_bytes()
    for seed in range(count):
        random = Random(f"{name}{seed}")
        path.write_bytes(damage(raw, random) if seed % 2 else raw)
        if not seed % 2:
            meddle(path, random)
        tally.command(seed, "verify", path)
        tally.command(seed, "show", path, "--json")
        if name == "set":
            tally.call(seed, lambda: distill.load(path), LimbeckError)
        if name == "experts":
            tally.call(seed, lambda: read_last_snapshots(path), LimbeckError)
    tally.check()
    assert tally.codes[1] > count / 4


def test_heap_that_never_ends_is_refused(run_copy, refused):
    """HDF5 itself would walk on the spot for ever, and no signal could stop it."""
    path = run_copy / "experts.h5"
    raw = bytearray(path.read_bytes())
    place = raw.index(b"GCOL\1\0\0\0") + 16
    raw[place : place + 16] = bytes(16)
    path.write_bytes(raw)
    for name in ("show", "verify"):
        refused(1, name, path)
    with pytest.raises(LimbeckError, match="a heap of texts is damaged"):
        read_last_snapshots(path)


@cases(4, 40)
def test_damaged_set_is_not_exported(count, finished, tmp_path):
    tally, path = Tally(), tmp_path / "set.h5"
    for seed in range(count):
        shutil.copy(finished / "set.h5", path)
        meddle(path, Random(seed))
        out = tmp_path / "out"
        form = ("safetensors", "npz", "imagefolder", "torch")[seed % 4]
        words = ("export", "set", path, "--format", form, "--out", out)
        tally.command(seed, *words, absent=(out,))
        shutil.rmtree(out, ignore_errors=True)
        assert [entry.name for entry in tmp_path.iterdir()] == ["set.h5"]
    tally.check()


def seal_again(folder: Path) -> None:
    """Let the digests in projector.json fit the files, as whoever means harm would."""
    description = json.loads((folder / "projector.json").read_text())
    for name in description["files"]:
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        description["files"][name] = found
    (folder / "projector.json").write_text(json.dumps(sealed(description)))


@cases(6, 80)
def test_damaged_projector(count, finished, tmp_path):
    tally, folder = Tally(), tmp_path / "projector"
    for seed in range(count):
        random = Random(seed)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished / "projector", folder)
        if seed % 3:
            place = folder / "projector.json"
            text = changed_json(place.read_text(), random)
            place.write_text(text, encoding="utf-8")
            # Every second one with a digest that fits, where it is still a description.
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
                if seed % 2:
                    place.write_text(json.dumps(sealed(json.loads(text))))
        else:
            place = random.choice(sorted(folder.glob("*.safetensors")))
            place.write_bytes(damage(place.read_bytes(), random))
            seal_again(folder)
        tally.command(seed, "verify", folder)
        tally.command(seed, "show", folder)
    tally.check()
    assert tally.codes[1] > count / 4


@cases(8, 100)
def test_damaged_run(count, finished, tmp_path):
    """The files of a run that are text."""
    tally, out = Tally(), tmp_path / "run"
    names = ("manifest.json", "summary.json", "metrics.jsonl")
    for seed in range(count):
        random, name = Random(seed), names[seed % 3]
        shutil.rmtree(out, ignore_errors=True)
        copy_run(finished, out)
        text = (out / name).read_text()
        if name == "metrics.jsonl":
            rows = text.splitlines()
            place = random.randrange(len(rows))
            rows[place] = changed_json(rows[place], random)
            (out / name).write_text("\n".join(rows))
        else:
            (out / name).write_text(changed_json(text, random), encoding="utf-8")
        report = out / "report.html"
        report.unlink()
        tally.command(seed, "report", out, absent=(report,))
        tally.command(seed, "show", out)
        tally.command(seed, "verify", out)
    tally.check()
