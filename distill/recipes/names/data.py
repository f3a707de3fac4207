"""The data sources by name. Imports no torch."""

from __future__ import annotations

from distill.recipes.names.entries import Entry

DATA: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("digits", "1,797 real handwritten digits, 8x8 gray, embedded", "scikit-learn"),
        Entry(
            "fashion-mnist",
            "70,000 real 28x28 gray clothing images: fashion-mnist or fashion-mnist:PATH",
            "Debian package dataset-fashion-mnist, or its four idx files",
        ),
        Entry(
            "glyphs",
            "K characters in 12 font faces, 28x28 gray, test family held out: glyphs:K, K <= 1100",
            "DejaVu fonts inside matplotlib's wheel",
        ),
        Entry("folder", "your own images, one folder per class: folder:PATH", "image files"),
        Entry("npz", "arrays images and labels, or x_train ... y_test: npz:PATH", "NumPy file"),
        Entry(
            "torchvision",
            "a set that torchvision reads: torchvision:CIFAR10 or torchvision:CIFAR10:ROOT",
            "torchvision",
        ),
        Entry("hf", "an image set of the Hugging Face hub: hf:NAME", "datasets, extra hf"),
        Entry(
            "packed",
            "any of these, packed by `distill pack` and read by batches: packed:PATH",
            "HDF5 files",
        ),
    )
}
