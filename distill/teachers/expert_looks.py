"""What the experts of a run say of images, at any of their epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from distill.run.artefacts import EXPERTS, EXPERTS_STAGE
from distill.run.context import Context
from distill.store.experts import read_info, read_snapshots
from synth.parameters import load_vector

# A network -> what it says of the real images, [m] or [m, k].
Look = Callable[[nn.Module], Tensor]


def expert_looks(context: Context, epochs: Sequence[int], look: Look) -> Iterator[Iterator[Tensor]]:
    """What each expert of the first network says after these epochs, one after the other."""
    path = context.run.path / EXPERTS
    info = read_info(path)
    network = context.network(info.network, EXPERTS_STAGE, 0).eval()

    def of_expert(expert: int) -> Iterator[Tensor]:
        for epoch in epochs:
            context.stop.check()
            snapshot, _ = read_snapshots(path, expert, (epoch, epoch))
            load_vector(network, snapshot.to(context.device))
            yield look(network)

    return (of_expert(expert) for expert in info.networks[0].experts)
