"""LoRA adapters on an image encoder: their initialisation, and a check that they take effect.

An adapter adds (alpha / rank) * B A to a layer's weight; A is [rank, inputs], B is
[outputs, rank] and starts at zero. Source: Hu et al. 2021 (LoRA).
"""

import copy
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from projectors.errors import ProjectorError

MERGE_TOLERANCE = 1e-4

_STASH = "_exact_weights"

# PEFT's layers find their attributes at run time.
PeftLayer: TypeAlias = Any


def attach_adapters(
    visual: nn.Module, ranks: Mapping[str, int], *, alpha: int, generator: Generator
) -> nn.Module:
    """A copy of an image encoder with adapters on the named layers; everything else is frozen.

    The copy stays in eval mode and computes what the original does, as every B is zero.

    Args:
        visual: the image encoder; left as it is.
        ranks: full name of a layer -> r, at least 1; for example from `target_ranks`.
        alpha: scale; an adapter's product is multiplied by alpha / r.
        generator: a CPU generator, from which every A is drawn.

    Returns:
        A `peft.PeftModel`.

    Raises:
        ProjectorError: if a target does not exist or cannot carry an adapter.
    """
    import peft

    _check_ranks(visual, ranks)
    config = peft.LoraConfig(
        r=max(ranks.values()),
        lora_alpha=alpha,
        target_modules=sorted(ranks),
        rank_pattern=rank_pattern(ranks),
    )
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


def rank_pattern(ranks: Mapping[str, int]) -> dict[str, int]:
    """PEFT's `rank_pattern`: the ranks of layers whose rank is not the largest."""
    largest = max(ranks.values())
    # PEFT reads the keys as regular expressions that may match the end of a name.
    return {f"^{re.escape(name)}": rank for name, rank in sorted(ranks.items()) if rank != largest}


def _check_ranks(visual: nn.Module, ranks: Mapping[str, int]) -> None:
    for name, rank in ranks.items():
        if rank < 1:
            raise ProjectorError(
                f"the rank of {name} is {rank}, but an adapter needs a rank of at least 1; raise it"
            )
    missing = sorted(set(ranks) - {name for name, _ in visual.named_modules()})
    if missing or not ranks:
        raise ProjectorError(
            f"the encoder has no layer {missing[0] if missing else '(none given)'!r}; "
            "take names from find_targets"
        )


def check_adapters(adapted: nn.Module, images: Tensor) -> None:
    """Check that every adapter takes effect, in training and after merging.

    Some layers are never called, only their weights are read; PEFT wraps them silently. Their
    adapters get no gradient, and yet change the merged weights. This check runs on a copy whose B
    are not zero: every adapter tensor must receive a gradient that is not zero, and the merged
    encoder must give the same features.

    Args:
        adapted: what `attach_adapters` returns.
        images: [n, 3, h, w] at the encoder's size; two random ones will do.

    Raises:
        ProjectorError: if an adapter has no effect, or merging changes the features.
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
    tower), and a fit would end with other weights than a receiver fetches.
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
