"""Frozen CLIP encoders, named by a spec that another machine can resolve to the same bytes."""

import difflib
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from projectors.errors import ProjectorError
from projectors.model.offline import offline, was_refused
from projectors.model.random_tower import draw_weights
from projectors.model.tower_folder import check_tower_folder

GLYPHCLIP = "glyphclip"

_TEXT_BATCH = 256

_ASK = (
    "is not whole on this machine, and nothing is fetched unasked; allow it once with `distill run "
    "RECIPE --download`, `distill verify PATH --download`, or load_tower(SPEC, download=True)"
)

# open_clip has several model classes without a common base but nn.Module, and no types.
ClipModel: TypeAlias = Any


@dataclass(frozen=True, eq=False)
class Tower:
    """A frozen CLIP model, and what is needed to use it and to load it again.

    Attributes:
        clip: the open_clip model, in eval mode, without gradients.
        spec: where it comes from, as given to `load_tower`.
        seed: the seed of a `config:` tower's weights; ignored by the others.
        embed_dim: d, the length of an image or text feature.
        image_size: height and width in pixels that the image encoder takes.
        mean: the encoder's own preprocessing, one value per RGB channel, of pixels in [0, 1].
        std: as `mean`.
        digest: SHA-256, in hex, over the names, types, shapes and bytes of all tensors.
        external_bytes: bytes of the tensors that a receiver must get elsewhere; 0 for a
            `config:` tower, which is drawn again from its seed. Those of `glyphclip` count,
            though they come with this package: someone has to send them.
    """

    clip: ClipModel
    spec: str
    seed: int
    embed_dim: int
    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str
    external_bytes: int


def load_tower(spec: str, seed: int = 0, *, download: bool = False) -> Tower:
    """Load the frozen CLIP model that a spec names; the network is asked for nothing.

    Args:
        spec: one of
            `glyphclip`, the small model bundled with this package that was trained on drawings
            of characters and their names, and reads English in lower case;
            `config:NAME`, a small model bundled with this package whose weights are random,
            drawn from `seed`: it has learned nothing, and serves where nothing can be
            downloaded;
            `open_clip:MODEL:PRETRAINED`, an open_clip model with a pretrained tag or a local
            weights file;
            `folder:PATH`, a folder that holds `open_clip_config.json` and a weights file.
        seed: seed of the weights of a `config:` tower.
        download: fetch what is missing of weights, configuration and tokenizer first.

    Raises:
        ProjectorError: if the spec is unknown, or its weights are not on this machine.
    """
    with nullcontext() if download else offline():
        tower = _load(spec, seed)
    if download:
        _find_tokenizer(tower)
    return tower


def _load(spec: str, seed: int) -> Tower:
    scheme, _, rest = spec.partition(":")
    loaders = {"config": _load_config, "open_clip": _load_open_clip, "folder": _load_folder}
    if spec == GLYPHCLIP:
        clip, preprocess = _load_folder(str(glyphclip_folder()), seed)
    elif scheme in loaders and rest:
        clip, preprocess = loaders[scheme](rest, seed)
    else:
        raise ProjectorError(
            f"tower {spec!r} is not known; write glyphclip, config:NAME, "
            "open_clip:MODEL:PRETRAINED or folder:PATH"
        )
    clip.requires_grad_(False).eval()
    height, width = _pair(clip.visual.image_size)
    return Tower(
        clip=clip,
        spec=spec,
        seed=seed,
        embed_dim=_embed_dim(clip, spec, (height, width)),
        image_size=(height, width),
        mean=_triple(spec, preprocess, "mean"),
        std=_triple(spec, preprocess, "std"),
        digest=digest_of(clip),
        external_bytes=_external_bytes(scheme, clip),
    )


def encode_text(tower: Tower, prompts: list[str]) -> Tensor:
    """Encode prompts with the tower's text encoder.

    Returns:
        [k, d] features of length 1.

    Raises:
        ProjectorError: if the tower's tokenizer is not on this machine.
    """
    with offline():
        tokenize = _find_tokenizer(tower)
    device = next(tower.clip.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(prompts), _TEXT_BATCH):
            tokens = tokenize(prompts[start : start + _TEXT_BATCH]).to(device)
            parts.append(functional.normalize(tower.clip.encode_text(tokens), dim=-1))
    return torch.cat(parts)


def _find_tokenizer(tower: Tower) -> Callable[[list[str]], Tensor]:
    try:
        return _tokenizer(tower.spec, getattr(tower.clip, "context_length", 77))
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        if was_refused(error):
            raise ProjectorError(f"the tokenizer of tower {tower.spec!r} {_ASK}") from error
        raise ProjectorError(
            f"the tokenizer of tower {tower.spec!r} cannot be loaded ({_one_line(error)}); fetch "
            "its files again, or use a head with init='random'"
        ) from error


def digest_of(module: nn.Module) -> str:
    """SHA-256, in hex, over the names, types, shapes and bytes of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def bundled_towers() -> list[str]:
    """Names that `config:NAME` takes."""
    folder = resources.files("projectors") / "configs"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".json"))


def glyphclip_folder() -> Path:
    """The folder of the bundled tower, which `open_clip` also loads as `local-dir:PATH`."""
    return Path(str(resources.files("projectors"))) / GLYPHCLIP


def _external_bytes(scheme: str, clip: ClipModel) -> int:
    if scheme == "config":
        return 0
    tensors = clip.state_dict().values()
    if scheme == GLYPHCLIP:
        # Stored in half precision, and widened by open_clip.
        return sum(t.numel() * 2 if t.is_floating_point() else t.nbytes for t in tensors)
    return sum(t.nbytes for t in tensors)


def _load_config(name: str, seed: int) -> tuple[ClipModel, dict[str, Any]]:
    import open_clip

    if name not in bundled_towers():
        raise ProjectorError(
            f"no bundled tower {name!r}; there are {', '.join(bundled_towers())}"
            + _suggestion(name, bundled_towers())
        )
    text = (resources.files("projectors") / "configs" / f"{name}.json").read_text("utf-8")
    config = json.loads(text)
    # The constructor draws from the global generator; what it drew is replaced below.
    with torch.random.fork_rng(devices=[]):
        clip = open_clip.CLIP(**config["model_cfg"])
    draw_weights(clip, torch.Generator().manual_seed(seed))
    return clip, config["preprocess_cfg"]


def _load_open_clip(rest: str, seed: int) -> tuple[ClipModel, dict[str, Any]]:
    import open_clip

    model, _, pretrained = rest.partition(":")
    if model not in open_clip.list_models():
        raise ProjectorError(
            f"open_clip has no model {model!r}{_suggestion(model, open_clip.list_models())}; "
            "write open_clip:MODEL:PRETRAINED"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not pretrained:
        known = f"a tag ({', '.join(tags)})" if tags else "a weights file (it has no tags)"
        raise ProjectorError(f"open_clip:{model} names no weights; add {known}")
    is_tag = bool(open_clip.get_pretrained_cfg(model, pretrained))
    if not is_tag and not Path(pretrained).is_file():
        raise ProjectorError(
            f"{pretrained!r} is neither a tag of {model} nor a file"
            f"{_suggestion(pretrained, tags)}; fetch a weights file and give its path"
        )
    preprocess = None if is_tag else _preprocess_of_file(model, tags)
    clip = _create(f"open_clip:{rest}", model, pretrained)
    return clip, preprocess or clip.visual.preprocess_cfg


def _load_folder(path: str, seed: int) -> tuple[ClipModel, dict[str, Any]]:
    folder = Path(path)
    check_tower_folder(folder)
    clip = _create(f"folder:{path}", f"local-dir:{path}", None)
    return clip, clip.visual.preprocess_cfg


def _create(spec: str, name: str, pretrained: str | None) -> ClipModel:
    import open_clip

    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # With another activation than in training the model is silently wrong.
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            return open_clip.create_model(name, pretrained=pretrained, require_pretrained=True)
    except UserWarning as error:
        raise ProjectorError(
            f"tower {spec!r} was trained with another activation ({_one_line(error)}); "
            "use the model's -quickgelu form, or the form without it"
        ) from error
    # open_clip, torch and safetensors each raise their own kinds here, down to bare Exception.
    except Exception as error:
        if was_refused(error):
            raise ProjectorError(f"tower {spec!r} {_ASK}") from error
        raise ProjectorError(
            f"the weights of tower {spec!r} cannot be loaded ({_one_line(error)}); fetch them "
            "again, or download the file and name its path"
        ) from error


def _preprocess_of_file(model: str, tags: list[str]) -> dict[str, Any]:
    import open_clip

    configs = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    default_mean, default_std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    known = {
        (tuple(config.get("mean") or default_mean), tuple(config.get("std") or default_std))
        for config in configs
    } or {(default_mean, default_std)}
    if len(known) > 1:
        # A bare file does not say which mean and std it was trained with.
        raise ProjectorError(
            f"weights files of {model} use {len(known)} different preprocessings; put yours in "
            "a folder with an open_clip_config.json that names mean and std, and use folder:PATH"
        )
    mean, std = known.pop()
    return {"mean": mean, "std": std}


@lru_cache(maxsize=4)
def _tokenizer(spec: str, context_length: int) -> Callable[[list[str]], Tensor]:
    import open_clip

    scheme, _, rest = spec.partition(":")
    if scheme == "config":
        return open_clip.SimpleTokenizer(context_length=context_length)
    folder = glyphclip_folder() if spec == GLYPHCLIP else rest
    local = scheme in ("folder", GLYPHCLIP)
    return open_clip.get_tokenizer(f"local-dir:{folder}" if local else rest.partition(":")[0])


def _embed_dim(clip: ClipModel, spec: str, size: tuple[int, int]) -> int:
    with torch.no_grad():
        features = clip.visual(torch.zeros(1, 3, *size))
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ProjectorError(
            f"the image encoder of tower {spec!r} does not give one feature per image; "
            "choose a plain CLIP model"
        )
    return features.shape[1]


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _triple(spec: str, preprocess: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """How a tower's configuration says that each channel of its images is normalised."""
    given = preprocess[name]
    try:
        red, green, blue = (float(value) for value in given)
        usable = all(map(math.isfinite, (red, green, blue)))
    except (TypeError, ValueError, OverflowError):
        usable = False
    if not usable or (name == "std" and min(red, green, blue) <= 0):
        above = ", each above 0" if name == "std" else ""
        raise ProjectorError(
            f"tower {spec!r} says that the {name} of its images is {str(given)[:40]!r}; it must be "
            f"three numbers{above}: fetch its configuration again"
        )
    return red, green, blue


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
