"""A projector as folders that other programs load; each is checked without our own classes.

peft            PEFT's adapter folder, the head, and the base if open_clip cannot fetch it
merged          open_clip's folder layout with the adapters merged, and the head
onnx            projector.onnx
torch-export    projector.pt2
compact         this package's own folder in few bits
"""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from projectors.errors import ProjectorError
from projectors.export.deployment import (
    check_export,
    export_onnx,
    export_program,
    head_tensors,
    merged_visual,
    probe_images,
)
from projectors.export.open_clip_folder import (
    is_fetched_by_name,
    loading_call,
    public_name,
    write_base,
)
from projectors.files.compact import Storage
from projectors.files.storage import (
    ADAPTER,
    ADAPTER_CONFIG,
    HEAD,
    adapter_config,
    adapter_tensors,
    load,
    save,
)
from projectors.files.tensors import safetensors_bytes
from projectors.model.projector import Projector

BASE = "base"

ABOUT = "about.json"

PROGRAM = "projector.pt2"

ONNX = "projector.onnx"


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        gap: largest difference of probabilities between the projector and the loaded export.
        lines: Python lines that load it and label `images`.
        takes: what `images` are, in a sentence.
        has_base: whether the tower is in the folder.
    """

    gap: float
    lines: list[str]
    takes: str
    has_base: bool


def export_peft(projector: Projector, folder: Path, *, base: bool | None = None) -> Exported:
    """Write the adapters for PEFT, and the head as plain numbers.

    Args:
        projector: on the CPU, with adapters.
        folder: exists.
        base: whether to write the tower too; None for only where open_clip cannot fetch it by
            name.

    Raises:
        ProjectorError: if there is no adapter, or the folder gives other probabilities.
    """
    import open_clip
    import peft

    if not projector.adapter.targets:
        raise ProjectorError("the projector has no adapter for PEFT; use --format merged")
    (folder / ADAPTER_CONFIG).write_text(adapter_config(projector), encoding="utf-8")
    (folder / ADAPTER).write_bytes(safetensors_bytes(adapter_tensors(projector)))
    _write_head(projector, folder)
    has_base = not is_fetched_by_name(projector.tower) if base is None else base
    if has_base:
        write_base(projector.tower, folder / BASE)
        clip = open_clip.create_model(f"local-dir:{folder / BASE}")
        visual = peft.PeftModel.from_pretrained(clip.visual, str(folder)).eval()
        gap = _check_parts(projector, visual, folder, "PEFT folder")
    else:
        gap = _check_parts(projector, projector.visual, folder, "PEFT folder")
    lines = [
        "import open_clip, peft, torch",
        "from safetensors.torch import load_file",
        f"clip = {loading_call(projector.tower, BASE)}",
        'encoder = peft.PeftModel.from_pretrained(clip.visual, ".").eval()',
        f'head, z = load_file("{HEAD}"), torch.nn.functional.normalize(encoder(images), dim=-1)',
        'probabilities = (head["scale"] * z @ head["weight"].T + head["bias"]).softmax(-1)',
    ]
    return Exported(gap, lines, _prepared(projector), has_base)


def export_merged(projector: Projector, folder: Path) -> Exported:
    """Write a whole open_clip model whose image encoder has the adapters in its weights."""
    import open_clip

    write_base(projector.tower, folder, merged_visual(projector))
    _write_head(projector, folder)
    clip = open_clip.create_model(f"local-dir:{folder}").eval()
    gap = _check_parts(projector, clip.visual, folder, "merged weights")
    lines = [
        "import open_clip, torch",
        "from safetensors.torch import load_file",
        'clip, head = open_clip.create_model("local-dir:.").eval(), load_file("' + HEAD + '")',
        "z = torch.nn.functional.normalize(clip.encode_image(images), dim=-1)",
        'probabilities = (head["scale"] * z @ head["weight"].T + head["bias"]).softmax(-1)',
    ]
    return Exported(gap, lines, _prepared(projector), True)


def export_as_onnx(projector: Projector, folder: Path) -> Exported:
    """Write `projector.onnx`; see `export_onnx`."""
    gap = export_onnx(projector, folder / ONNX)
    lines = [
        "import onnxruntime",
        f'session = onnxruntime.InferenceSession("{ONNX}")',
        'probabilities = session.run(None, {"images": images.numpy()})[0]',
    ]
    return Exported(gap, lines, _normalised(projector), True)


def export_as_program(projector: Projector, folder: Path) -> Exported:
    """Write `projector.pt2`; see `export_program`."""
    gap = export_program(projector, folder / PROGRAM)
    lines = ["import torch", f'probabilities = torch.export.load("{PROGRAM}").module()(images)']
    return Exported(gap, lines, _normalised(projector), True)


def export_compact(projector: Projector, folder: Path, storage: Storage | None = None) -> Exported:
    """Write this package's own folder in few bits, 8 when None; what differs is measured."""
    save(projector, folder, storage=storage or Storage(bits=8))
    loaded = load(folder, tower=projector.tower)
    with torch.no_grad():
        gaps = [float((loaded(x) - projector(x)).abs().max()) for x in probe_images(projector)]
    lines = ["import projectors", 'probabilities = projectors.load(".")(images)']
    return Exported(max(gaps), lines, _normalised(projector), False)


def write_about(projector: Projector, folder: Path, licence: str) -> None:
    """Write `about.json`: the classes, both normalisations of images, and the licence."""
    tower, space = projector.tower, projector.preprocessing
    about = {
        "classes": projector.classes,
        "images": {"mean": list(space.mean), "std": list(space.std)},
        "tower": {
            "name": public_name(tower),
            "digest": tower.digest,
            "size": list(tower.image_size),
            "mean": list(tower.mean),
            "std": list(tower.std),
        },
        "licence": licence,
    }
    text = json.dumps(about, indent=2)
    (folder / ABOUT).write_text(text + "\n", encoding="utf-8")


def _check_parts(projector: Projector, visual: nn.Module, folder: Path, what: str) -> float:
    head = safetensors.torch.load_file(folder / HEAD)

    def predict(images: Tensor) -> Tensor:
        features = functional.normalize(visual(projector.prepare(images)), dim=-1)
        return (head["scale"] * features @ head["weight"].T + head["bias"]).softmax(dim=-1)

    return check_export(projector, predict, what)


def _write_head(projector: Projector, folder: Path) -> None:
    (folder / HEAD).write_bytes(safetensors_bytes(head_tensors(projector)))


def _prepared(projector: Projector) -> str:
    height, width = projector.tower.image_size
    mean, std = list(projector.tower.mean), list(projector.tower.std)
    return (
        f"`images` [n, 3, {height}, {width}]: RGB in [0, 1], resized bilinearly, less {mean}, "
        f"divided by {std}"
    )


def _normalised(projector: Projector) -> str:
    space = projector.preprocessing
    return (
        f"`images` [n, {len(space.mean)}, h, w] of any size: pixels in [0, 1], less "
        f"{list(space.mean)}, divided by {list(space.std)}, as in the set that it labels"
    )
