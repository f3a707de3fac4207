"""Projectors: small networks that give back soft labels, so that none has to be stored.

A projector is a frozen CLIP image encoder that many can share, LoRA adapters on it, and a head
that starts from the words for the classes. It is fitted to a teacher's soft labels; a student
then asks it for the label of any view.

    projector = projectors.load("projector/")
    probabilities = projector(images)   # [n, c, h, w] -> [n, k]
"""

from projectors.accounting import ProjectorBytes, projector_bytes
from projectors.errors import DivergedError, ProjectorError
from projectors.fidelity import Fidelity, measure_fidelity
from projectors.fitting import FitSettings, FitStep, fit_projector, projector_loss
from projectors.head import Head, HeadSettings, build_head, text_directions
from projectors.lora import attach_adapters, check_adapters, find_targets, merge_adapters
from projectors.projector import AdapterSettings, Preprocessing, Projector, build_projector
from projectors.storage import load, save
from projectors.tower import Tower, bundled_towers, encode_text, load_tower

__all__ = [
    "AdapterSettings",
    "DivergedError",
    "Fidelity",
    "FitSettings",
    "FitStep",
    "Head",
    "HeadSettings",
    "Preprocessing",
    "Projector",
    "ProjectorBytes",
    "ProjectorError",
    "Tower",
    "attach_adapters",
    "build_head",
    "build_projector",
    "bundled_towers",
    "check_adapters",
    "encode_text",
    "find_targets",
    "fit_projector",
    "load",
    "load_tower",
    "measure_fidelity",
    "merge_adapters",
    "projector_bytes",
    "projector_loss",
    "save",
    "text_directions",
]
