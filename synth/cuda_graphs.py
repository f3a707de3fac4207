"""Capture repeated work as a CUDA graph and replay it.

Small networks are bound by kernel launches: the GPU ends each kernel before the CPU has launched
the next. A graph launches all of them with one call.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

# The same operations on every call: inputs of fixed shapes -> outputs, which the next replay
# overwrites.
Work = Callable[[Sequence[Tensor]], Sequence[Tensor]]

# Work and example inputs -> the same work, replayed.
Record = Callable[[Work, Sequence[Tensor]], Work]


class GraphRecorder:
    """Captures work as CUDA graphs that share a memory pool: only one may run at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Work, inputs: Sequence[Tensor]) -> Work:
        """Capture `work` as a graph with static input tensors."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        static_inputs = [tensor.detach().clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = work(static_inputs)

        def replayed(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
            for static, given in zip(static_inputs, inputs, strict=True):
                static.copy_(given, non_blocking=True)
            graph.replay()
            return outputs

        return replayed


class GraphCache:
    """Graphs by kind of work: each kind runs eagerly a few times, is captured, then replayed.

    Args:
        record: captures a graph; work that it refuses with a RuntimeError stays eager.
        eager_runs: runs of a kind before its capture. Kernels are chosen and loaded at their
            first use, and a capture takes the time of dozens of steps.
    """

    def __init__(self, record: Record, eager_runs: int) -> None:
        self._record = record
        self._eager_runs = eager_runs
        self._runs: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, Work | None] = {}

    def run(self, kind: Hashable, work: Work, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The outputs of `work`, which depends on `inputs`, their shapes and the kind alone."""
        key = (kind, tuple((tensor.shape, tensor.dtype) for tensor in inputs))
        self._runs[key] += 1
        if self._runs[key] > self._eager_runs and key not in self._graphs:
            self._graphs[key] = self._recorded(work, inputs)
        return (self._graphs.get(key) or work)(inputs)

    def _recorded(self, work: Work, inputs: Sequence[Tensor]) -> Work | None:
        try:
            return self._record(work, inputs)
        except RuntimeError as error:
            # For example a network that synchronises with the CPU.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"steps run kernel by kernel, as a CUDA graph could not be captured ({reason})",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
