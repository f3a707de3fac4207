"""Segments shared by processes: the mean of their gradients is that of one process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed

from synth.matching.ranks import Ranks, mean_of

TWO_RANKS = """
import sys
from pathlib import Path

import torch
import torch.distributed
# Its functions keep the group that they find when they are imported: see _begin_group of
# distill/run/engines/process_group.py.
import torch.distributed.nn
from synth import Adjoint
from synth.matching.mean_gradient import MatchProblem, mean_gradient
from synth.matching.state import initial_state
from synth.networks import ConvNet
from synth.parameters import parameter_vector
from synth.matching.ranks import Ranks
from synth.matching.segments import Segment, SegmentSampler, StartWindow

torch.set_num_threads(1)
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group(
    "gloo", init_method="file://" + store, rank=rank, world_size=2
)
torch.manual_seed(0)
network = ConvNet(1, (8, 8), 4, width=4, depth=2)
vector = parameter_vector(network)
snapshots = [vector + 0.05 * k * torch.randn_like(vector) for k in range(4)]
sampler = SegmentSampler(1, StartWindow(0, 2), 3, 4)


def choose(step):
    generators = [torch.Generator().manual_seed(10 * step + i) for i in range(count)]
    return [sampler.draw(8, (8, 8), generator) for generator in generators]


def read(choice):
    return Segment(snapshots[choice.start_epoch], snapshots[choice.start_epoch + 1])


def label(segment, images):
    return images.flatten(1)[:, :4] * segment.target.sum()


state = initial_state(torch.randn(8, 1, 8, 8), torch.randn(8, 4), 0.02)
for count in (2, 3):
    for own in (None, label):
        alone, shared = (
            mean_gradient(
                state.now,
                choose(0),
                MatchProblem(network, choose, read, label=own, ranks=ranks),
                Adjoint(),
            )
            for ranks in (None, Ranks(rank, 2))
        )
        values = [torch.tensor(shared.distance), *shared.gradients, shared.labels]
        wanted = [torch.tensor(alone.distance), *alone.gradients, alone.labels]
        for found, value in zip(values, wanted, strict=True):
            assert value.abs().max() > 0
            assert torch.equal(found, value)
    torch.save(shared.gradients[0], f"{out}-{count}-{rank}.pt")
torch.distributed.destroy_process_group()
threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
assert not [name for name in threads if "gloo" in name], threads
"""


def test_two_processes_average_the_gradients_of_their_segments(tmp_path: Path) -> None:
    program = tmp_path / "rank.py"
    program.write_text(TWO_RANKS)
    words = [sys.executable, str(program)]
    files = [str(tmp_path / "store"), str(tmp_path / "out")]
    running = [
        subprocess.Popen([*words, str(rank), *files], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    # Both are waited for before anything is said: a pipe left open is another test's warning.
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    for count in (2, 3):
        first, second = (torch.load(f"{files[1]}-{count}-{rank}.pt") for rank in range(2))
        assert torch.equal(first, second)


def test_segments_are_shared_and_none_is_left_without_one() -> None:
    assert [list(Ranks(rank, 2).share([0, 1, 2])) for rank in range(2)] == [[0], [1, 2]]
    assert [len(Ranks(rank, 4).share(range(9))) for rank in range(4)] == [2, 2, 2, 3]
    with pytest.raises(ValueError, match=r"1 segment.*match\.segments"):
        Ranks(0, 2).share([0])


@pytest.mark.cuda
def test_nccl_gives_the_mean_of_the_segments_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    # A GPU has one rank of nccl: this is the message and its way, alone.
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        parts = [
            [torch.full((2, 3), float(i), device="cuda"), torch.ones(4, device="cuda")]
            for i in (1, 3)
        ]
        means = mean_of(parts, 2, Ranks(0, 1))
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(means[0], torch.full((2, 3), 2.0, device="cuda"))
    assert torch.equal(means[1], torch.ones(4, device="cuda"))
