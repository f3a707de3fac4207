"""Inner steps on a GPU as CUDA graphs: recorded once, and replayed without asking the CPU again.

The kernels of an inner step are so small that a GPU waits for the CPU to start them. A graph
starts all of them at once, and computes what they compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from synth.augment import View
from synth.directional import Directional, DirectionalForm, Eager, FormChooser, StepPasses
from synth.inner_loop import InnerLoop

# The same work on the same tensors each time: inputs of fixed shapes -> outputs.
Work = Callable[[Sequence[Tensor]], Sequence[Tensor]]
# Work and a first set of its inputs -> the same work, replayed.
Record = Callable[[Work, Sequence[Tensor]], Work]

# A kind of step is recorded once it was seen so often: recording costs about as much as one step,
# and kernels that are chosen or loaded at their first use have then been.
_SEEN_BEFORE = 2


class GraphRecorder:
    """Records work as CUDA graphs, all in one piece of memory: one runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Work, inputs: Sequence[Tensor]) -> Work:
        """Record `work` as a graph that reads its inputs from tensors of its own."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        kept = [tensor.detach().clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = work(kept)

        def replayed(inputs: Sequence[Tensor]) -> list[Tensor]:
            for own, given in zip(kept, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            graph.replay()
            # The next replay, of this graph or another, writes into the same memory.
            return [output.clone() for output in outputs]

        return replayed


class RecordedSteps:
    """Gradient and directional derivatives of the inner steps of one network, see `InnerLoop`.

    What differs between two steps of a kind (parameters, images, labels, the numbers of a view)
    is an input of the graph; what changes the kernels (shapes, the families of a view) makes
    another kind.

    Args:
        form: how directional derivatives are taken.
        record: makes a graph; what it refuses with a RuntimeError is never recorded.
    """

    def __init__(self, form: DirectionalForm, record: Record) -> None:
        self._form = form
        self._record = record
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, Work | None] = {}

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
        found = self._run(kind, loop, step, work, [parameters, direction])
        return Directional(found[0], found[1], found[2], found[3] if with_parameters else None)

    def _run(
        self, kind: str, loop: InnerLoop, step: int, work: Work, vectors: list[Tensor]
    ) -> Sequence[Tensor]:
        inputs = [tensor.detach() for tensor in (*vectors, *_inputs(loop, step))]
        families = loop.views[step].families if loop.views is not None else None
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        key = (kind, loop.network.training, families, shapes)
        self._seen[key] += 1
        if self._seen[key] > _SEEN_BEFORE and key not in self._graphs:
            self._graphs[key] = self._recorded(work, inputs)
        return (self._graphs.get(key) or work)(inputs)

    def _recorded(self, work: Work, inputs: Sequence[Tensor]) -> Work | None:
        try:
            return self._record(work, inputs)
        except RuntimeError:
            # A network that reads a value on its way, say: its steps are taken one by one.
            return None


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
        self._record = GraphRecorder()
        self._recorded: WeakKeyDictionary[nn.Module, RecordedSteps] = WeakKeyDictionary()

    def passes(self, loop: InnerLoop) -> StepPasses:
        """The passes for this loop; what was recorded for its network is used again."""
        if loop.images.device.type != "cuda":
            return Eager(self._form)
        if loop.network not in self._recorded:
            self._recorded[loop.network] = RecordedSteps(self._form, self._record)
        return self._recorded[loop.network]
