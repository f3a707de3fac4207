"""The context of a run, which every stage takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from distill.data import (
    AnyPreprocess,
    MappedImages,
    Preprocess,
    RealData,
    Split,
    fit_preprocess,
    fit_zca,
    select_images,
)
from distill.errors import WorkError
from distill.machine import resident_bytes, threads_for
from distill.names import allow_code, code_that_is_allowed
from distill.recipes.build import build_data, build_network, choose_device, generator_for, seed_of
from distill.recipes.loading import check_recipe
from distill.recipes.schema import Recipe
from distill.run.checkpoints import Checkpoint, Saved
from distill.run.engines import Engine, Load, Local
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.load import together, training_load
from distill.run.progress import Counted, Progress
from distill.store.large_arrays import is_large
from distill.store.tensors import Arrays, from_arrays
from synth.images import Images, images_at
from synth.matching.start import draw_counts

if TYPE_CHECKING:
    from distill.run.engines.process_group import ProcessGroup


Job = TypeVar("Job")

Result = TypeVar("Result")

Made = TypeVar("Made")


@dataclass
class Context:
    """A run, its recipe, its data and the means to report and stop.

    Attributes:
        run: the open run folder.
        recipe: the resolved recipe.
        device: where tensors live.
        progress: shows how far a task is.
        stop: checked between steps.
        key: digest of what decides the parts of the stage that is running; its checkpoints belong
            to it.
        engine: where independent work is done.
        group: processes that share the segments of matching; None for this one alone.
        reuse: folders of other runs, whose experts and committees are reused where they fit.
    """

    run: Run
    recipe: Recipe
    device: torch.device
    progress: Progress
    stop: Stop
    key: str = ""
    engine: Engine = field(default_factory=Local)
    group: ProcessGroup | None = None
    reuse: Sequence[Path] = ()
    _seen: dict[str, tuple[Images, Tensor]] = field(default_factory=dict, repr=False)
    _made: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    @cached_property
    def data(self) -> RealData:
        """The real data, loaded at the first use; what is to be known of them is said."""
        data = build_data(self.recipe.data)
        for note in data.notes:
            self.progress.say(f"note: {note}")
        return data

    @cached_property
    def preprocess(self) -> AnyPreprocess:
        """The map from pixels to the normalised, or whitened, images that all networks see."""
        fit = fit_zca if self.recipe.data.zca else fit_preprocess
        return fit(self.data.train.images)

    def normalise_as(self, preprocess: AnyPreprocess) -> None:
        """Show networks real images as those of a set, which may have grown; not if whitened."""
        if isinstance(preprocess, Preprocess):
            self.preprocess = preprocess

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.data.class_names)

    def split(self, name: str) -> tuple[Images, Tensor]:
        """Normalised images and labels of "train", "validation" or "test", on the device.

        Images that are read by batches are normalised, and put on the device, batch by batch.
        """
        if name not in self._seen:
            split: Split = getattr(self.data, name)
            self._seen[name] = (self._normalised(split.images), split.labels.to(self.device))
        return self._seen[name]

    def random_real(self, ipc: int, generator: Generator) -> tuple[Images, Tensor]:
        """Images [k * ipc, c, h, w] drawn from the train split, in class order, and their labels.

        A large draw from data that are read by batches is read by batches too.

        Raises:
            ValueError: if a class has fewer images than `ipc`.
        """
        return self._drawn([ipc] * self.classes, generator)

    def random_like(self, hard: Tensor, generator: Generator) -> tuple[Images, Tensor]:
        """As `random_real`, as many of each class as the labels [n] of a set have.

        Raises:
            WorkError: if a class has too few images.
        """
        counts = hard.bincount(minlength=self.classes).tolist()
        try:
            return self._drawn(counts, generator)
        except ValueError as error:
            raise WorkError(f"random images, as many as the set has: {error}") from None

    def _drawn(self, counts: Sequence[int], generator: Generator) -> tuple[Images, Tensor]:
        images, labels = self.split("train")
        drawn = draw_counts(labels.cpu(), counts, generator)
        many = is_large((len(drawn), *images.shape[1:]), 4)
        selected = select_images(images, drawn) if many else images_at(images, drawn)
        return selected, labels[drawn.to(self.device)]

    def on_device(self, images: Images) -> Images:
        """Images [n, c, h, w] on the device; those that are read by batches, batch by batch."""
        if isinstance(images, Tensor):
            return images.to(self.device)
        return MappedImages(images, lambda batch: batch, self.device)

    def _normalised(self, images: Images) -> Images:
        if isinstance(images, Tensor):
            return self.preprocess(images.to(self.device))
        return MappedImages(images, self.preprocess, self.device)

    def generator(self, *keys: int | str) -> Generator:
        """A generator for one purpose of this run."""
        return generator_for(self.recipe.seed, *keys)

    def network(self, spec: str, *keys: int | str, classes: int | None = None) -> nn.Module:
        """A fresh network of a spec for this data, or for its first classes, on the device."""
        seed, count = seed_of(self.recipe.seed, "network", *keys), classes or self.classes
        network = build_network(spec, self.data.channels, self.data.size, count, seed)
        return network.to(self.device)

    def map(
        self,
        function: Callable[[Context, Job], Result],
        jobs: Sequence[Job],
        load: Callable[[Job], Load],
    ) -> Iterator[tuple[Job, Result]]:
        """Do independent jobs, here or in workers; yields (job, result) as each is finished.

        Each process that works has a context of its own: here this one, in a worker one that
        reads the run and never writes to it. What a job reports to `progress.advance` is shown at
        once here, and from a worker when the job is finished.

        Args:
            function: a module's function, or `functools.partial` of one with plain data; its
                result depends on the run and the job alone.
            jobs: plain data and arrays, which may be sent to another process or machine.
            load: of a job; where several are done at once, the longest begin first.
        """
        gpu = self.device.type == "cuda"
        engine = self.engine.engine_for(len(jobs), lambda: self._load_of(jobs, load), gpu=gpu)
        if engine.here:
            yield from engine.run_jobs(jobs, lambda: partial(function, self), lambda: None)
            return
        prepare = partial(_in_worker, handle_of(self), function)
        longest_first = sorted(jobs, key=lambda job: -load(job).flops)
        for job, done in engine.run_jobs(longest_first, prepare, self.stop.check, gpu=gpu):
            result, counted = done
            if counted.units:
                self.progress.advance(counted.note, counted.units)
            yield job, result

    def _load_of(self, jobs: Sequence[Job], load: Callable[[Job], Load]) -> Load:
        """The load of all jobs; a worker holds this process and the tensors of one job."""
        total = together(load(job) for job in jobs)
        return Load(total.flops, resident_bytes() + total.bytes)

    def training_load(self, spec: str, batch: int, steps: int) -> Load:
        """The load of training steps of a network on batches of this data."""
        image = (self.data.channels, *self.data.size)
        return training_load(spec, image, self.classes, batch, steps)

    def map_parts(
        self,
        checkpoint: Checkpoint,
        function: Callable[[Context, int], tuple[Arrays, Any]],
        units: Sequence[int],
        load: Callable[[int], Load],
        leave_out: Collection[str] = (),
    ) -> Iterator[tuple[int, Saved]]:
        """Like `map` for the numbers 0, 1, ..., but each result is kept as a part of a checkpoint.

        Parts that were saved before are loaded; yields (number, part) as each is ready.

        Args:
            checkpoint: of the stage.
            function: makes a part: named arrays, and plain values.
            units: of progress that each number stands for.
            load: of making the part of a number.
            leave_out: names of tensors that are saved, but not yielded.
        """
        missing = []
        for number, count in enumerate(units):
            saved = checkpoint.part(number).load(leave_out)
            if saved is None:
                missing.append(number)
            else:
                self.progress.advance(count=count)
                yield number, saved
        for number, (arrays, header) in self.map(function, missing, load):
            tensors = from_arrays(arrays)
            checkpoint.part(number).save(tensors, header)
            kept = {name: value for name, value in tensors.items() if name not in leave_out}
            yield number, (kept, header)

    def once(self, name: str, make: Callable[[], Made], key: Any = None) -> Made:
        """The result of `make`, cached for the jobs of this stage: networks, sets.

        Args:
            name: of the result; only the last one of a name is cached.
            make: called if there is none of this name and key.
            key: what it is made from, where that may differ from job to job.
        """
        if name not in self._made or self._made[name][0] != key:
            self._made.pop(name, None)
            self._made[name] = (key, make())
        made: Made = self._made[name][1]
        return made

    def forget(self) -> None:
        """Clear what `once` has cached."""
        self._made.clear()

    def checkpoint(self, stage: str) -> Checkpoint:
        """The checkpoint of a stage; read-only in a worker."""
        folder = self.run.checkpoint_folder(stage, self.key)
        return Checkpoint(self.run, stage, folder, self.progress.say)

    def threads(self, batch: int, *networks: nn.Module) -> AbstractContextManager[None]:
        """Use as many CPU threads as batches of `batch` images keep busy in these networks."""
        height, width = self.data.size
        pixels = batch * self.data.channels * height * width
        parameters = sum(p.numel() for network in networks for p in network.parameters())
        return threads_for(pixels, parameters, self.device)

    def log(self, stage: str, **values: Any) -> None:
        """One row of metrics.jsonl."""
        self.run.append_metrics([{"stage": stage, **values}])


@dataclass(frozen=True)
class RunHandle:
    """Plain data from which a process opens a context that reads a run and never writes to it.

    Attributes:
        folder: of the run.
        recipe: the resolved recipe.
        device: "cpu" or "cuda".
        data: digest of the real data.
        key: see `Context`.
        code: modules of a user's own whose networks its specs may name.
        preprocess: of the images, unless the process is to fit it to the real data.
    """

    folder: Path
    recipe: dict[str, Any]
    device: str
    data: str
    key: str
    code: tuple[str, ...] = ()
    preprocess: Preprocess | None = None


def handle_of(context: Context) -> RunHandle:
    """What another process needs to open this context."""
    folder, recipe = context.run.path.resolve(), context.recipe.model_dump()
    known = vars(context).get("preprocess")
    given = known if isinstance(known, Preprocess) else None
    device, digest = context.device.type, context.data.digest
    code = code_that_is_allowed()
    return RunHandle(folder, recipe, device, digest, context.key, code, given)


def open_context(handle: RunHandle) -> Context:
    """The context of a run, without progress output; it cannot be interrupted.

    Raises:
        WorkError: if this machine has other data, or no such device.
    """
    allow_code(handle.code)
    recipe = check_recipe(handle.recipe, "run")
    run = Run(handle.folder, read_only=True)
    device, progress = choose_device(handle.device), Progress(quiet=True)
    context = Context(run, recipe, device, progress, Stop(), handle.key)
    if context.data.digest != handle.data:
        raise WorkError(
            f"a worker found other data in {context.data.source} than the run was begun with; "
            "give all machines the same files"
        )
    if handle.preprocess is not None:
        context.normalise_as(handle.preprocess)
    return context


def _in_worker(
    handle: RunHandle, function: Callable[[Context, Job], Result]
) -> Callable[[Job], tuple[Result, Counted]]:
    """A function that does jobs in a worker, with a context that is opened once."""
    return partial(_counting, open_context(handle), function)


def _counting(
    context: Context, function: Callable[[Context, Job], Result], job: Job
) -> tuple[Result, Counted]:
    """The result of a job, and its progress."""
    counted = context.progress.advance = Counted()
    return function(context, job), counted
