import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import Split


@pytest.fixture
def make_split() -> Callable[..., Split]:
    """Random images with `counts[k]` of class k, in mixed order; each image is different."""

    def make(counts: list[int], channels: int = 1, size: int = 4) -> Split:
        generator = torch.Generator().manual_seed(7)
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=generator)]
        images = torch.rand(len(labels), channels, size, size, generator=generator)
        return Split(images, labels)

    return make


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write one image of noise; mode "L" or "RGB"."""

    def write(path: Path, mode: str = "L", size: tuple[int, int] = (6, 6), seed: int = 0) -> Path:
        shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
        noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
        return path

    return write


@pytest.fixture
def write_classes(write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Write `count` gray images per class into one folder per class."""

    def write(root: Path, names: tuple[str, ...], count: int = 10, mode: str = "L") -> Path:
        for label, name in enumerate(names):
            for index in range(count):
                write_image(root / name / f"{index:03}.png", mode, seed=1000 * label + index)
        return root

    return write


def idx_bytes(array: np.ndarray) -> bytes:
    """The idx file of an array of bytes, from the format's definition."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    """Write an idx file, gzipped if its name ends in .gz."""

    def write(path: Path, array: np.ndarray) -> Path:
        content = idx_bytes(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def write_clothes(write_idx: Callable[..., Path]) -> Callable[..., Path]:
    """Write the four files of a small Fashion-MNIST: 4 training and 2 test images per class."""

    def write(folder: Path, suffix: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for prefix, count in (("train", 40), ("t10k", 20)):
            images = (np.arange(count * 36) % 256).astype(np.uint8)
            labels = (np.arange(count) % 10).astype(np.uint8)
            write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images.reshape(count, 6, 6))
            write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
        return folder

    return write
