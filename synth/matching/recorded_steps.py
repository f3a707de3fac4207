"""Inner steps as programs: recorded as CUDA graphs on a GPU, compiled on a CPU, and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from synth.augment import View
from synth.compiling import compile_work, need_compiler
from synth.cuda_graphs import GraphCache, GraphRecorder, Record, Work
from synth.matching.directional import Directional, DirectionalForm, Eager, FormChooser, StepPasses
from synth.matching.inner_loop import InnerLoop, StepLabels

# Eager runs before a capture: few, as a graph is reused as long as its network is matched.
_EAGER_RUNS = 2


class RecordedSteps:
    """Gradient and directional derivatives of the inner steps of one network, see `InnerLoop`.

    What differs between two steps of a kind (parameters, images, labels, the numbers of a view)
    is an input of the graph; what changes the kernels (shapes, the families of a view) makes
    another kind.

    Args:
        form: how directional derivatives are taken.
        record: makes a graph, see `GraphCache`.
        eager_runs: how often a kind of step is taken before it is recorded.
    """

    def __init__(
        self, form: DirectionalForm, record: Record, eager_runs: int = _EAGER_RUNS
    ) -> None:
        self._form = form
        self._graphs = GraphCache(record, eager_runs)

    def gradient(self, loop: InnerLoop, step: int, parameters: Tensor) -> Tensor:
        """As `InnerLoop.gradient`."""

        def work(inputs: Sequence[Tensor]) -> list[Tensor]:
            alone = _one_step(loop, step, inputs[1:])
            return [alone.gradient(0, inputs[0])]

        return self._run("gradient", loop, step, work, [parameters])[0]

    def directional(
        self,
        loop: InnerLoop,
        step: int,
        parameters: Tensor,
        direction: Tensor,
        with_parameters: bool,
    ) -> Directional:
        """See `DirectionalForm`."""

        def work(inputs: Sequence[Tensor]) -> list[Tensor]:
            alone = _one_step(loop, step, inputs[2:])
            return self._form(alone, 0, inputs[0], inputs[1], with_parameters).tensors()

        kind = "exact" if with_parameters else "frozen"
        outputs = self._run(kind, loop, step, work, [parameters, direction])
        parameter_part = outputs[3] if with_parameters else None
        return Directional(outputs[0], outputs[1], outputs[2], parameter_part)

    def _run(
        self, kind: str, loop: InnerLoop, step: int, work: Work, vectors: list[Tensor]
    ) -> list[Tensor]:
        inputs = [tensor.detach() for tensor in (*vectors, *_inputs(loop, step))]
        families = loop.views[step].families if loop.views is not None else None
        threads = torch.get_num_threads()
        kinds = (kind, loop.network.training, families, loop.temperature, threads)
        # The next step of this kind writes into the same memory.
        return [output.clone() for output in self._graphs.run(kinds, work, inputs)]


def _inputs(loop: InnerLoop, step: int) -> list[Tensor]:
    """Images [b, c, h, w] and labels [b, k] of a step's batch, and its view's parameters."""
    device = loop.images.device
    drawn = loop.views[step].parameters if loop.views is not None else ()
    numbers = [tensor.to(device, loop.images.dtype, non_blocking=True) for tensor in drawn]
    return [loop.images[loop.batches[step]], loop.batch_labels(step), *numbers]


def _one_step(loop: InnerLoop, step: int, inputs: Sequence[Tensor]) -> InnerLoop:
    """The loop of a single step on the tensors that `_inputs` gives."""
    images, logits, *numbers = inputs
    labels = _alone(loop, logits)
    whole = torch.arange(len(images), device=images.device)
    views = None
    if loop.views is not None:
        views = [View(loop.views[step].families, tuple(numbers))]
    return InnerLoop(loop.network, loop.layout, images, labels, [whole], views, loop.channels_last)


def _alone(loop: InnerLoop, logits: Tensor) -> Tensor | StepLabels:
    """The labels [b, k] of a step as those of a loop of that step alone."""
    if isinstance(loop.labels, Tensor):
        return logits
    return StepLabels([logits], loop.temperature)


class CompiledSteps:
    """Gradient and directional derivatives of the inner steps of one network, compiled.

    Views are applied outside, so that one program serves all of them. It is compiled at the first
    step, so that the numbers of a step do not depend on what was computed before it.

    Args:
        forms: chooses how directional derivatives are taken.
        record: makes a program, see `GraphCache`.
    """

    def __init__(self, forms: FormChooser, record: Record = compile_work) -> None:
        self._forms = forms
        self._record = record
        self._steps: RecordedSteps | None = None

    def gradient(self, loop: InnerLoop, step: int, parameters: Tensor) -> Tensor:
        """As `InnerLoop.gradient`."""
        seen = _seen(loop, step, loop.images[loop.batches[step]])
        alone = _seen_step(loop, step, seen)
        return self._made(alone, parameters).gradient(alone, 0, parameters)

    def directional(
        self,
        loop: InnerLoop,
        step: int,
        parameters: Tensor,
        direction: Tensor,
        with_parameters: bool,
    ) -> Directional:
        """See `DirectionalForm`."""
        images = loop.images[loop.batches[step]].detach().requires_grad_()
        seen = _seen(loop, step, images)
        alone = _seen_step(loop, step, seen.detach())
        steps = self._made(alone, parameters)
        found = steps.directional(alone, 0, parameters, direction, with_parameters)
        (pulled,) = torch.autograd.grad(seen, images, found.images)
        return replace(found, images=pulled)

    def _made(self, loop: InnerLoop, parameters: Tensor) -> RecordedSteps:
        if self._steps is None:
            form = self._forms.form(loop, 0, parameters, loop.gradient(0, parameters))
            self._steps = RecordedSteps(form, self._record, eager_runs=0)
        return self._steps


def _seen(loop: InnerLoop, step: int, images: Tensor) -> Tensor:
    """The images [b, c, h, w] of a step's batch as the network sees them."""
    return images if loop.views is None else loop.views[step].apply(images)


def _seen_step(loop: InnerLoop, step: int, seen: Tensor) -> InnerLoop:
    """The loop of a single step on augmented images [b, c, h, w]."""
    whole = torch.arange(len(seen), device=seen.device)
    labels = _alone(loop, loop.batch_labels(step))
    return InnerLoop(loop.network, loop.layout, seen, labels, [whole], None, channels_last=True)


class PassChooser:
    """The passes over the inner steps of every network: recorded on CUDA, eager elsewhere.

    Args:
        compiled: compile the steps of the CPU, see `CompiledSteps`.
    """

    def __init__(self, compiled: bool = False) -> None:
        self._compiled = compiled
        self._form = FormChooser()
        self._recorded: WeakKeyDictionary[nn.Module, RecordedSteps | CompiledSteps]
        self._recorded = WeakKeyDictionary()

    def passes(self, loop: InnerLoop) -> StepPasses:
        """The passes for this loop; what was recorded for its network is used again.

        Raises:
            ValueError: if steps are to be compiled and there is no C++ compiler.
        """
        on_cuda = loop.images.device.type == "cuda"
        if not on_cuda and not self._compiled:
            return Eager(self._form)
        if loop.network not in self._recorded:
            self._recorded[loop.network] = self._made(on_cuda)
        return self._recorded[loop.network]

    def _made(self, on_cuda: bool) -> RecordedSteps | CompiledSteps:
        if on_cuda:
            return RecordedSteps(self._form, GraphRecorder())
        need_compiler()
        return CompiledSteps(self._form)
