"""The ways to keep images by name. Imports no torch.

An object is a class of `synth.coding`; it is called as (shape, **options). Its name is also that of
its bytes, so packages bring none.
"""

from __future__ import annotations

from distill.names.entries import CodingEntry, Registry

CODINGS: Registry[CodingEntry] = Registry(
    "coding",
    (
        CodingEntry(
            "pixels", "float32 pixels, as the field counts", "textbook", "synth.coding:Pixels"
        ),
        CodingEntry(
            "rounded",
            "pixels on a grid of 2^depth values",
            "QuADD 2026; DATM with post-training quantisation 2026",
            "synth.coding:Rounded",
            options={"depth": 2},
        ),
        CodingEntry(
            "frequency",
            "cosine coefficients on grids whose steps grow with the frequency",
            "JPEG; FreD 2023",
            "synth.coding:Frequency",
            options={"step": 0.3, "slope": 0.5, "block": 0, "chroma": 2.0, "largest": 64},
        ),
        CodingEntry(
            "palette",
            "few colours, which are learned with the images",
            "AutoPalette 2024",
            "synth.coding:Palette",
            options={"colours": 8},
        ),
        CodingEntry(
            "tones",
            "few colours, each image's own",
            "block truncation coding, Delp and Mitchell 1979",
            "synth.coding:Tones",
            options={"tones": 2, "depth": 4},
        ),
        CodingEntry(
            "bases",
            "sums of few bases that all images share",
            "RTP, Deng and Russakovsky 2022; HaBa, Liu et al. 2022",
            "synth.coding:Bases",
            options={
                "count": 16,
                "step": 0.1,
                "slope": 0.5,
                "scale_step": 0.05,
                "largest": 64,
            },
        ),
    ),
)
