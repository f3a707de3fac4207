"""Projectors as folders: a PEFT adapter, the fitted part of the head, and a description.

    projector/
        projector.json              tower, classes, prompts, preprocessing, digests of the files
        adapter_config.json         PEFT's own format, so that PEFT loads the adapter alone
        adapter_model.safetensors
        head.safetensors            only what was fitted of the head

With `Storage(bits=8)` or 4 one file, fitted.bin, replaces the last three. The
tower itself is not in the folder; its digest is. The same projector gives the same bytes.
"""

import copy
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from projectors.errors import ProjectorError
from projectors.files.compact import Storage, pack_compact, unpack_compact
from projectors.files.description import DESCRIPTION, Description, TowerRecord, read_description
from projectors.files.tensors import (
    check_file,
    read_compact,
    read_tensors,
    safetensors_bytes,
    write_durably,
)
from projectors.fitting.fidelity import Fidelity
from projectors.model.head import Head, build_head
from projectors.model.lora import rank_pattern
from projectors.model.projector import Projector, adapted_visual
from projectors.model.targets import target_ranks
from projectors.model.tower import Tower, load_tower

ADAPTER = "adapter_model.safetensors"

ADAPTER_CONFIG = "adapter_config.json"

HEAD = "head.safetensors"

COMPACT = "fitted.bin"


def save(
    projector: Projector,
    path: str | os.PathLike[str],
    *,
    storage: Storage | None = None,
    fidelity: Fidelity | None = None,
) -> None:
    """Write a projector to a folder.

    The folder is written under a temporary name and then renamed, so that it is never there in
    part. A projector that is already there is replaced; until the new one is in place the old
    one is kept beside it as `.NAME.previous`.

    Args:
        projector: on any device.
        path: the folder; its parent is made where it does not exist.
        storage: how the fitted numbers are written; float32 by default.
        fidelity: measured on images held out of the fit, for the reader.

    Raises:
        ProjectorError: if something else is there, or a library for `storage` is missing.
    """
    files = projector_files(projector, storage or Storage(), fidelity)
    write_folder(files, path)


def projector_files(
    projector: Projector, storage: Storage, fidelity: Fidelity | None
) -> dict[str, bytes]:
    """Contents of every file of a projector's folder, by name."""
    files = _payload(projector, storage)
    files[DESCRIPTION] = _description(projector, files, storage, fidelity).encode()
    return files


def write_folder(files: dict[str, bytes], path: str | os.PathLike[str]) -> None:
    """Write a folder that `projector.json` marks as ours, or replace one, as a whole.

    Raises:
        ProjectorError: if something else is there.
    """
    target = Path(path).resolve()
    if target.exists() and not (target / DESCRIPTION).is_file():
        if not target.is_dir() or any(target.iterdir()):
            raise ProjectorError(f"{path} exists and is no projector; choose another folder")
        target.rmdir()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            write_durably(fresh / name, content)
        _publish(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load(
    path: str | os.PathLike[str],
    tower: Tower | None = None,
    classes: Sequence[str] | None = None,
    *,
    download: bool = False,
) -> Projector:
    """Read a projector: a callable from images [n, c, h, w] to probabilities [n, k].

    Args:
        path: a folder that `save` wrote.
        tower: its tower, if it is already loaded or has moved; None loads the one that the folder
            names.
        classes: the k names, in order, of the data to label; None does not check.
        download: fetch what is missing of the tower; otherwise nothing asks the network.

    Returns:
        The projector, on the CPU and in eval mode.

    Raises:
        ProjectorError: if the folder is damaged or no projector, its tower is not here or
            another one, or it was fitted to other classes.
    """
    folder = Path(path)
    description = read_description(folder)
    for name, digest in description.files.items():
        check_file(folder / name, digest, DESCRIPTION)
    if classes is not None:
        description.check_classes(str(path), classes)
    if tower is None:
        try:
            tower = load_tower(description.tower.spec, description.tower.seed, download=download)
        except ProjectorError as error:
            raise ProjectorError(
                f"{path} needs its tower, {description.tower.wanted()}: {error}; fetch it, or "
                "pass it with load(path, tower=load_tower(...))"
            ) from error
    description.tower.check(str(path), tower)
    visual, head = _load_parts(folder, tower, description)
    return Projector(
        tower,
        visual,
        head,
        description.classes,
        description.preprocessing,
        description.adapter,
        description.head,
    )


def rounded(projector: Projector, storage: Storage) -> Projector:
    """A projector as a receiver loads it: with the fitted numbers rounded as in the file.

    Raises:
        ProjectorError: if a number is not finite, or a library for `storage` is missing.
    """
    if storage.bits == 32:
        return projector
    visual, head = copy.deepcopy(projector.visual), copy.deepcopy(projector.head)
    adapter = _peft_tensors(visual) if projector.adapter.targets else {}
    fitted = _prefixed(adapter, _fitted(head))
    shapes = {name: value.shape for name, value in fitted.items()}
    _fill(visual, head, unpack_compact(pack_compact(fitted, storage), shapes))
    return Projector(
        projector.tower,
        visual,
        head,
        projector.classes,
        projector.preprocessing,
        projector.adapter,
        projector.head_settings,
    ).to(next(projector.parameters()).device)


def _payload(projector: Projector, storage: Storage) -> dict[str, bytes]:
    """Contents of every file but the description, by name."""
    adapter, fitted = adapter_tensors(projector), _fitted(projector.head)
    if storage.bits < 32:
        return {COMPACT: pack_compact(_prefixed(adapter, fitted), storage)}
    files: dict[str, bytes] = {}
    if adapter:
        files[ADAPTER_CONFIG] = adapter_config(projector).encode()
        files[ADAPTER] = safetensors_bytes(adapter)
    if fitted:
        files[HEAD] = safetensors_bytes(fitted)
    return files


def _prefixed(adapter: dict[str, Tensor], head: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        **{f"adapter.{name}": value for name, value in adapter.items()},
        **{f"head.{name}": value for name, value in head.items()},
    }


def _description(
    projector: Projector, files: dict[str, bytes], storage: Storage, fidelity: Fidelity | None
) -> str:
    return Description(
        tower=TowerRecord.of(projector.tower),
        classes=projector.classes,
        preprocessing=projector.preprocessing,
        adapter=projector.adapter,
        head=projector.head_settings,
        storage=storage,
        fidelity=fidelity,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    ).to_json()


def adapter_config(projector: Projector) -> str:
    """The text of PEFT's adapter_config.json."""
    # PEFT's own writer is not deterministic: it adds its version, and the targets as a set.
    adapter = projector.adapter
    ranks = target_ranks(
        projector.tower.clip.visual, adapter.targets or (), adapter.rank, adapter.ranks
    )
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": max(ranks.values()),
        "rank_pattern": rank_pattern(ranks),
        "target_modules": sorted(ranks),
        "task_type": None,
    }
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def adapter_tensors(projector: Projector) -> dict[str, Tensor]:
    """The adapters' tensors under PEFT's names; none for a projector without adapters."""
    return _peft_tensors(projector.visual) if projector.adapter.targets else {}


def _peft_tensors(visual: nn.Module) -> dict[str, Tensor]:
    import peft

    return dict(peft.get_peft_model_state_dict(visual))


def _fitted(head: Head) -> dict[str, Tensor]:
    return {name: value.data for name, value in head.named_parameters() if value.requires_grad}


def _load_parts(folder: Path, tower: Tower, description: Description) -> tuple[nn.Module, Head]:
    visual, settings = adapted_visual(tower, description.adapter)
    head = _empty_head(tower, description)
    adapter = _peft_tensors(visual) if settings.targets else {}
    fitted = _fitted(head)
    if description.storage.bits < 32:
        tensors = read_compact(folder / COMPACT, _prefixed(adapter, fitted))
    else:
        tensors = _prefixed(
            read_tensors(folder / ADAPTER, adapter) if adapter else {},
            read_tensors(folder / HEAD, fitted) if fitted else {},
        )
    _fill(visual, head, tensors)
    return visual, head


def _fill(visual: nn.Module, head: Head, tensors: dict[str, Tensor]) -> None:
    """Put the tensors of `_prefixed` into an encoder and a head."""
    import peft

    parts: dict[str, dict[str, Tensor]] = {"adapter": {}, "head": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    if parts["adapter"]:
        peft.set_peft_model_state_dict(visual, parts["adapter"])
    head.load_state_dict(parts["head"], strict=False)


def _empty_head(tower: Tower, description: Description) -> Head:
    """The head before its fitted numbers are filled in."""
    if description.head.trained == "all":
        # All its numbers are in the file, so the text encoder is not needed.
        weight = torch.zeros(len(description.classes), tower.embed_dim)
        return Head(weight, 1.0, description.head)
    return build_head(tower, description.classes, description.head)


def _publish(fresh: Path, target: Path) -> None:
    """Rename a finished folder into its place; the old one survives every failure."""
    previous = target.with_name(f".{target.name}.previous")
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        target.rename(previous)
    try:
        fresh.rename(target)
    except OSError:
        if previous.exists():
            previous.rename(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)
