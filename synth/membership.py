"""Membership inference: was an image part of what a network's training set was made from?

Scores only; rates at a threshold are a matter of whom they are tried on. A larger score says
"member" more strongly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) [n] of the probability p of the true class; monotone in the loss.

    As a score it is the loss-threshold attack (Yeom et al. 2018), on the scale on which it is
    nearly normal over networks (Carlini et al. 2022).

    Args:
        logits: [n, k], k >= 2.
        labels: int64 [n].
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1)
    return own - others


def offline_scores(target: Tensor, references: Tensor, unseen: Tensor) -> Tensor:
    """How much more confident the target is of each image [n] than networks that never saw it.

    LiRA, offline (Carlini et al. 2022), with one variance for all images, which they advise for
    few reference networks: the likelihood ratio is then monotone in the difference to the mean.

    Args:
        target: scaled confidence [n] of the attacked network, or its mean over several.
        references: scaled confidence [r, n] of the reference networks.
        unseen: bool [r, n], which images were not in the training set of which reference; at least
            one reference for each image.

    Raises:
        ValueError: if all references were trained on some image.
    """
    count = unseen.sum(dim=0)
    if not bool(count.all()):
        raise ValueError(
            f"all references were trained on {int((count == 0).sum())} of the images; add more, "
            "trained on fewer images"
        )
    return target - references.where(unseen, 0.0).sum(dim=0) / count
