"""Small sets and votes that several tests store."""

import torch

from distill.sets.set_file import SetFile
from synth.committee.relabel import StoredVotes

MANIFEST = {
    "class_names": ["ä", "b", "c"],
    "preprocess": {"mean": [0.5], "std": [0.25]},
    "student_lr": 0.05,
    "augmentation": "none",
    "network": "convnet2",
    "seed": 3,
    "recipe": {"name": "x"},
    "recipe_digest": "0",
    "source": {"name": "digits", "digest": "1"},
    "factor": 1,
}


def make_set(classes=3, ipc=2, **changes):
    generator = torch.Generator().manual_seed(1)
    n = classes * ipc
    names = [f"class {k}" for k in range(classes)]
    return SetFile(
        images=torch.randn(n, 1, 4, 5, generator=generator),
        hard=torch.arange(classes).repeat_interleave(ipc),
        manifest={**MANIFEST, "class_names": names} if classes != 3 else MANIFEST,
        learned=torch.randn(n, classes, generator=generator),
        **changes,
    )


def make_votes(n=6, classes=3, epochs=2, values=1):
    generator = torch.Generator().manual_seed(2)
    return StoredVotes(
        ids=torch.stack([torch.randperm(n, generator=generator) for _ in range(epochs)]),
        views=torch.randn(epochs, n, values, generator=generator).half(),
        logits=torch.randn(epochs, n, classes, generator=generator).half(),
        families=("rotate",) if values else (),
        batch_size=3,
        temperature=4.0,
        batch_statistics=True,
    )
