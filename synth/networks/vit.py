"""A small vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.networks.layers import GroupNorm


class TokenNorm(nn.Module):
    """Layer norm of every token; as nn.LayerNorm, with correct derivatives of every order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(1, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise [n, t, d]; same shape out."""
        flat = tokens.reshape(-1, tokens.shape[2], 1, 1)
        return self.norm(flat).view_as(tokens)


class Attention(nn.Module):
    """Self-attention with several heads, written out; Vaswani et al. 2017, equation 1."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [n, t, d] to [n, t, d]."""
        n, t, d = tokens.shape
        split = self.inputs(tokens).view(n, t, 3, self.heads, d // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        scores = queries @ keys.transpose(2, 3) * (d // self.heads) ** -0.5
        # Not the fused kernel, which has no forward-mode derivative.
        shares = (scores - scores.detach().amax(dim=3, keepdim=True)).exp()
        shares = shares / shares.sum(dim=3, keepdim=True)
        return self.outputs((shares @ values).transpose(1, 2).reshape(n, t, d))


class TransformerBlock(nn.Module):
    """Attention and an MLP of four times the width, each pre-norm and with a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = TokenNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = TokenNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [n, t, d] to [n, t, d]."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.perceptron(self.norm2(tokens))


class VisionTransformer(nn.Module):
    """A vision transformer with a class token, learned position embeddings and no dropout.

    Images are zero-padded at the right and the bottom to whole patches. There is a head for
    every 64 of the width. Source: Dosovitskiy et al. 2021; width 192, depth 12 and 3 heads are
    the "tiny" of Touvron et al. 2021 (DeiT).

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        depth: blocks.
        width: d, values of a token.
        patch: side of a patch in pixels.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        depth: int = 12,
        width: int = 192,
        patch: int = 4,
    ) -> None:
        super().__init__()
        heads = max(1, width // 64)
        if depth < 1 or width < 1 or patch < 1 or width % heads:
            raise ValueError(
                f"got depth {depth}, width {width} and patch {patch}; each must be at least 1, "
                f"and the width a multiple of its {heads} heads"
            )
        height, breadth = size
        self.fill = (0, -breadth % patch, 0, -height % patch)
        tokens = -(-height // patch) * -(-breadth // patch)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, 1 + tokens, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = TokenNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        patches = self.patches(functional.pad(images, self.fill)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        return self.head(self.norm(self.blocks(tokens + self.places))[:, 0])
