"""Freed memory that is kept."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from distill.run.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
before = 0
for turn in range(30):
    torch.ones(12 * 2**20)
    if turn == 19:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    """Pages that the system gives for ten tensors of 48 MiB, after twenty others."""
    words = [sys.executable, "-c", PROGRAM, word]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_large_tensors_are_not_mapped_anew() -> None:
    # 122,880 pages of 4 KiB; fewer where the system has larger ones.
    assert faults("kept") * 10 < faults("as it is")
