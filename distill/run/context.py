"""What every stage of a run has at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from distill.data import AnyPreprocess, Changed, RealData, Split, fit_preprocess, fit_zca, take
from distill.errors import WorkError
from distill.machine import threads_for
from distill.recipes.build import build_data, build_network, choose_device, generator_for, seed_of
from distill.recipes.loading import check_recipe
from distill.recipes.recipe import Recipe
from distill.run.artefacts import COMMITTEE, PROJECTOR, VOTES
from distill.run.engines import Engine, Local
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.progress import Progress
from distill.store.large_arrays import is_large
from synth.images import Images, images_at
from synth.matching.start import draw_real

if TYPE_CHECKING:
    from distill.run.engines.torchrun import ProcessGroup


Job = TypeVar("Job")

Result = TypeVar("Result")

Prepare = Callable[[], Callable[[Job], Result]]


@dataclass
class Context:
    """A run, its recipe, its data and the means to report and stop.

    Attributes:
        run: the open run folder.
        recipe: the resolved recipe.
        device: where tensors live.
        progress: shows how far a task is.
        stop: asked between steps.
        key: the key of the stage that is running; checkpoints belong to it.
        engine: where independent work is done.
        crew: processes that share the segments of matching; None for this one alone.
        reuse: folders of other runs, whose experts and committees are taken where they fit.
    """

    run: Run
    recipe: Recipe
    device: torch.device
    progress: Progress
    stop: Stop
    key: str = ""
    engine: Engine = field(default_factory=Local)
    crew: ProcessGroup | None = None
    reuse: Sequence[Path] = ()
    _seen: dict[str, tuple[Images, Tensor]] = field(default_factory=dict, repr=False)

    @cached_property
    def data(self) -> RealData:
        """The real data, loaded at the first use."""
        return build_data(self.recipe.data)

    @cached_property
    def preprocess(self) -> AnyPreprocess:
        """From pixels to the normalised, or whitened, space of all networks."""
        fit = fit_zca if self.recipe.data.zca else fit_preprocess
        return fit(self.data.train.images)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.data.class_names)

    def split(self, name: str) -> tuple[Images, Tensor]:
        """Normalised images and labels of "train", "validation" or "test", on the device.

        Images that are read by batches are normalised by batches, and only these are on it.
        """
        if name not in self._seen:
            split: Split = getattr(self.data, name)
            self._seen[name] = (self._normalised(split.images), split.labels.to(self.device))
        return self._seen[name]

    def random_real(self, ipc: int, generator: Generator) -> tuple[Images, Tensor]:
        """Images [k * ipc, c, h, w] drawn from the train split, in class order, and their labels.

        Many of data that are read by batches are read by batches too.

        Raises:
            ValueError: if a class has fewer images than `ipc`.
        """
        images, labels = self.split("train")
        drawn = draw_real(labels.cpu(), self.classes, ipc, generator)
        many = is_large((len(drawn), *images.shape[1:]), 4)
        found = take(images, drawn) if many else images_at(images, drawn)
        return found, labels[drawn.to(self.device)]

    def on_device(self, images: Images) -> Images:
        """Images [n, c, h, w] on the device; of those that are read by batches, each batch."""
        if isinstance(images, Tensor):
            return images.to(self.device)
        return Changed(images, lambda batch: batch, self.device)

    def _normalised(self, images: Images) -> Images:
        if isinstance(images, Tensor):
            return self.preprocess(images.to(self.device))
        return Changed(images, self.preprocess, self.device)

    def generator(self, *keys: int | str) -> Generator:
        """A generator for one purpose of this run."""
        return generator_for(self.recipe.seed, *keys)

    def network(self, spec: str, *keys: int | str) -> nn.Module:
        """A fresh network of a spec for this data, on the device."""
        seed = seed_of(self.recipe.seed, "network", *keys)
        network = build_network(spec, self.data.channels, self.data.size, self.classes, seed)
        return network.to(self.device)

    def share(
        self, jobs: Sequence[Job], here: Prepare[Job, Result], away: Prepare[Job, Result]
    ) -> Iterator[tuple[Job, Result]]:
        """Do independent jobs by the engine; yields (job, result) as each is finished.

        Args:
            jobs: plain data and arrays.
            here: prepares this process, which has this context at hand and asks its `stop`.
            away: prepares another one; `functools.partial` of a module's function with plain data.
        """
        if self.engine.here:
            return self.engine.run_jobs(jobs, here, lambda: None)
        return self.send(jobs, away)

    def send(
        self, jobs: Sequence[Job], prepare: Prepare[Job, Result]
    ) -> Iterator[tuple[Job, Result]]:
        """Do independent jobs in other processes; see `share` and its `away`."""
        gpu = self.device.type == "cuda"
        return self.engine.run_jobs(jobs, prepare, self.stop.check, gpu=gpu)

    def checkpoint(self, stage: str) -> Path:
        """The checkpoint folder of a stage."""
        return self.run.checkpoint_folder(stage, self.key)

    def threads(self, batch: int, *networks: nn.Module) -> AbstractContextManager[None]:
        """As many CPU threads as batches of `batch` images of this data keep busy in networks."""
        height, width = self.data.size
        pixels = batch * self.data.channels * height * width
        parameters = sum(p.numel() for network in networks for p in network.parameters())
        return threads_for(pixels, parameters, self.device)

    def log(self, stage: str, **values: Any) -> None:
        """One row of metrics.jsonl."""
        self.run.append_metrics([{"stage": stage, **values}])


def scratch_context(
    scratch: Path, folder: Path, recipe: Recipe, device: str | None, quiet: bool, stop: Stop
) -> Context:
    """A context that reads artefacts from `folder` and leaves no trace in it."""
    run = Run(scratch, {"recipe": {}, "stages": {}})
    for name in (COMMITTEE, VOTES, PROJECTOR):
        if (folder / name).exists():
            (scratch / name).symlink_to((folder / name).resolve())
    return Context(run, recipe, choose_device(device or recipe.device), Progress(quiet=quiet), stop)


@dataclass(frozen=True)
class RunHandle:
    """Plain data from which a process opens a context that reads a run and never writes to it.

    Attributes:
        folder: of the run.
        recipe: the resolved recipe.
        device: "cpu" or "cuda".
        data: digest of the real data.
    """

    folder: Path
    recipe: dict[str, Any]
    device: str
    data: str


def handle_of(context: Context) -> RunHandle:
    """What another process needs to open this context."""
    folder = context.run.path.resolve()
    return RunHandle(folder, context.recipe.model_dump(), context.device.type, context.data.digest)


def open_context(opening: RunHandle) -> Context:
    """The context of an opening, silent and without an end of its own.

    Raises:
        WorkError: if this machine has other data, or no such device.
    """
    recipe = check_recipe(opening.recipe, "run")
    run = Run(opening.folder, {"recipe": {}, "stages": {}})
    context = Context(run, recipe, choose_device(opening.device), Progress(quiet=True), Stop())
    if context.data.digest != opening.data:
        raise WorkError(
            f"a worker found other data in {context.data.source} than the run was begun with; "
            "give all machines the same files"
        )
    return context


def no_advance(note: str = "", count: int = 1) -> None:
    """Progress that nobody sees: the process that asked for the work shows its own."""
