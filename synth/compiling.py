"""Compiled programs of inner steps and of networks: fewer passes over memory.

They compute the same up to rounding: a compiled and an eager training differ in their last bits.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from synth.convolution_backward import convolution_backward
from synth.cuda_graphs import Work

Options = dict[str, str | int | bool | Callable[..., Any]]

Network = Callable[[Tensor], Tensor]

_aten = torch.ops.aten

# What has the zeros of its first argument.
_VIEWS = (_aten.expand.default, _aten.view.default, _aten.alias.default, _aten.detach.default)

_ZEROS = (_aten.zeros.default, _aten._efficientzerotensor.default)

_DECOMPOSITIONS = {_aten.convolution_backward.default: convolution_backward}

# By default, what several operations read is written to memory once it takes a few reads. In a
# derivative of a norm these are whole images, and computing them again is cheaper.
_FEW_BUFFERS = {"realize_reads_threshold": 100, "realize_opcount_threshold": 1000}


def find_compiler() -> str | None:
    """The C++ compiler that `torch.compile` would use on this machine, or None."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", default))


def need_compiler() -> None:
    """Raises ValueError where there is no C++ compiler."""
    if find_compiler() is None:
        raise ValueError(
            "compiled steps need a C++ compiler, and none was found: install g++, name another "
            "one in the environment variable CXX, or choose compiled=False"
        )


def compile_work(work: Work, inputs: Sequence[Tensor]) -> Work:
    """`work` as one program for inputs of these shapes, see `synth.cuda_graphs.Record`.

    `work` is traced on `inputs`, its derivatives included, so it must do the same for every
    input. Needs a C++ compiler, and a minute or so; torch keeps what it compiled in a cache on
    the disk.
    """
    with torch.enable_grad():
        traced = make_fx(lambda *given: tuple(work(given)), _DECOMPOSITIONS)(*inputs)
    drop_zeros(traced)
    # Named, or a program from the cache on the disk could be for another number of threads.
    options: Options = {**_FEW_BUFFERS, "cpp.threads": torch.get_num_threads()}
    compiled = torch.compile(traced, dynamic=False, options=options)

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        # The program computes derivatives; it is not to be differentiated again.
        with torch.no_grad():
            return compiled(*inputs)

    run(inputs)
    return run


def drop_zeros(traced: fx.GraphModule) -> None:
    """Replace convolutions of zeros, in place.

    Forward-mode differentiation carries a tangent of zeros for images that have none.
    """
    zeros: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.target in _ZEROS or (node.target in _VIEWS and node.args[0] in zeros):
            zeros.add(node)
        elif node.target is _aten.convolution.default and node.args[0] in zeros:
            if node.args[2] is None:
                _fill(traced.graph, node, node.meta["val"].shape)
        elif node.target is _aten.convolution_backward.default and node.args[1] in zeros:
            wanted = list(node.args[-1])
            for item in list(node.users):
                if item.args[1] == 1:
                    _fill(traced.graph, item, item.meta["val"].shape)
            node.args = (*node.args[:-1], [wanted[0], False, wanted[2]])
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _fill(graph: fx.Graph, node: fx.Node, shape: torch.Size) -> None:
    with graph.inserting_before(node):
        value = node.meta["val"]
        zeros = graph.call_function(
            _aten.full.default, (list(shape), 0.0), {"dtype": value.dtype, "device": value.device}
        )
        zeros.meta["val"] = value
        node.replace_all_uses_with(zeros)
        graph.erase_node(node)


class CompiledNetwork:
    """A network whose batches of one shape run compiled, and all others as they are.

    The last batch of an epoch is often smaller; it is not worth a compilation of its own.

    Args:
        network: images [b, c, h, w] -> logits [b, k].
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._compiled: Network = torch.compile(network, dynamic=False)
        self._shape: torch.Size | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of a batch."""
        if self._shape is None:
            self._shape = images.shape
        if images.shape == self._shape:
            return self._compiled(images)
        logits: Tensor = self._network(images)
        return logits
