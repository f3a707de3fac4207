"""Tables, curves and programs of torch.export: what other packages write, or read for us."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from distill.recipes.build import build_network
from tests.distill.cases import copy_run, write_recipe
from tests.distill.making_cases import EVALUATE
from tests.distill.mutations.estate import SMALL, VERIFY
from tests.distill.mutations.foreign import PICKED, TAUGHT, taught_state
from tests.distill.mutations.things import Reader, Thing

_NEW = ("--out", "OUT", "--quiet")
_PROGRAM = f'{PICKED}[committee]\nmembers = ["{TAUGHT}"]\n\n{EVALUATE}'
_TABLE = Reader(("export", "set", "IT", "--format", "parquet", "--out", "OUT"), "out")
_LOGGED = ("run", "RECIPE", "--out", "IT", "--stage", "match", "--log", "tensorboard", "--quiet")
_TRACKED = ("run", "RECIPE", "--stage", "experts", "--log", "mlflow", *_NEW)


@dataclass(frozen=True)
class Group:
    """Things that need packages which are not everywhere.

    Attributes:
        needs: names of modules.
        things: what is damaged.
        build: writes them into the folder of the estate, with what runs a command.
    """

    needs: tuple[str, ...]
    things: tuple[Thing, ...]
    build: Callable[[Path, Callable[..., None]], None]


def _build_table(folder: Path, run: Callable[..., None]) -> None:
    """A table of enough pictures to be data."""
    out = folder / "picked"
    run("select", folder / "herd.toml", "--out", out, *SMALL, "--set", "select.ipc=6")
    run("export", "set", out, "--format", "parquet", "--out", folder / "table")


def _build_curves(folder: Path, run: Callable[..., None]) -> None:
    """A run that has its experts, beside curves, or a file in their place."""
    out, words = folder / "logged", ("--log", "tensorboard", "--quiet")
    run("run", folder / "tiny.toml", "--out", out, "--stage", "experts", *words)
    assert list((out / "tensorboard").iterdir())
    mislaid = copy_run(out, folder / "mislaid")
    shutil.rmtree(mislaid / "tensorboard")
    (mislaid / "tensorboard").write_text("of another program\n" * 20)


def _build_tracked(folder: Path, run: Callable[..., None]) -> None:
    """A folder of MLflow with a run."""
    from mlflow import MlflowClient

    client = MlflowClient(str(folder / "tracked"))
    client.create_run(client.create_experiment("limbeck"))


class _Pixels(nn.Module):
    """A network as a teacher that takes pixels in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network((pixels - 0.5) / 0.25)
        return logits


def _build_program(folder: Path, run: Callable[..., None]) -> None:
    """A teacher as a program, and a recipe that it can teach for."""
    network = build_network(TAUGHT, 1, (8, 8), 10, 0)
    network.load_state_dict(taught_state())
    program = torch.export.export(
        _Pixels(network).eval(),
        (torch.zeros(2, 1, 8, 8),),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    torch.export.save(program, folder / "given" / "teacher.pt2")
    write_recipe(folder, _PROGRAM, "program")


GROUPS = {
    "tables": Group(
        ("pyarrow",),
        tuple(
            Thing(place, (_TABLE,))
            for place in ("run/set.h5", "coded.h5", "encoded.h5", "merged.h5", "colour.h5")
        ),
        lambda folder, run: None,
    ),
    # What was exported is data for whoever has `datasets`.
    "read-tables": Group(
        ("pyarrow", "datasets"),
        (
            Thing(
                "table",
                (
                    Reader(("inspect", "hf:IT", "--json", "--quiet")),
                    Reader(("pack", "hf:IT", "--size", "8", *_NEW)),
                ),
            ),
        ),
        _build_table,
    ),
    "curves": Group(
        ("tensorboard",),
        (
            Thing("logged", (VERIFY, Reader(_LOGGED, "place")), ("tensorboard/*",)),
            Thing("mislaid", (VERIFY, Reader(_LOGGED, "place")), ("tensorboard",)),
        ),
        _build_curves,
    ),
    "tracked": Group(
        ("mlflow",),
        (Thing("tracked", (Reader(_TRACKED, "experts"),), variable="MLFLOW_TRACKING_URI"),),
        _build_tracked,
    ),
    "programs": Group(
        (),
        (
            Thing(
                "given/teacher.pt2",
                (
                    Reader(
                        ("run", "ESTATE/program.toml", "--stage", "committee", *_NEW,
                         "--allow-code", "IT", "--set", "committee.members=torch-export:IT")
                    ),
                ),
            ),
        ),
        _build_program,
    ),
}  # fmt: skip
