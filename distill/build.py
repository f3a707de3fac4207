"""Names become objects here, and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Generator, nn

import synth.networks
from distill.codec_specs import CodecSpec
from distill.data import DataError, RealData, SourceError, load_data
from distill.errors import RecipeError, WorkError
from distill.specs import parse_network
from distill.tables import DataTable, MatchTable
from projectors.codecs import CodecError, LabelCodec, get_codec
from synth.augment import Augmentation, dsa, parse_families
from synth.gradients import Adjoint, FrozenAdjoint, GradientMethod, Unrolled
from synth.updates import Momentum, UpdateRule, adam

_NETWORK_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "ConvNet": synth.networks.ConvNet,
    "ResNet18": synth.networks.ResNet18,
    "ResNet50": synth.networks.ResNet50,
    "ShuffleNetV2": synth.networks.ShuffleNetV2,
    "MobileNetV2": synth.networks.MobileNetV2,
    "DenseNet121": synth.networks.DenseNet121,
    "VisionTransformer": synth.networks.VisionTransformer,
    "VGG11": synth.networks.VGG11,
    "AlexNet": synth.networks.AlexNet,
    "MLP": synth.networks.MLP,
    "TorchvisionNetwork": synth.networks.TorchvisionNetwork,
}


def seed_of(seed: int, *keys: int | str) -> int:
    """A seed for one purpose, from the run's seed and what it is for."""
    text = "/".join(str(key) for key in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def generator_for(seed: int, *keys: int | str) -> Generator:
    """A CPU generator for one purpose. Nothing has to be stored to draw the same again."""
    return torch.Generator().manual_seed(seed_of(seed, *keys))


def build_network(
    spec: str, channels: int, size: tuple[int, int], classes: int, seed: int
) -> nn.Module:
    """The network of a spec, with weights drawn from `seed`; the global generator is untouched.

    Raises:
        RecipeError: for an unknown network, option or value.
    """
    entry, options = parse_network(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return _NETWORK_CLASSES[entry.kind](channels, size, classes, **options)
        except ValueError as error:
            raise RecipeError(f"network {spec}: {error}") from None


def is_torchvision(spec: str) -> bool:
    """Whether a spec names a model of torchvision, which has published weights."""
    return parse_network(spec)[0].kind == "TorchvisionNetwork"


def build_gradient(table: MatchTable) -> GradientMethod:
    """The gradient method that a recipe names."""
    methods: dict[str, Callable[[], GradientMethod]] = {
        "adjoint": lambda: Adjoint(snapshots=table.snapshots),
        "frozen": lambda: FrozenAdjoint(snapshots=table.snapshots),
        "unrolled": Unrolled,
    }
    return methods[table.gradient]()


def build_update(name: str, momentum: float) -> UpdateRule:
    """The outer loop's update rule called "adam" or "sgd" (with this momentum)."""
    rules: dict[str, UpdateRule] = {"adam": adam, "sgd": Momentum(momentum)}
    return rules[name]


def build_views(families: str, *, one_per_batch: bool) -> Augmentation | None:
    """The augmentation named by families joined with underscores; None for "none".

    Raises:
        RecipeError: for an unknown family.
    """
    try:
        names = parse_families(families)
        if not names:
            return None
        return dsa(names) if one_per_batch else Augmentation(names)
    except ValueError as error:
        raise RecipeError(f"augmentation {families}: {error}") from None


def build_codec(spec: CodecSpec, batch_size: int) -> LabelCodec:
    """The label codec of a spec, for labels in batches of `batch_size`.

    Raises:
        RecipeError: for an option out of its range.
    """
    try:
        return get_codec(spec.config(batch_size))
    except CodecError as error:
        raise RecipeError(f"codec {spec.text}: {error}") from None


def build_data(table: DataTable) -> RealData:
    """Load the real data that a recipe names.

    Raises:
        RecipeError: for an unknown source.
        WorkError: if the data are missing or wrong.
    """
    try:
        return load_data(
            table.source,
            size=table.size,
            channels=table.channels,
            classes=table.classes,
            subset=table.subset,
            validation=table.validation,
        )
    except SourceError as error:
        raise RecipeError(f"data.source: {error}") from None
    except (DataError, OSError) as error:
        raise WorkError(f"data {table.source}: {error}") from None


def choose_device(name: str) -> torch.device:
    """The device called auto, cpu or cuda.

    Raises:
        WorkError: if cuda is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise WorkError("--device cuda, but no CUDA device is at hand; use --device cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")
