"""Work whose kernels are recorded once, as a CUDA graph, and then started all together.

Kernels of small networks end before the CPU has started the next one, so the GPU waits. A graph
computes what they compute, and asks the CPU once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

# The same operations each time: inputs of fixed shapes -> outputs, which the next call of
# recorded work writes anew.
Work = Callable[[Sequence[Tensor]], Sequence[Tensor]]

# Work and a first set of its inputs -> the same work, replayed.
Record = Callable[[Work, Sequence[Tensor]], Work]


class GraphRecorder:
    """Records work as CUDA graphs, all in one piece of memory: one of them runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Work, inputs: Sequence[Tensor]) -> Work:
        """Record `work` as a graph that reads its inputs from tensors of its own."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        kept = [tensor.detach().clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = work(kept)

        def replayed(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
            for own, given in zip(kept, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            graph.replay()
            return outputs

        return replayed


class Recordings:
    """Kinds of work: each is done as it stands a few times, then recorded, then replayed.

    Args:
        record: makes a graph; what it refuses with a RuntimeError is never recorded.
        patience: how often a kind is done before it is recorded. Kernels are chosen and loaded at
            their first use, and recording takes the time of dozens of steps.
    """

    def __init__(self, record: Record, patience: int) -> None:
        self._record = record
        self._patience = patience
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, Work | None] = {}

    def run(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The outputs of `work`, which depends on `inputs`, their shapes and the kind alone."""
        key = (kind, tuple((tensor.shape, tensor.dtype) for tensor in inputs))
        self._seen[key] += 1
        if self._seen[key] > self._patience and key not in self._graphs:
            self._graphs[key] = self._recorded(work, inputs)
        return (self._graphs.get(key) or work)(inputs)

    def _recorded(self, work: Work, inputs: Sequence[Tensor]) -> Work | None:
        try:
            return self._record(work, inputs)
        except RuntimeError as error:
            # A network that reads a value on its way, say.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"steps are started kernel by kernel, as they could not be recorded ({reason})",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
