"""Make the small sets in published layouts under tests/fixtures/exchange.

    python scripts/make_exchange_fixtures.py

Each holds the same four 8x8 colour images, two of each of two classes, in the layout, space and
label form that the public code of its method leaves. `images.npy` holds their pixels.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "exchange"
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2023, 0.1994, 0.2010]).view(1, 3, 1, 1)


def main() -> None:
    """Rewrite all fixtures."""
    shutil.rmtree(ROOT, ignore_errors=True)
    drawn = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    pixels = torch.from_numpy(drawn).float() / 255
    labels = torch.tensor([0, 0, 1, 1])
    normalised = (pixels - MEAN) / STD
    for name in ("mtt", "mtt-zca", "dc", "datm", "idc", "npz", "npz-soft", "objects"):
        (ROOT / name).mkdir(parents=True)
    np.save(ROOT / "images.npy", pixels.numpy())
    # MTT leaves one pair per interval and the best; an older pair must not be taken.
    torch.save(torch.zeros_like(normalised), ROOT / "mtt" / "images_0.pt")
    torch.save(labels, ROOT / "mtt" / "labels_0.pt")
    torch.save(normalised, ROOT / "mtt" / "images_best.pt")
    torch.save(labels, ROOT / "mtt" / "labels_best.pt")
    torch.save(pixels, ROOT / "mtt-zca" / "images_zca_best.pt")
    torch.save(labels, ROOT / "mtt-zca" / "labels_best.pt")
    # DC repeats its experiment: the last of "data" counts. Its accuracies are NumPy numbers.
    repeats = [[torch.zeros_like(normalised), labels], [normalised, labels]]
    accuracies = {"ConvNet": [np.float64(0.5), np.float64(0.75)]}
    torch.save(
        {"data": repeats, "accs_all_exps": accuracies},
        ROOT / "dc" / "res_DC_CIFAR10_ConvNet_2ipc.pt",
    )
    logits = torch.tensor([[4.0, 0.0], [3.0, 1.0], [0.5, 2.0], [-1.0, 1.0]])
    torch.save(normalised, ROOT / "datm" / "images_best.pt")
    torch.save(logits, ROOT / "datm" / "labels_best.pt")
    torch.save(torch.tensor(0.03), ROOT / "datm" / "lr_best.pt")
    torch.save([pixels, labels], ROOT / "idc" / "data.pt")
    np.savez(ROOT / "npz" / "set.npz", images=drawn, labels=labels.numpy())
    soft = torch.softmax(logits, 1).numpy()
    np.savez(ROOT / "npz-soft" / "set.npz", images=normalised.numpy(), labels=soft)
    np.savez(ROOT / "objects" / "set.npz", images=drawn, labels=np.array([{}] * 4, dtype=object))
    torch.save([pixels, labels, Path("code")], ROOT / "objects" / "data.pt")
    for index, image in enumerate(drawn):
        label = int(labels[index])
        for name in (f"rded/{label:05d}", f"folder/{('cat', 'dog')[label]}"):
            folder = ROOT / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(
                folder / f"class{label:05d}_id{index % 2:05d}.png"
            )


if __name__ == "__main__":
    main()
