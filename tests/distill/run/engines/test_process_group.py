"""Nothing of a group of processes is left when it is over."""

import os
import socket
import subprocess
import sys

PROGRAM = """
from pathlib import Path

import torch
from distill.run.engines.process_group import joined


def of_gloo():
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


with joined(torch.device("cpu"), ["match"]) as group:
    assert group.ranks.world == 2
    assert of_gloo()
    # As the first outer step does.
    import torch._dynamo
    import torch.distributed.nn

    assert group.leads or not group.told()
assert not of_gloo()
"""


def test_no_thread_of_a_group_outlives_it():
    """One that is left aborts the process now and then while Python ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
