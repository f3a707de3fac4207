"""LoRA adapters on an image encoder: which layers, how they start, and whether they act.

An adapter adds (alpha / rank) * B A to a layer's weight; A is [rank, inputs], B is
[outputs, rank] and starts at zero. Source: Hu et al. 2021 (LoRA).
"""

import copy
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from projectors.errors import ProjectorError

MERGE_TOLERANCE = 1e-4
_STASH = "_exact_weights"
# PEFT's layers find their attributes at run time.
PeftLayer: TypeAlias = Any


def find_targets(visual: nn.Module) -> list[str]:
    """Names of the layers that can carry an adapter, in sorted order.

    Attention modules of PyTorch are taken whole, linear layers and ungrouped convolutions one
    by one. Left out is what an adapter cannot reach: attention pools, whose layers are read and
    never called; and, by choice, stems and final projections (the patch embedding of a vision
    transformer, the first convolutions of a residual network).

    Args:
        visual: the image encoder of an open_clip model: its own vision transformer, its
            modified ResNet, or a timm model.

    Raises:
        ProjectorError: if there is no such layer.
    """
    found: list[str] = []
    _scan(visual, "", found)
    inside = tuple(f"{name}." for name in ("transformer", "layer1", "layer2", "layer3", "layer4"))
    body = sorted(name for name in found if name.startswith(inside))
    targets = body or sorted(found)
    if not targets:
        raise ProjectorError(
            f"{type(visual).__name__} has no layer that takes an adapter; name the layers yourself"
        )
    return targets


def attach_adapters(
    visual: nn.Module, targets: list[str], *, rank: int, alpha: int, generator: Generator
) -> nn.Module:
    """A copy of an image encoder with adapters on the named layers; everything else is frozen.

    The copy stays in eval mode and computes what the original does, as every B is zero.

    Args:
        visual: the image encoder; left as it is.
        targets: full names of layers, for example from `find_targets`.
        rank: r, at least 1.
        alpha: scale; the adapter's product is multiplied by alpha / rank.
        generator: a CPU generator, from which every A is drawn.

    Returns:
        A `peft.PeftModel`.

    Raises:
        ProjectorError: if a target does not exist or cannot carry an adapter.
    """
    import peft

    if rank < 1:
        raise ProjectorError(f"rank is {rank}, but an adapter needs a rank of at least 1; raise it")
    missing = sorted(set(targets) - {name for name, _ in visual.named_modules()})
    if missing or not targets:
        raise ProjectorError(
            f"the encoder has no layer {missing[0] if missing else '(none given)'!r}; "
            "take names from find_targets"
        )
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(targets))
    try:
        # PEFT draws from the global generator; what it drew is replaced below.
        with torch.random.fork_rng(devices=[]):
            adapted = peft.get_peft_model(copy.deepcopy(visual), config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ProjectorError(
            f"PEFT refuses the targets ({' '.join(str(error).split())[:200]}); "
            "take names from find_targets"
        ) from error
    _draw_adapters(adapted, generator)
    _keep_attention_exact(adapted)
    return adapted.eval()


def check_adapters(adapted: nn.Module, images: Tensor) -> None:
    """Make sure that every adapter acts, in training and after merging.

    Some layers are read and never called, and PEFT wraps them without a word: their adapters
    get no gradient, and yet change the merged weights. This check runs on a copy whose B are
    not zero: every adapter tensor must receive a gradient that is not zero, and the merged
    encoder must give the same features.

    Args:
        adapted: what `attach_adapters` returns.
        images: [n, 3, h, w] at the encoder's size; two random ones will do.

    Raises:
        ProjectorError: if an adapter does not act, or merging changes the features.
    """
    probe = copy.deepcopy(adapted)
    generator = Generator().manual_seed(0)
    trainable = {name: p for name, p in probe.named_parameters() if p.requires_grad}
    for name, parameter in trainable.items():
        if "lora_B" in name:
            noise = torch.rand(parameter.shape, generator=generator) - 0.5
            parameter.data.copy_(noise * 0.1)
    features = probe(images)
    if features.requires_grad:
        # A random direction: a plain sum can have a gradient of zero after a LayerNorm.
        direction = torch.rand(features.shape, generator=generator).to(features) - 0.5
        (features * direction).sum().backward()
    dead = sorted(n for n, p in trainable.items() if p.grad is None or not p.grad.any())
    if dead or not trainable:
        raise ProjectorError(
            f"{len(dead)} of {len(trainable)} adapter tensors do not act on the features "
            f"(first: {dead[0] if dead else 'none'}): the layer is never called, or what follows "
            "multiplies it by zero; take targets from find_targets"
        )
    _check_merge(probe, features.detach(), images)


def merge_adapters(adapted: nn.Module) -> nn.Module:
    """A copy of the encoder with its adapters added into the weights, without PEFT's wrappers."""
    merged = copy.deepcopy(adapted)
    return merged.merge_and_unload().eval()  # type: ignore[operator]


def _check_merge(probe: nn.Module, features: Tensor, images: Tensor) -> None:
    with torch.no_grad():
        gap = float((merge_adapters(probe)(images) - features).abs().max())
    limit = MERGE_TOLERANCE * max(1.0, float(features.abs().max()))
    if not gap <= limit:
        raise ProjectorError(
            f"merging the adapters changes the features by {gap:.1e}, more than {limit:.1e}: "
            "an adapter sits on a layer that is never called, or that changes its weight on the "
            "way; take targets from find_targets"
        )


def _scan(module: nn.Module, name: str, found: list[str]) -> None:
    from open_clip.modified_resnet import AttentionPool2d

    if isinstance(module, AttentionPool2d):
        return
    if isinstance(module, nn.MultiheadAttention):
        if module._qkv_same_embed_dim:
            found.append(name)
        return
    # Exactly these types: a subclass may change its weight on the way (weight standardisation),
    # and then an added adapter is not what a merged one is.
    if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1):
        found.append(name)
        return
    for child, inner in module.named_children():
        _scan(inner, f"{name}.{child}" if name else child, found)


def _draw_adapters(adapted: nn.Module, generator: Generator) -> None:
    for name, parameter in sorted(adapted.named_parameters()):
        if "lora_A" in name:
            noise = torch.rand(parameter.shape, generator=generator) - 0.5
            # The usual start of a linear layer: uniform in +-1/sqrt(fan-in).
            parameter.data.copy_(noise * (2.0 * parameter[0].numel() ** -0.5))


def _keep_attention_exact(adapted: nn.Module) -> None:
    """Undo the rounding that PEFT leaves in an attention module's frozen weights.

    Its wrapper adds the adapter to the weights before a forward pass and subtracts it after,
    so that the frozen weights move by a rounding error (3e-8 after 2,000 passes on the bundled
    tower), and a fit would end on other bytes than those that a receiver fetches.
    """
    from peft.tuners.lora.layer import MultiheadAttention

    for module in adapted.modules():
        if isinstance(module, MultiheadAttention):
            module.register_forward_pre_hook(_stash_weights)
            module.register_forward_hook(_restore_weights, always_call=True)


def _stash_weights(module: PeftLayer, args: object) -> None:
    attention = module.get_base_layer()
    projection = attention.out_proj.get_base_layer()
    module.__dict__[_STASH] = (attention.in_proj_weight, projection.weight)


def _restore_weights(module: PeftLayer, args: object, output: object) -> None:
    attention = module.get_base_layer()
    projection = attention.out_proj.get_base_layer()
    attention.in_proj_weight, projection.weight = module.__dict__.pop(_STASH)
