"""What every test folder shares."""

import sys
from pathlib import Path

import pytest
import torch

# Pytest puts this folder on the import path, where its subfolders could pass for the packages of
# the same names; a folder without __init__.py gives way as soon as the packages are on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The tensors of the tests are tiny: a second thread only waits, and on a busy machine waits long.
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(0)
