"""Inner steps on a GPU as CUDA graphs: recorded once, and replayed without asking the CPU again."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from synth.augment import View
from synth.cuda_graphs import GraphCache, GraphRecorder, Record, Work
from synth.matching.directional import Directional, DirectionalForm, Eager, FormChooser, StepPasses
from synth.matching.inner_loop import InnerLoop

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
    """

    def __init__(self, form: DirectionalForm, record: Record) -> None:
        self._form = form
        self._graphs = GraphCache(record, _EAGER_RUNS)

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
        kinds = (kind, loop.network.training, families)
        # The next step of this kind writes into the same memory.
        return [output.clone() for output in self._graphs.run(kinds, work, inputs)]


def _inputs(loop: InnerLoop, step: int) -> list[Tensor]:
    """Images [b, c, h, w] and labels [b, k] of a step's batch, and its view's parameters."""
    batch, device = loop.batches[step], loop.images.device
    drawn = loop.views[step].parameters if loop.views is not None else ()
    numbers = [tensor.to(device, loop.images.dtype, non_blocking=True) for tensor in drawn]
    return [loop.images[batch], loop.labels[batch], *numbers]


def _one_step(loop: InnerLoop, step: int, inputs: Sequence[Tensor]) -> InnerLoop:
    """The loop of a single step on the tensors that `_inputs` gives."""
    images, labels, *numbers = inputs
    whole = torch.arange(len(images), device=images.device)
    views = None
    if loop.views is not None:
        views = [View(loop.views[step].families, tuple(numbers))]
    return InnerLoop(loop.network, loop.layout, images, labels, [whole], views)


class PassChooser:
    """The passes over the inner steps of every network: recorded on CUDA, eager elsewhere."""

    def __init__(self) -> None:
        self._form = FormChooser()
        self._recorded: WeakKeyDictionary[nn.Module, RecordedSteps] = WeakKeyDictionary()

    def passes(self, loop: InnerLoop) -> StepPasses:
        """The passes for this loop; what was recorded for its network is used again."""
        if loop.images.device.type != "cuda":
            return Eager(self._form)
        if loop.network not in self._recorded:
            self._recorded[loop.network] = RecordedSteps(self._form, GraphRecorder())
        return self._recorded[loop.network]
