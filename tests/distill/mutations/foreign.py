"""What others wrote: recipes, pictures, arrays, sets, experts, weights and towers."""

import json
import shutil
import struct
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

import projectors
from distill.recipes.build import build_network
from tests.distill.cases import STUDENT, write_recipe
from tests.distill.making_cases import DATA, EVALUATE, PROJECTOR, RECOVER
from tests.distill.mutations.estate import FIXTURES
from tests.distill.mutations.things import Reader, Thing

TAUGHT = "mlp:width=32"
PLAN = ("--calibration", "ESTATE/machine.json", "--json")
PICKED = DATA + '[select]\nipc = 1\nmethod = "random"\n\n'
# Every table that no other recipe here has.
MIXED = RECOVER.replace("[evaluate]", f'{PROJECTOR}\n[encode]\ncodec = "topk:k=3"\n\n[evaluate]')
WEIGHED = (
    PICKED
    + f'[committee]\nmembers = ["{TAUGHT}"]\nmean = [0.5]\nstd = [0.25]\nweights = "here.pt"\n\n'
    + '[relabel]\nepochs = 1\naugmentation = "none"\n\n'
    + EVALUATE
)
REFINED = PICKED + '[refine]\nsteps = 1\ntower = "glyphclip"\n\n' + EVALUATE
RECIPES = {"mixed": MIXED, "weighed": WEIGHED, "refined": REFINED}

_NEW = ("--out", "OUT", "--quiet")
_WEIGHED = ("--set", "committee.weights=ESTATE/given/weights.pt", "--stage", "committee", *_NEW)
_BUFFERS = ("--data", "digits", "--size", "8", "--network", STUDENT, "--space", "normalised")
# Layout, its fixture and what has to be said of it.
_LAYOUTS = (
    ("mtt", "mtt", ("--statistics", "cifar10")),
    ("dc", "dc/res_DC_CIFAR10_ConvNet_2ipc.pt", ("--statistics", "cifar10")),
    ("datm", "datm", ("--space", "normalised", "--statistics", "cifar10")),
    ("idc", "idc", ()),
    ("npz", "npz-soft/set.npz", ("--statistics", "cifar10")),
    ("rded", "rded", ()),
    ("torch", "idc/data.pt", ()),
    ("buffers", "buffers", _BUFFERS),
)


def _weights(name: str) -> Thing:
    words = ("run", "ESTATE/weighed.toml", "--stage", "committee", *_NEW)
    return Thing(f"given/{name}", (Reader((*words, "--set", "committee.weights=IT")),), often=1)


# Files of others hold no digest: another result cannot be told from damage.
THINGS = (
    Thing(
        "herd.toml",
        (
            Reader(("run", "IT", *_NEW), often=2),
            Reader(("plan", "IT", "--json"), often=1),
            Reader(("plan", "IT", *PLAN), often=1),
            Reader(("select", "IT", *_NEW), often=1),
            Reader(("cp", "IT", "-"), often=1),
            Reader(("extend", "ESTATE/run/set.h5", "--data", "digits", "--recipe", "IT", *_NEW)),
        ),
        often=4,
    ),
    Thing(
        "tiny.toml",
        (
            Reader(("plan", "IT", *PLAN), often=3),
            Reader(("experts", "IT", *_NEW), often=1),
            Reader(("run", "IT", "--bytes", "3000", "--stage", "experts", *_NEW), often=1),
        ),
        often=3,
    ),
    Thing(
        "mixed.toml",
        (
            Reader(("plan", "IT", *PLAN), often=6),
            Reader(("run", "IT", "--stage", "committee", *_NEW), often=1),
            Reader(("recover", "IT", *_NEW), often=1),
        ),
        often=3,
    ),
    Thing(
        "weighed.toml",
        (Reader(("plan", "IT", *PLAN)), Reader(("run", "IT", *_WEIGHED))),
    ),
    Thing(
        "refined.toml",
        (Reader(("plan", "IT", *PLAN), often=5), Reader(("run", "IT", *_NEW), often=1)),
    ),
    Thing(
        "imagefolder",
        (Reader(("import", "IT", "--from", "folder", "--out", "OUT", "--size", "8")),),
    ),
    Thing(
        "given/pictures",
        (
            Reader(("pack", "folder:IT", "--size", "8", *_NEW)),
            Reader(("inspect", "folder:IT", "--json", "--quiet")),
            Reader(("inspect", "IT", "--html", "OUT", "--quiet"), often=1),
        ),
    ),
    Thing(
        "given/data.npz",
        (Reader(("pack", "npz:IT", *_NEW)), Reader(("inspect", "npz:IT", "--json", "--quiet"))),
    ),
    Thing(
        "given/idx",
        (
            Reader(("pack", "fashion-mnist:IT", *_NEW)),
            Reader(("inspect", "fashion-mnist:IT", "--json", "--quiet")),
        ),
    ),
    *(
        Thing(
            f"given/{place}",
            (Reader(("import", "IT", "--from", layout, "--out", "OUT", *more)),),
            often=1,
        )
        for layout, place, more in _LAYOUTS
    ),
    Thing(
        "given/batches",
        (
            Reader(
                ("import", "ESTATE/given/pictures", "--from", "rded", "--size", "8",
                 "--soft-labels", "IT", "--out", "OUT")
            ),
        ),
        often=1,
    ),
    _weights("weights.pt"),
    _weights("weights.safetensors"),
    Thing(
        "given/tower",
        (
            Reader(
                ("run", "ESTATE/refined.toml", "--stage", "select", "--stage", "refine", *_NEW,
                 "--set", "refine.tower=folder:IT")
            ),
        ),
        ("*",),
        often=1,
    ),
)  # fmt: skip


def build(folder: Path) -> None:
    """Write all of it."""
    for name, text in RECIPES.items():
        write_recipe(folder, text, name)
    given = folder / "given"
    for _, place, _ in _LAYOUTS:
        top = place.partition("/")[0]
        if top != "buffers" and not (given / top).exists():
            shutil.copytree(FIXTURES / top, given / top)
    random = np.random.default_rng(0)
    _put_pictures(given / "pictures", random)
    images = random.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(given / "data.npz", images=images, labels=np.arange(40) % 2)
    _put_idx(given / "idx", random)
    parameters = [list(build_network(STUDENT, 1, (8, 8), 10, seed).parameters()) for seed in (0, 1)]
    (given / "buffers").mkdir()
    torch.save(
        [[[p.detach() for p in epoch] for epoch in parameters]],
        given / "buffers" / "replay_buffer_0.pt",
    )
    state = taught_state()
    torch.save(state, given / "weights.pt")
    save_file(state, given / "weights.safetensors")
    _put_batches(given / "batches")
    _put_tower(given / "tower")


def taught_state() -> dict[str, Tensor]:
    """Of a network that knows digits whose pixels are less 0.5 and divided by 0.25."""
    data, network = load_digits(), build_network(TAUGHT, 1, (8, 8), 10, 0)
    pixels = (torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1) - 0.5) / 0.25
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(network(pixels), torch.tensor(data.target)).backward()
        optimizer.step()
    return network.state_dict()


def _put_pictures(folder: Path, random: np.random.Generator) -> None:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            noise = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{index}.png")


def _put_idx(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir()
    for name, count in (("train", 60), ("t10k", 20)):
        images = random.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        head = struct.pack(">BBBB3I", 0, 0, 8, 3, *images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">BBBBI", 0, 0, 8, 1, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


def _put_batches(folder: Path) -> None:
    """Soft labels of the pictures as SRe2L leaves them: crops, flips, no mix, logits."""
    for epoch in range(2):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        for batch in range(2):
            crops = torch.tensor([0.0, 0.0, 0.5, 0.5]).repeat(4, 1)
            flips, logits = torch.zeros(4, dtype=torch.bool), torch.randn(4, 2).half()
            row = [crops, flips, None, None, None, logits]
            torch.save(row, folder / f"epoch_{epoch}" / f"batch_{batch}.tar")


def _put_tower(folder: Path) -> None:
    folder.mkdir()
    config = resources.files(projectors) / "configs" / "tiny-vit.json"
    (folder / "open_clip_config.json").write_text(json.dumps(json.loads(config.read_text())))
    state = projectors.load_tower("config:tiny-vit").clip.state_dict()
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        folder / "open_clip_model.safetensors",
    )
