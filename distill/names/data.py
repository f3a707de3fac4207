"""The data sources by name. Imports no torch."""

from __future__ import annotations

from distill.names.entries import Entry, Registry

DATA: Registry[Entry] = Registry(
    "data source",
    (
        Entry(
            "digits",
            "1,797 real handwritten digits, 8x8 gray, embedded",
            "scikit-learn",
            "distill.data.sources.digits:read_digits",
        ),
        Entry(
            "fashion-mnist",
            "70,000 real 28x28 gray clothing images: fashion-mnist or fashion-mnist:PATH",
            "Debian package dataset-fashion-mnist, or its four idx files",
            "distill.data.sources.fashion:read_fashion_mnist",
        ),
        Entry(
            "glyphs",
            "K characters in 12 font faces, 28x28 gray, test family held out: glyphs:K, K <= 1100",
            "DejaVu fonts inside matplotlib's wheel",
            "distill.data.sources.glyphs:read_glyphs",
        ),
        Entry(
            "folder",
            "your own images, one folder per class: folder:PATH",
            "image files",
            "distill.data.sources.folder:read_folder",
        ),
        Entry(
            "npz",
            "arrays images and labels, or x_train ... y_test: npz:PATH",
            "NumPy file",
            "distill.data.sources.npz:read_npz",
        ),
        Entry(
            "torchvision",
            "a set that torchvision reads: torchvision:CIFAR10 or torchvision:CIFAR10:ROOT",
            "torchvision",
            "distill.data.sources.torchvision_sets:read_torchvision",
        ),
        Entry(
            "hf",
            "an image set of the Hugging Face hub: hf:NAME",
            "datasets, extra hf",
            "distill.data.sources.hugging_face:read_hugging_face",
        ),
        Entry(
            "packed",
            "any of these, packed by `distill pack` and read by batches: packed:PATH",
            "HDF5 files",
            "distill.data.sources.packed:read_packed",
        ),
    ),
    "limbeck.data",
    Entry,
)
