"""Projectors as folders: a PEFT adapter, the fitted part of the head, and a description.

    projector/
        projector.json              tower, classes, prompts, preprocessing, digests of the files
        adapter_config.json         PEFT's own format, so that PEFT loads the adapter alone
        adapter_model.safetensors
        head.safetensors            only what was fitted of the head

The tower itself is not in it; its digest is. The same projector gives the same bytes.
"""

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from projectors.description import DESCRIPTION, Description, read_description
from projectors.errors import ProjectorError
from projectors.head import Head, build_head
from projectors.projector import Projector, adapted_visual
from projectors.tower import Tower, load_tower

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
HEAD = "head.safetensors"


def save(projector: Projector, path: str | os.PathLike[str]) -> None:
    """Write a projector to a folder.

    The folder is written beside its place and then renamed, so that there is never half of
    one. A projector that is already there is replaced; until the new one is in place the old
    one is kept beside it as `.NAME.previous`.

    Args:
        projector: on any device.
        path: the folder; its parent is made where it does not exist.

    Raises:
        ProjectorError: if something else is there.
    """
    place = Path(path).resolve()
    if place.exists() and not (place / DESCRIPTION).is_file():
        if not place.is_dir() or any(place.iterdir()):
            raise ProjectorError(f"{path} exists and is no projector; choose another folder")
        place.rmdir()
    files = _payload(projector)
    files[DESCRIPTION] = _description(projector, files).encode()
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        fresh.mkdir()
        for name, content in files.items():
            _write(fresh / name, content)
        _publish(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load(path: str | os.PathLike[str], tower: Tower | None = None) -> Projector:
    """Read a projector: a callable from images [n, c, h, w] to probabilities [n, k].

    Args:
        path: a folder that `save` wrote.
        tower: its tower, where it is already loaded or lies elsewhere than it did; None loads
            the one that the folder names.

    Returns:
        The projector, on the CPU and in eval mode.

    Raises:
        ProjectorError: if the folder is damaged or no projector, or its tower is not here.
    """
    folder = Path(path)
    description = read_description(folder)
    for name, digest in description.files.items():
        _check_file(folder / name, digest)
    if tower is None:
        try:
            tower = load_tower(description.tower_spec, description.tower_seed)
        except ProjectorError as error:
            raise ProjectorError(
                f"{path} needs its tower: {error}; or pass it with load(path, tower=...)"
            ) from error
    if tower.digest != description.tower_digest:
        raise ProjectorError(
            f"{path} was fitted on a tower with the digest {description.tower_digest[:12]}, but "
            f"{tower.spec!r} has {tower.digest[:12]}; fetch the same weights, or pass them with "
            "load(path, tower=load_tower(...))"
        )
    visual = _load_visual(folder, tower, description)
    head = _load_head(folder, tower, description)
    return Projector(
        tower,
        visual,
        head,
        description.classes,
        description.preprocessing,
        description.adapter,
        description.head,
    )


def _payload(projector: Projector) -> dict[str, bytes]:
    """Contents of every file but the description, by name."""
    files: dict[str, bytes] = {}
    if projector.adapter.rank:
        files[ADAPTER_CONFIG] = _adapter_config(projector).encode()
        files[ADAPTER] = _pack(_adapter_tensors(projector.visual))
    fitted = _fitted(projector.head)
    if fitted:
        files[HEAD] = _pack(fitted)
    return files


def _description(projector: Projector, files: dict[str, bytes]) -> str:
    tower = projector.tower
    return Description(
        tower_spec=tower.spec,
        tower_seed=tower.seed,
        tower_digest=tower.digest,
        external_bytes=tower.external_bytes,
        classes=projector.classes,
        preprocessing=projector.preprocessing,
        adapter=projector.adapter,
        head=projector.head_settings,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    ).to_json()


def _adapter_config(projector: Projector) -> str:
    # PEFT's own writer adds its version, and the targets as a set in the order of their hashes.
    adapter = asdict(projector.adapter)
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": adapter["alpha"],
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": adapter["rank"],
        "target_modules": sorted(adapter["targets"]),
        "task_type": None,
    }
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _adapter_tensors(visual: nn.Module) -> dict[str, Tensor]:
    import peft

    return dict(peft.get_peft_model_state_dict(visual))


def _fitted(head: Head) -> dict[str, Tensor]:
    return {name: value.data for name, value in head.named_parameters() if value.requires_grad}


def _pack(tensors: dict[str, Tensor]) -> bytes:
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={"format": "pt"})


def _load_visual(folder: Path, tower: Tower, description: Description) -> nn.Module:
    import peft

    visual, settings = adapted_visual(tower, description.adapter)
    if settings.rank:
        tensors = _unpack(folder / ADAPTER, _adapter_tensors(visual))
        peft.set_peft_model_state_dict(visual, tensors)
    return visual


def _load_head(folder: Path, tower: Tower, description: Description) -> Head:
    settings, num_classes = description.head, len(description.classes)
    if settings.trained == "all":
        # Every number of it is in the file: the text encoder is not needed.
        head = Head(torch.zeros(num_classes, tower.embed_dim), 1.0, settings.trained)
    else:
        head = build_head(tower, description.classes, settings)
    if settings.trained != "nothing":
        head.load_state_dict(_unpack(folder / HEAD, _fitted(head)), strict=False)
    return head


def _unpack(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which must have the names and shapes of those wanted."""
    try:
        found = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ProjectorError(f"{path} is damaged or foreign ({error}); fetch it again") from error
    for name in sorted(set(found) | set(wanted)):
        came = tuple(found[name].shape) if name in found else "no such tensor"
        need = tuple(wanted[name].shape) if name in wanted else "no such tensor"
        if came != need:
            raise ProjectorError(
                f"{path} holds {came} for {name}, but the classes and adapters in {DESCRIPTION} "
                f"need {need}; the files do not belong together, fetch the whole folder again"
            )
    return found


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise ProjectorError(f"{path} is missing; fetch the whole folder again")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise ProjectorError(
            f"{path} has the digest {found[:12]}, but {DESCRIPTION} names {digest[:12]}: it is "
            "damaged or foreign; fetch the whole folder again"
        )


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _publish(fresh: Path, place: Path) -> None:
    """Rename a finished folder into its place; the old one survives every failure."""
    previous = place.with_name(f".{place.name}.previous")
    if place.exists():
        shutil.rmtree(previous, ignore_errors=True)
        place.rename(previous)
    try:
        fresh.rename(place)
    except OSError:
        if previous.exists():
            previous.rename(place)
        raise
    shutil.rmtree(previous, ignore_errors=True)
