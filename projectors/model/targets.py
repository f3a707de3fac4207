"""Which layers of an image encoder can carry an adapter, and of which kind they are."""

from collections.abc import Mapping, Sequence

from torch import nn

from projectors.errors import ProjectorError

KINDS = ("attention", "mlp", "conv")

_BODY = ("transformer", "layer1", "layer2", "layer3", "layer4")

# What timm calls the layers before the first and after the last block.
_ENDS = ("patch_embed", "stem", "head", "final_conv")


def find_targets(visual: nn.Module) -> list[str]:
    """Names of the layers that can carry an adapter, in sorted order.

    Attention modules of PyTorch are taken whole, linear layers and ungrouped convolutions one
    by one. Left out are attention pools, whose layers are never called, so that an adapter has no
    effect; and, by choice, stems and final projections (the patch embedding of a vision
    transformer, the first convolutions of a residual network).

    Args:
        visual: the image encoder of an open_clip model: its own vision transformer, its
            modified ResNet, or a timm model.

    Raises:
        ProjectorError: if there is no such layer.
    """
    names: list[str] = []
    _scan(visual, "", names)
    inside = tuple(f"{name}." for name in _BODY)
    body = [name for name in names if name.startswith(inside)]
    inner = [name for name in names if not set(name.split(".")) & set(_ENDS)]
    targets = sorted(body or inner or names)
    if not targets:
        raise ProjectorError(
            f"{type(visual).__name__} has no layer that takes an adapter; name the layers yourself"
        )
    return targets


def target_kind(visual: nn.Module, name: str) -> str:
    """The kind of a layer, one of KINDS, from its type and its full name.

    Raises:
        ProjectorError: if there is no such layer.
    """
    try:
        layer = visual.get_submodule(name)
    except AttributeError as error:
        raise ProjectorError(
            f"the encoder has no layer {name!r}; take names from find_targets"
        ) from error
    if isinstance(layer, nn.Conv2d):
        return "conv"
    attends = isinstance(layer, nn.MultiheadAttention) or "attn" in name or "attention" in name
    return "attention" if attends else "mlp"


def target_ranks(
    visual: nn.Module, targets: Sequence[str], rank: int, ranks: Mapping[str, int]
) -> dict[str, int]:
    """The rank of each target that gets an adapter.

    Args:
        visual: the image encoder.
        targets: full names of layers.
        rank: of every kind that `ranks` does not name.
        ranks: kind -> rank; 0 leaves the layers of a kind without adapters.
    """
    chosen = {name: ranks.get(target_kind(visual, name), rank) for name in targets}
    return {name: value for name, value in sorted(chosen.items()) if value}


def _scan(module: nn.Module, name: str, names: list[str]) -> None:
    """Append the full names of the layers inside `module`, itself called `name`."""
    from open_clip.modified_resnet import AttentionPool2d

    if isinstance(module, AttentionPool2d):
        return
    if isinstance(module, nn.MultiheadAttention):
        if module._qkv_same_embed_dim:
            names.append(name)
        return
    # Exactly these types: a subclass may transform its weight (weight standardisation), and then
    # merging an adapter changes the result.
    if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1):
        names.append(name)
        return
    for child, inner in module.named_children():
        _scan(inner, f"{name}.{child}" if name else child, names)
