"""What every test folder shares."""

import sys
from pathlib import Path

import pytest
import torch

# Pytest puts this folder on the import path, where its subfolders could pass for the packages of
# the same names; a folder without __init__.py gives way as soon as the packages are on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(0)
