"""What a stage is made of: its entry in the list, its work, its outputs and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import WorkError
from distill.recipes.schema import Recipe
from distill.recipes.stages import StageEntry
from distill.recipes.tables.committee import VOTE_KEYS
from distill.run.artefacts import SET
from distill.run.context import Context
from distill.sets.set_file import SET_KIND, made_parts
from distill.stages.units.networks import Units
from distill.stages.units.unit import Task, Unit
from distill.store.content_digests import digest_content
from distill.store.files import digest_tree


@dataclass(frozen=True)
class Stage:
    """One stage; its module has it as `STAGE`.

    Attributes:
        entry: its name, its tables and its inputs.
        run: does the work and writes the outputs; takes the context and its own table.
        outputs: run folder -> digests of its outputs; raises if one is missing or damaged.
        units: what it costs: tasks of units of work, from its table; raises NotPricedError or
            ProjectorError where it cannot be priced.
        splits: of the real data that it reads, normalised or whitened.
        held: bytes of results that it holds in host memory before it writes them, from its table.
        also_inputs: recipe -> further inputs, where the recipe decides.
        derived: recipe -> the parts of other tables that decide the outputs too.
        ignored: keys of its tables that do not decide the outputs.
        selecting: keys of its own table that say which parts of its work are done, and decide
            nothing in any of them: its checkpoint serves every choice of them.
    """

    entry: StageEntry
    run: Callable[[Context, Any], None]
    outputs: Callable[[Path], dict[str, str]]
    units: Callable[[Units, Any], list[Task[Unit]]]
    splits: tuple[str, ...] = ()
    held: Callable[[Units, Any], int] = lambda units, table: 0
    also_inputs: Callable[[Recipe], tuple[str, ...]] = lambda recipe: ()
    derived: Callable[[Recipe], Any] = lambda recipe: None
    ignored: tuple[str, ...] = ()
    selecting: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As in `--stage`."""
        return self.entry.name

    @property
    def tables(self) -> tuple[str, ...]:
        """Recipe tables that it reads, its own last; all must be there."""
        return self.entry.tables

    @property
    def inputs(self) -> tuple[str, ...]:
        """Stages whose outputs it reads, where they are part of the run."""
        return self.entry.inputs


def output_file(name: str) -> Callable[[Path], dict[str, str]]:
    """The outputs of a stage that makes a file, or a folder, of this name."""

    def outputs(folder: Path) -> dict[str, str]:
        if not (folder / name).exists():
            raise WorkError(f"{folder / name} is missing; run its stage again")
        return {name: digest_tree(folder / name)}

    return outputs


def set_parts(label: str, *prefixes: str, attributes: bool) -> Callable[[Path], dict[str, str]]:
    """The output of a stage that adds to set.h5: its part alone, as later stages add more.

    Args:
        label: of the part, in the manifest.
        prefixes: of the names of its arrays.
        attributes: whether the file's attributes are part of it.
    """

    def outputs(folder: Path) -> dict[str, str]:
        path = folder / SET
        return {f"{SET}:{label}": digest_content(path, SET_KIND, prefixes, attributes)}

    return outputs


def made_images(folder: Path) -> dict[str, str]:
    """The output of a stage that makes the images: coded or not, with labels and attributes."""
    return set_parts("images", *made_parts(folder / SET), attributes=True)(folder)


def vote_keys(recipe: Recipe) -> Any:
    """The keys that weigh the committee's votes, for a stage that reads none of its training."""
    return recipe.committee and recipe.committee.model_dump(mode="json", include=set(VOTE_KEYS))
