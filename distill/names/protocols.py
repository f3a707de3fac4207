"""The ways to train the students of an evaluation, by name. Imports no torch.

An entry of the literature sets keys of [evaluate], so that each of them can be read, and be set to
something else beside it.
"""

from __future__ import annotations

from typing import Any

from distill.names.entries import ProtocolEntry, Registry

# What none of the papers does: to search on validation images, and to change labels or weights.
UNCHANGED: dict[str, Any] = {
    "optimizers": [],
    "lr_factors": [],
    "mixes": [],
    "temperatures": [],
    "hard_weights": [],
    "hard_weight": 0.0,
    "gift": 0.0,
    "hard_share": 0.0,
    "self_mix": False,
    "discriminator": 0.0,
    "anneal": "none",
    "calibrated": False,
    "soft_average": 0.0,
}

_ZHAO: dict[str, Any] = {"lr": 0.01, "schedule": "step", "batch_size": 256, **UNCHANGED}

_SOFT: dict[str, Any] = {
    "epochs": 300,
    "soft_optimizer": "adamw",
    "soft_lr": 0.001,
    "soft_weight_decay": 0.01,
    "mix": "cutmix",
    "temperature": 20.0,
    **UNCHANGED,
}

PROTOCOLS: Registry[ProtocolEntry] = Registry(
    "protocol",
    (
        ProtocolEntry("auto", "that of each label source: hard, trajectory or kd", "Limbeck"),
        ProtocolEntry(
            "trajectory",
            "SGD at the learned learning rate, DSA",
            "Cazenavette et al. 2022",
            training="trajectory",
        ),
        ProtocolEntry(
            "kd", "AdamW on soft labels of views, cosine", "SRe2L, Yin et al. 2023", training="kd"
        ),
        ProtocolEntry(
            "hard", "SGD with momentum on classes, cosine", "Zhao and Bilen 2021", training="hard"
        ),
        ProtocolEntry(
            "dc",
            "300 epochs of SGD, a tenth of the rate from half of them on, images as they are",
            "Zhao et al. 2021 (DC)",
            training="hard",
            sets={"epochs": 300, "views": "none", **_ZHAO},
        ),
        ProtocolEntry(
            "dsa",
            "as dc, with 1,000 epochs and a family of DSA for each batch",
            "Zhao and Bilen 2021 (DSA, DM)",
            training="hard",
            sets={"epochs": 1000, "views": "colour_crop_cutout_flip_scale_rotate", **_ZHAO},
        ),
        ProtocolEntry(
            "rded",
            "AdamW, half of a cosine, small batches by images per class, CutMix, teachers' labels",
            "Sun et al. 2024 (RDED)",
            training="kd",
            sets={**_SOFT, "soft_eta": 2.0, "batch_size": "auto", "views": "resize_flip"},
        ),
        ProtocolEntry(
            "cda",
            "AdamW, a whole cosine, batches of 128, crops from 8 %, CutMix, teachers' labels",
            "Yin and Shen 2024 (CDA), SRe2L",
            training="kd",
            sets={**_SOFT, "soft_eta": 1.0, "batch_size": 128, "views": "zoom_flip"},
        ),
        ProtocolEntry(
            "rd3",
            "400 epochs of Adam, a whole cosine, batches of 50, CutMix, teachers' labels",
            "Zhong et al. 2026 (RD3)",
            training="kd",
            sets={
                **_SOFT,
                "epochs": 400,
                "soft_optimizer": "adam",
                "soft_weight_decay": 0.0,
                "soft_eta": 1.0,
                "batch_size": 50,
                "views": "resize_flip",
            },
        ),
    ),
)
