"""Projectors: small networks that predict soft labels, so that none has to be stored.

A projector is a frozen CLIP image encoder that many can share, LoRA adapters on it, and a head
initialised from the class names. It is fitted to a teacher's soft labels; students then take the
label of any view from it.

    projector = projectors.load("projector/")
    probabilities = projector(images)   # [n, c, h, w] -> [n, k]
"""

from projectors.errors import DivergedError, ProjectorError
from projectors.export.deployment import Deployed
from projectors.files.accounting import FileBytes, ProjectorBytes, file_bytes, projector_bytes
from projectors.files.compact import Storage
from projectors.files.storage import load, rounded, save
from projectors.fitting.fidelity import Fidelity, measure_fidelity, nearest_mean_agreement
from projectors.fitting.loop import FitSettings, FitState, FitStep, fit_projector, projector_loss
from projectors.fitting.one_call import Fitted, fit
from projectors.fitting.online_labels import OnlineLabels
from projectors.fitting.refinement import RefineSettings, RefineStep, refine_images
from projectors.fitting.stopping import BestCheck, EarlyStopping
from projectors.model.head import Head, HeadSettings, build_head, text_directions
from projectors.model.lora import attach_adapters, check_adapters, merge_adapters
from projectors.model.preparation import Preprocessing, image_encoder
from projectors.model.projector import AdapterSettings, Projector, build_projector
from projectors.model.targets import find_targets, target_kind, target_ranks
from projectors.model.tower import Tower, bundled_towers, encode_text, load_tower

__all__ = [
    "AdapterSettings",
    "BestCheck",
    "Deployed",
    "DivergedError",
    "EarlyStopping",
    "Fidelity",
    "FileBytes",
    "FitSettings",
    "FitState",
    "FitStep",
    "Fitted",
    "Head",
    "HeadSettings",
    "OnlineLabels",
    "Preprocessing",
    "Projector",
    "ProjectorBytes",
    "ProjectorError",
    "RefineSettings",
    "RefineStep",
    "Storage",
    "Tower",
    "attach_adapters",
    "build_head",
    "build_projector",
    "bundled_towers",
    "check_adapters",
    "encode_text",
    "file_bytes",
    "find_targets",
    "fit",
    "fit_projector",
    "image_encoder",
    "load",
    "load_tower",
    "measure_fidelity",
    "merge_adapters",
    "nearest_mean_agreement",
    "projector_bytes",
    "projector_loss",
    "refine_images",
    "rounded",
    "save",
    "target_kind",
    "target_ranks",
    "text_directions",
]
