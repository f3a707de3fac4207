"""The shape of glyphclip, its loss, and its folder in open_clip's layout."""

import json
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from glyphclip.tokens import CONTEXT

IMAGE_SIZE = 64
MEAN, STD = 0.5, 0.5


def describe(vocabulary: int) -> dict[str, Any]:
    """The content of `open_clip_config.json` for a table of so many tokens.

    A modified ResNet, as CLIP's RN50, with one block a stage and a quarter of the width: 1.36
    million parameters in an image encoder, 0.54 million in a text encoder.
    """
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "layers": [1, 1, 1, 1],
                "width": 16,
                "head_width": 64,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "glyphclip",
                "width": 128,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    }


def build(vocabulary: int, seed: int) -> open_clip.CLIP:
    """A fresh model with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = open_clip.CLIP(**describe(vocabulary)["model_cfg"])
    clip.visual.to(memory_format=torch.channels_last)
    return clip


def encode_images(clip: open_clip.CLIP, images: Tensor) -> Tensor:
    """Features [n, d] of length 1 of gray images [n, 1, h, w] in [0, 1]."""
    seen = ((images - MEAN) / STD).expand(-1, 3, -1, -1)
    return functional.normalize(clip.visual(seen.contiguous(memory_format=torch.channels_last)))


def contrastive_loss(scores: Tensor, classes: Tensor) -> Tensor:
    """CLIP's loss where several images share a prompt.

    Args:
        scores: [n, k] scaled cosines of images and prompts.
        classes: [n] the prompt of each image; each of the k has at least one image.

    Returns:
        The mean of the cross-entropy of prompts given images, and of images given prompts,
        where each of a prompt's images counts alike. Source: Radford et al. 2021; Khosla et al.
        2020 (several positives, outside the logarithm).
    """
    prompts = functional.cross_entropy(scores, classes)
    own = scores.log_softmax(dim=0).gather(1, classes[:, None])[:, 0]
    counts = torch.bincount(classes, minlength=scores.shape[1])
    images = -(own / counts[classes]).sum() / scores.shape[1]
    return (prompts + images) / 2


def save(clip: open_clip.CLIP, vocabulary: int, folder: Path) -> None:
    """Write weights in half precision, and the configuration."""
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in clip.state_dict().items()
        if name != "attn_mask"
    }
    packed = {name: value.contiguous() for name, value in halves.items()}
    content = safetensors.torch.save(packed, metadata={"format": "pt"})
    (folder / "open_clip_model.safetensors").write_bytes(content)
    text = json.dumps(describe(vocabulary), indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n", "utf-8")
