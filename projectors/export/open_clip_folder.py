"""A tower in open_clip's own folder layout, for programs that do not read our specs."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from projectors.errors import ProjectorError
from projectors.model.tower import GLYPHCLIP, Tower, glyphclip_folder

CONFIG = "open_clip_config.json"

WEIGHTS = "open_clip_model.safetensors"


def is_fetched_by_name(tower: Tower) -> bool:
    """Whether open_clip itself finds the tower by a model's name and a pretrained tag."""
    import open_clip

    scheme, model, pretrained = _parts(tower.spec)
    return scheme == "open_clip" and bool(open_clip.get_pretrained_cfg(model, pretrained))


def public_name(tower: Tower) -> str:
    """The tower's spec without local paths."""
    scheme, model, pretrained = _parts(tower.spec)
    if scheme == "folder":
        return f"folder:{Path(tower.spec.partition(':')[2]).name}"
    return f"{scheme}:{model}:{Path(pretrained).name}" if pretrained else tower.spec


def loading_call(tower: Tower, folder: str) -> str:
    """The Python call that loads the tower with plain open_clip.

    Args:
        tower: the tower.
        folder: where it is, if open_clip does not find it by name.
    """
    _, model, pretrained = _parts(tower.spec)
    if is_fetched_by_name(tower):
        return f"open_clip.create_model({model!r}, pretrained={pretrained!r})"
    return f'open_clip.create_model("local-dir:{folder}")'


def write_base(tower: Tower, folder: Path, visual: nn.Module | None = None) -> None:
    """Write a tower as a folder that `open_clip.create_model("local-dir:...")` loads.

    Args:
        tower: the tower.
        folder: is made where it does not exist.
        visual: an image encoder to write in place of the tower's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = dict(tower.clip.state_dict())
    if visual is not None:
        tensors.update({f"visual.{name}": value for name, value in visual.state_dict().items()})
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    safetensors.torch.save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(_config(tower), indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _config(tower: Tower) -> dict[str, Any]:
    import open_clip

    scheme, model, _ = _parts(tower.spec)
    if scheme == "config":
        path = resources.files("projectors") / "configs" / f"{model}.json"
        config = json.loads(path.read_text("utf-8"))
    elif scheme in ("folder", GLYPHCLIP):
        bundled = scheme == GLYPHCLIP
        path = glyphclip_folder() if bundled else Path(tower.spec.partition(":")[2])
        config = json.loads((path / CONFIG).read_text("utf-8"))
    elif scheme == "open_clip":
        config = {"model_cfg": open_clip.get_model_config(model), "preprocess_cfg": {}}
    else:
        raise ProjectorError(f"tower {tower.spec!r} cannot be written in open_clip's layout")
    preprocess = {**config["preprocess_cfg"], "mean": list(tower.mean), "std": list(tower.std)}
    return {"model_cfg": config["model_cfg"], "preprocess_cfg": preprocess}


def _parts(spec: str) -> tuple[str, str, str]:
    scheme, _, rest = spec.partition(":")
    model, _, pretrained = rest.partition(":")
    return scheme, model, pretrained
