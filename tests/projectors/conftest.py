"""Towers small enough for every test."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import projectors
from projectors.model.random_tower import draw_weights
from tests.projectors.cases import DIGITS, GRAY


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tower():
    return projectors.load_tower("config:tiny-vit", seed=0)


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory) -> Path:
    """A modified ResNet in open_clip's folder layout, none of whose branches is dead."""
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
    }
    with torch.random.fork_rng():
        clip = open_clip.CLIP(**config)
    draw_weights(clip, torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("resnet")
    document = {"model_cfg": config, "preprocess_cfg": {"mean": [0.4] * 3, "std": [0.2] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    safetensors.torch.save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def resnet(resnet_folder):
    return projectors.load_tower(f"folder:{resnet_folder}")


@pytest.fixture(scope="session")
def digits():
    """Images [1797, 1, 8, 8] in the space of GRAY, and hard labels [1797]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images / 16.0, dtype=torch.float32)[:, None]
    return (images - GRAY.mean[0]) / GRAY.std[0], torch.tensor(data.target)


@pytest.fixture
def stirred(tower):
    """A function that builds a projector all of whose trained numbers have moved."""

    def build(trained="all", rank=2, on=None, init="text", ranks=None, head_rank=2):
        projector = projectors.build_projector(
            on or tower,
            DIGITS,
            GRAY,
            adapter=projectors.AdapterSettings(rank=rank, alpha=4, ranks=ranks or {}),
            head=projectors.HeadSettings(trained=trained, init=init, rank=head_rank),
        )
        generator = torch.Generator().manual_seed(7)
        for parameter in projector.parameters():
            if parameter.requires_grad:
                noise = torch.rand(parameter.shape, generator=generator) - 0.5
                parameter.data.add_(0.2 * noise)
        return projector

    return build


@pytest.fixture
def images():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 0.7
