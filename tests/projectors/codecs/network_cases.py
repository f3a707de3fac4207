"""Payloads that hold a network instead of labels: what they are made of and what they decode to."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import projectors
from projectors.codecs import Dense, Weights
from projectors.codecs.residual import pack_residual, unpack_residual
from projectors.files.archive import pack_projector, unpack_projector
from tests.projectors.codecs.checks import fixture_labels

ABOUT = {"members": ["mlp"], "weights": [1.0]}


def waves(*shape, step=1):
    """Numbers in (-1, 1) that no library's random numbers decide."""
    count = torch.Size(shape).numel()
    return torch.sin(step * torch.arange(count, dtype=torch.float64) ** 2).reshape(shape).float()


def state():
    """Kernels, a matrix, a vector and a counter."""
    return {
        "kernel": waves(3, 2, 3, 3),
        "matrix": waves(4, 12, step=2),
        "bias": waves(4, step=3),
        "steps": torch.tensor(7),
    }


def mask():
    """[4, 5] of the labels that are stored besides."""
    return waves(4, 5) > 0.5


def make_weights(bits):
    return lambda folder: Weights(bits).encode(state(), ABOUT)


def make_residual(folder):
    labels = fixture_labels()
    network = Weights(8).encode(state(), ABOUT)
    return pack_residual(network, labels.logits, labels.temperature, mask(), Dense())


def make_projector(folder):
    """A projector of two classes; its tower is drawn from a seed, so it is no part of it."""
    tower = projectors.load_tower("config:tiny-vit", seed=0)
    projector = projectors.build_projector(
        tower,
        ["zero", "one"],
        projectors.Preprocessing((0.3,), (0.4,)),
        adapter=projectors.AdapterSettings(rank=1, alpha=4),
        head=projectors.HeadSettings(trained="scale"),
    )
    projectors.save(projector, folder / "projector")
    return pack_projector(folder / "projector", {"epochs": 4, "temperature": 2.0})


def read_weights(bits):
    def read(payload):
        found, about = Weights(bits).decode(payload)
        assert about == ABOUT
        return {name: value.float() for name, value in found.items()}

    return read


def read_residual(payload):
    network, residual = unpack_residual(payload)
    labels = residual.over(torch.zeros(4, 5, 6))
    return {**read_weights(8)(network), "labels": labels, "mask": residual.mask.float()}


def read_projector(payload):
    """Digests of its files: whether they can be loaded hangs on the tower, not on the archive."""
    with TemporaryDirectory() as folder:
        about = unpack_projector(payload, Path(folder))
        assert about == {"epochs": 4, "temperature": 2.0}
        return {
            path.name: torch.tensor(list(hashlib.sha256(path.read_bytes()).digest())).float()
            for path in Path(folder).iterdir()
        }


# Name: (folder to work in -> payload, payload -> arrays by name).
NETWORKS = {
    "weights-8": (make_weights(8), read_weights(8)),
    "weights-3": (make_weights(3), read_weights(3)),
    "residual": (make_residual, read_residual),
    "projector": (make_projector, read_projector),
}
