"""Match expert trajectories: images, soft labels and student learning rate are learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.build import build_gradient, build_views
from distill.context import Context
from distill.data import require_per_class
from distill.errors import DivergedRunError, WorkError
from distill.stages.experts import FILE as EXPERTS
from distill.stages.tensors import load_tensors, save_tensors
from distill.store.experts import ExpertsInfo, read_info, read_snapshots
from distill.store.files import digest_json
from distill.store.sets import SetFile, write_set
from synth.matching import (
    DivergedError,
    Learned,
    MatchSettings,
    MatchState,
    Moments,
    OuterStep,
    Segment,
    SegmentChoice,
    SegmentSampler,
    initial_state,
    match_trajectories,
)
from synth.synthetic_set import (
    class_labels,
    draw_noise,
    draw_real,
    draw_uniform,
    starting_labels,
)

STAGE = "match"
FILE = "set.h5"
_CHECKPOINT = "state.safetensors"


def run_match(context: Context) -> None:
    """Make set.h5; goes on from the last checkpoint.

    Raises:
        DivergedRunError: if the outer loop diverges; the last checkpoint stays.
    """
    table = context.recipe.match
    info = read_info(context.run.path / EXPERTS)
    recorder = _Recorder(context)
    start = state = recorder.load() or _start(context)
    batch = min(table.batch_size or len(state.images), len(state.images))
    progress = context.progress.task(STAGE, table.iterations, state.step)
    with progress as advance, context.threads(batch):
        try:
            for state, step in _outer_steps(context, info, start):
                recorder.add(state, step)
                advance(f"distance {step.distance:.3f}, student lr {step.lr:.4f}")
                context.stop.check()
        except DivergedError as error:
            raise DivergedRunError(f"match diverged at outer step {error.step}: {error}") from None
        finally:
            recorder.flush()
    _write(context, state)


def _start(context: Context) -> MatchState:
    table = context.recipe.match
    require_per_class(context.data.train, table.ipc, context.data.class_names)
    images, labels = context.split("train")
    generator = context.generator(STAGE, "init")
    hard = class_labels(context.classes, table.ipc)
    shape = (len(hard), *images.shape[1:])
    starts: dict[str, Callable[[], Tensor]] = {
        "real": lambda: images[draw_real(labels.cpu(), context.classes, table.ipc, generator)],
        "random": lambda: context.preprocess(draw_uniform(shape, generator)),
        "noise": lambda: draw_noise(shape, generator),
    }
    soft = starting_labels(hard, context.classes, table.label_lead)
    return initial_state(starts[table.init]().to(context.device), soft.to(context.device), table.lr)


def _outer_steps(
    context: Context, info: ExpertsInfo, state: MatchState
) -> Iterator[tuple[MatchState, OuterStep]]:
    table = context.recipe.match
    network = context.network(info.network, STAGE)
    count, size = len(state.images), context.data.size
    sampler = SegmentSampler(
        info.count,
        table.max_start_epoch,
        table.inner_steps,
        table.batch_size,
        build_views(context.recipe.data.augmentation, one_per_batch=True),
    )

    def choose(step: int) -> list[SegmentChoice]:
        generators = (context.generator(STAGE, step, i) for i in range(table.segments))
        return [sampler.draw(count, size, generator) for generator in generators]

    def read(choice: SegmentChoice) -> Segment:
        epochs = (choice.start_epoch, choice.start_epoch + table.span)
        start, target = read_snapshots(context.run.path / EXPERTS, choice.expert, epochs)
        return Segment(start.to(context.device), target.to(context.device))

    settings = MatchSettings(
        table.image_lr, table.label_lr, table.log_lr_lr, table.threshold, table.patience
    )
    return match_trajectories(
        state,
        table.iterations,
        network=network,
        choose=choose,
        read=read,
        gradient=build_gradient(table),
        settings=settings,
    )


@dataclass
class _Recorder:
    """Keeps checkpoints and metrics in step: a row is written with the state that it led to."""

    context: Context

    def __post_init__(self) -> None:
        self._path = self.context.checkpoint(STAGE) / _CHECKPOINT
        self._rows: list[dict[str, Any]] = []
        self._state: MatchState | None = None

    def load(self) -> MatchState | None:
        """The last checkpoint; metrics after it are dropped."""
        found = load_tensors(self._path)
        state = None if found is None else _unpack(*found, device=self.context.device)
        self.context.run.keep_metrics(STAGE, below=0 if state is None else state.step)
        return state

    def add(self, state: MatchState, step: OuterStep) -> None:
        """Take note of a step; every `checkpoint_every` steps it goes to disk."""
        self._state = state
        self._rows.append(
            {
                "stage": STAGE,
                "step": step.index,
                "distance": step.distance,
                "student_lr": step.lr,
                "applied": step.applied,
            }
        )
        if state.step % self.context.recipe.match.checkpoint_every == 0:
            self.flush()

    def flush(self) -> None:
        """Write state and rows."""
        if self._state is not None and self._rows:
            save_tensors(self._path, *_pack(self._state))
            self.context.run.append_metrics(self._rows)
            self._rows = []


def _pack(state: MatchState) -> tuple[dict[str, Tensor], dict[str, int]]:
    tensors: dict[str, Tensor] = {}
    for part, learned in (("now", state.now), ("good", state.good)):
        for name in ("images", "labels", "log_lr"):
            tensors[f"{part}.{name}"] = getattr(learned, name)
        for index, moments in enumerate(learned.moments):
            tensors[f"{part}.mean.{index}"] = moments.mean
            tensors[f"{part}.square.{index}"] = moments.square
    header = {
        "step": state.step,
        "refusals": state.refusals,
        "now": state.now.updates,
        "good": state.good.updates,
    }
    return tensors, header


def _unpack(
    tensors: dict[str, Tensor], header: dict[str, int], *, device: torch.device
) -> MatchState:
    def learned(part: str) -> Learned:
        images, labels, log_lr = (
            tensors[f"{part}.{name}"].to(device) for name in ("images", "labels", "log_lr")
        )
        first, second, third = (
            Moments(
                tensors[f"{part}.mean.{index}"].to(device),
                tensors[f"{part}.square.{index}"].to(device),
            )
            for index in range(3)
        )
        return Learned(images, labels, log_lr, (first, second, third), header[part])

    return MatchState(header["step"], header["refusals"], learned("now"), learned("good"))


def _write(context: Context, state: MatchState) -> None:
    recipe = context.recipe
    if not bool(state.images.isfinite().all()):
        raise WorkError("the matched images hold NaN; lower match.image_lr")
    resolved = recipe.model_dump(mode="json")
    content = SetFile(
        images=state.images,
        hard=class_labels(context.classes, recipe.match.ipc),
        learned=state.labels,
        manifest={
            "class_names": list(context.data.class_names),
            "preprocess": context.preprocess.to_dict(),
            "student_lr": float(state.lr),
            "augmentation": recipe.data.augmentation,
            "network": recipe.experts.network,
            "seed": recipe.seed,
            "recipe": resolved,
            "recipe_digest": digest_json(resolved),
            "source": {"name": context.data.source, "digest": context.data.digest},
        },
    )
    write_set(context.run.path / FILE, content)
