"""Checks of a tower's folder before a model is built by what its configuration says."""

import json
from pathlib import Path
from typing import Any

from projectors.errors import ProjectorError

CONFIG = "open_clip_config.json"

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")

_CONFIG_BYTES = 1 << 20


def check_tower_folder(folder: Path) -> None:
    """Refuse a folder without weights, or whose weights cannot be those of its configuration.

    open_clip makes a model of any size that a configuration names, and gives a random one where
    there are no weights, which it only logs.

    Raises:
        ProjectorError: for such a folder.
    """
    config = folder / CONFIG
    if not config.is_file():
        raise ProjectorError(f"{folder} holds no {CONFIG}; give a folder in open_clip's own layout")
    for item in folder.iterdir():
        if item.exists() and not (item.is_file() or item.is_dir()):
            raise ProjectorError(f"{item} is a pipe or a device, which may never end; remove it")
    weights = [item for item in folder.iterdir() if item.suffix in WEIGHT_SUFFIXES]
    if not weights:
        raise ProjectorError(
            f"{folder} holds no weights; put open_clip_model.safetensors beside its {CONFIG}"
        )
    held = sum(item.stat().st_size for item in weights)
    try:
        if config.stat().st_size > _CONFIG_BYTES:
            raise ValueError(f"it has more than {_CONFIG_BYTES:,} bytes")
        promised = least_parameters(json.loads(config.read_text("utf-8"))["model_cfg"])
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProjectorError(
            f"{config} is no configuration of open_clip ({' '.join(str(error).split())[:200]}); "
            "fetch the folder again"
        ) from error
    if promised > held:
        raise ProjectorError(
            f"{config} promises at least {promised:,} parameters, but the weights beside it hold "
            f"{held:,} bytes; fetch the folder again"
        )


def least_parameters(config: dict[str, Any]) -> int:
    """A lower bound of the parameters of a model: those of its attention, or its convolutions."""
    least = sum(_least_of(config.get(name) or {}) for name in ("vision_cfg", "text_cfg"))
    # Python refuses to write out numbers of thousands of digits.
    return min(least, 10**30)


def _least_of(part: dict[str, Any]) -> int:
    width, layers = int(part.get("width", 0)), part.get("layers", 0)
    if isinstance(layers, list):
        stages = (9 * int(count) * (width << stage) ** 2 for stage, count in enumerate(layers[:8]))
        return sum(stages)
    words = int(part.get("vocab_size", 0)) + int(part.get("context_length", 0))
    return 4 * int(layers) * width**2 + words * width
