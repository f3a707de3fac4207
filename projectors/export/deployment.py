"""A projector as one plain network, and as programs that run without this package."""

import importlib.util
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from projectors.errors import ProjectorError
from projectors.model.lora import merge_adapters
from projectors.model.projector import Projector

TOLERANCE = 1e-4

_LARGEST_SIDE = 4096

# The exporter of torch needs the first two.
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Predict = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """Images [n, c, h, w] -> probabilities [n, k], the adapters merged; nothing of PEFT.

    Args:
        projector: is left as it is.
    """

    def __init__(self, projector: Projector) -> None:
        super().__init__()
        self.preparation = projector.preparation
        self.visual = merged_visual(projector)
        self.head = projector.head
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities [n, k] of images [n, c, h, w]."""
        return self.logits(images).softmax(dim=-1)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w], faster than with separate adapters."""
        logits: Tensor = self.head(self.visual(self.preparation(images)))
        return logits


def merged_visual(projector: Projector) -> nn.Module:
    """The image encoder with the adapters added into its weights."""
    return merge_adapters(projector.visual) if projector.adapter.targets else projector.visual


def head_tensors(projector: Projector) -> dict[str, Tensor]:
    """The head as plain numbers: scale * normalised features @ weight.T + bias are the logits.

    Returns:
        "weight" [k, d], "scale" [] and "bias" [k].
    """
    head = projector.head
    with torch.no_grad():
        return {
            "weight": head.directions().detach().clone(),
            "scale": head.log_scale.exp(),
            "bias": head.bias.detach().clone(),
        }


def probe_images(projector: Projector) -> list[Tensor]:
    """Batches of random images, normalised for the projector, of two sizes and lengths."""
    generator = Generator().manual_seed(0)
    channels = len(projector.preprocessing.mean)
    height, width = projector.tower.image_size
    shapes = [(2, channels, height, width), (3, channels, height // 2 + 3, width // 2 + 2)]
    mean = torch.tensor(projector.preprocessing.mean).view(1, -1, 1, 1)
    std = torch.tensor(projector.preprocessing.std).view(1, -1, 1, 1)
    return [(torch.rand(shape, generator=generator) - mean) / std for shape in shapes]


def check_export(projector: Projector, predict: Predict, what: str) -> float:
    """The largest difference of probabilities between a projector and an export of it.

    Args:
        projector: on the CPU.
        predict: images as the projector takes them -> probabilities, without our own classes.
        what: the format, for the message.

    Raises:
        ProjectorError: if it exceeds 1e-4.
    """
    gaps = []
    with torch.no_grad():
        for images in probe_images(projector):
            gaps.append(float((predict(images) - projector(images)).abs().max()))
    if not max(gaps) <= TOLERANCE:
        raise ProjectorError(
            f"the projector as {what} gives probabilities that differ by {max(gaps):.1e}, more "
            f"than {TOLERANCE:g}; use another format"
        )
    return max(gaps)


def export_program(projector: Projector, path: Path) -> float:
    """Write a `torch.export` program of any batch and image size; returns `check_export`."""
    # Straight to a file, torch ends the process when the disk is full.
    content = BytesIO()
    torch.export.save(_program(projector), content)
    path.write_bytes(content.getbuffer())
    loaded = torch.export.load(path).module()
    return check_export(projector, loaded, "torch.export program")


def export_onnx(projector: Projector, path: Path) -> float:
    """Write an ONNX model of any batch and image size, checked with ONNX Runtime.

    Its input is `images` [n, c, h, w] and its output `probabilities` [n, k].

    Raises:
        ProjectorError: if the extra `onnx` is not installed, or the model differs.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ProjectorError(f"{missing[0]} is not installed; pip install 'limbeck[onnx]'")
    import onnxruntime

    program = torch.onnx.export(
        _program(projector),
        (),
        dynamo=True,
        input_names=["images"],
        output_names=["probabilities"],
        verbose=False,
    )
    if program is None:
        raise ProjectorError("torch made no ONNX program; use another format")
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def predict(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return check_export(projector, predict, "ONNX model")


def _program(projector: Projector) -> torch.export.ExportedProgram:
    network = Deployed(projector).requires_grad_(False)
    count = torch.export.Dim("n")
    height, width = (torch.export.Dim(name, min=2, max=_LARGEST_SIDE) for name in ("h", "w"))
    # torch.export specialises on sizes of 0 and 1, so the example has neither.
    example = probe_images(projector)[1]
    try:
        return torch.export.export(
            network, (example,), dynamic_shapes=({0: count, 2: height, 3: width},)
        )
    # torch.export raises errors of its own, without a common base.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ProjectorError(
            f"torch.export cannot trace this tower ({reason}); use --format merged"
        ) from error
