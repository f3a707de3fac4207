"""Recipes and sets of other programs, damaged or meant to harm, end in success or one line."""

import io
import pickle
import re
import shutil
import zipfile
from importlib import resources
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from distill.errors import LimbeckError
from distill.recipes.checks import check_data, check_names
from distill.recipes.loading import load_recipe
from tests.distill.cases import TINY
from tests.distill.fuzz_cases import Tally, damage

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures" / "exchange"
LAYOUTS = (
    ("mtt", "mtt", ("--statistics", "cifar10")),
    ("dc", "dc", ("--statistics", "cifar10")),
    ("datm", "datm", ("--space", "normalised", "--statistics", "cifar10")),
    ("idc", "idc", ()),
    ("npz", "npz", ()),
    ("torch", "idc", ()),
    ("folder", "folder", ()),
)


def cases(few, many):
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


ODD = (
    "-1", "0", "1", "3", "1e308", "nan", "inf", "-inf", "99999999999999999999999", "''", "'x'",
    "true", "[]", "[1, 'a']", "{}", "{a = 1}", "1979-05-27", "'../../x'", "'digits'", "'glyphs:0'",
    "'glyphs:99999999'", "'npz:/nowhere'", "'folder:/etc'", "'torchvision:None'", "'npz:/dev/zero'",
    "['convnet3:width=100000000']", "'convnet3:depth=99'", "['vit:heads=0']", "'hf:../x'",
    '"line\\nline"', '"nul\\u0000"', "[[[[]]]]", "'crop_crop'", "'experts:9'", "'folder:\\u0000'",
)  # fmt: skip


def strange_recipe(random):
    """A recipe with one to three keys changed, added or moved, or with its text damaged."""
    if random.random() < 0.2:
        return damage(TINY.encode(), random)
    if random.random() < 0.02:
        return b"x = " + b"[" * 50_000
    packaged = resources.files("distill") / "recipes"
    names = sorted(item.name for item in packaged.iterdir() if item.name.startswith("digits"))
    text = TINY if random.random() < 0.6 else (packaged / random.choice(names)).read_text()
    lines = text.splitlines()
    keys = [index for index, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    for _ in range(random.randint(1, 3)):
        place = random.choice(keys)
        draw = random.random()
        if draw < 0.8:
            lines[place] = f"{lines[place].partition(' = ')[0]} = {random.choice(ODD)}"
        elif draw < 0.9:
            lines[place] = random.choice(("[match]", "[odd]", "a.b.c = 1", "seed = -5", "[[data]]"))
        else:
            lines[place] = ""
    return "\n".join(lines).encode()


@cases(60, 500)
def test_strange_recipes(count, tmp_path):
    tally, path = Tally(), tmp_path / "strange.toml"

    def check():
        recipe = load_recipe(str(path))
        check_names(recipe)
        check_data(recipe)

    for seed in range(count):
        path.write_bytes(strange_recipe(Random(seed)))
        tally.call(seed, check, LimbeckError)
    tally.check()


@cases(40, 300)
def test_strange_changes_of_a_recipe(count, tmp_path):
    tally, out = Tally(), tmp_path / "run"
    keys = [*re.findall(r"^(\w+) = ", TINY, re.MULTILINE), "seed", "device", "zca", "cupy"]
    tables = ("data", "experts", "match", "committee", "relabel", "projector", "evaluate", "")
    for seed in range(count):
        random = Random(seed)
        key = ".".join(filter(None, (random.choice(tables), random.choice(keys))))
        text = f"{key}={random.choice(ODD)}" if seed % 5 else random.choice(("", "=", "a.b.c=1"))
        # The last change is always refused: what is looked at is how, not what a run would do.
        words = ("run", "digits", "--out", out, "--set", text, "--set", "match.ipc=0")
        assert tally.command(seed, *words, absent=(out,)) in (1, 2)
    tally.check()


def strange_tensors(random):
    """What a torch file of another program may hold besides images and labels."""
    one = torch.ones(1)
    return random.choice(
        (
            one.expand(10**6, 10**6),
            torch.ones(4, 3, 8, 8).to_sparse(),
            torch.ones(4, 3, 8, 8, device="meta"),
            torch.ones(4, 3, 8, 8, dtype=torch.complex64),
            torch.full((4,), 2**62),
            torch.full((4, 2), torch.nan),
            torch.ones(4, 3, 8, 8).half(),
            torch.zeros(0, 3, 8, 8),
            [one, one],
            {"data": [[one]]},
            {"data": [one]},
            {"data": {1: 2}},
            (1, 2),
            "text",
            None,
            {"limbeck": "{}", "images": one},
            {"limbeck": "[" * 50_000, "images": one},
        )
    )


def meddle(folder: Path, random: Random) -> None:
    """Damage a file, or put another in its place."""
    place = random.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if place.suffix == ".pt" and random.random() < 0.6:
        torch.save(strange_tensors(random), place)
    elif place.suffix == ".npz" and random.random() < 0.6:
        odd = (np.full(4, 2**62), np.ones(4, "c8"), np.array(["a"] * 4), np.float64(np.nan))
        arrays = {"images": np.ones((4, 8, 8, 3), "u1"), "labels": np.arange(4) % 2}
        arrays[random.choice(("images", "labels", "limbeck"))] = random.choice(odd)
        np.savez(place, **arrays)
    else:
        place.write_bytes(damage(place.read_bytes(), random))


@cases(40, 300)
def test_damaged_layouts(count, tmp_path):
    tally, out = Tally(), tmp_path / "set.h5"
    for seed in range(count):
        random = Random(seed)
        layout, name, options = LAYOUTS[seed % len(LAYOUTS)]
        folder = tmp_path / "given"
        shutil.copytree(FIXTURES / name, folder)
        meddle(folder, random)
        place = folder
        if layout in ("dc", "npz", "torch"):
            place = next(path for path in folder.rglob("*") if path.suffix in (".pt", ".npz"))
        words = ("import", place, "--from", layout, "--out", out, "--json", *options)
        tally.command(seed, *words, absent=(out,))
        out.unlink(missing_ok=True)
        shutil.rmtree(folder)
        assert not list(tmp_path.iterdir())
    tally.check()
    assert tally.codes[0]
    assert tally.codes[1]


@cases(30, 200)
def test_damaged_exports(count, finished, command, tmp_path):
    """What `distill export set` wrote, damaged on its way back."""
    tally, out = Tally(), tmp_path / "set.h5"
    forms = {"npz": "set.npz", "safetensors": "set.safetensors", "torch": "set.pt"}
    for form in forms:
        words = ("export", "set", finished / "set.h5", "--format", form, "--out", tmp_path / form)
        assert command(*words).code == 0
    for seed in range(count):
        random = Random(seed)
        form = random.choice(sorted(forms))
        place = tmp_path / "given" / forms[form]
        place.parent.mkdir(exist_ok=True)
        if form == "safetensors" and random.random() < 0.4:
            meta = random.choice(
                ("{}", "[]", "x", '{"": {"limbeck": 3}}', '{"": null}', "[" * 10**5)
            )
            save_file({"images": np.ones((2, 3))}, place, metadata={"limbeck": meta})
        else:
            place.write_bytes(damage((tmp_path / form / forms[form]).read_bytes(), random))
        tally.command(seed, "import", place, "--from", form, "--out", out, absent=(out,))
        out.unlink(missing_ok=True)
    tally.check()


class Harm:
    """What an unpickler would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("layout", ["mtt", "dc", "datm", "idc", "npz", "torch", "buffers"])
def test_code_in_a_file_is_never_run(layout, refused, tmp_path):
    mark = tmp_path / "harmed"
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("images_best.pt", "labels_best.pt", "data.pt", "set.pt"):
        torch.save([Harm(mark), torch.ones(2)], folder / name)
    np.savez(folder / "set.npz", images=np.array([Harm(mark)], dtype=object), labels=np.ones(1))
    (folder / "raw.pt").write_bytes(pickle.dumps(Harm(mark)))
    for name in ("images_best.pt", "data.pt", "set.npz", "raw.pt", "set.pt"):
        words = ("import", folder / name, "--from", layout, "--out", tmp_path / "set.h5")
        line = refused(1, *words, "--data", "digits", "--space", "normalised")
        assert "cannot be read" in line or "are needed" in line
    assert not mark.exists()


def test_bomb_in_a_torch_file_is_refused(refused, tmp_path):
    stream = io.BytesIO()
    torch.save([torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)], stream)
    path = tmp_path / "data.pt"
    with (
        zipfile.ZipFile(stream) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
        packed.writestr("data/data/9", bytes(300 << 20), compresslevel=1)
    words = ("import", path, "--from", "idc", "--out", tmp_path / "set.h5")
    assert "a decompression bomb" in refused(1, *words)
