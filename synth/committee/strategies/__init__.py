"""Label strategies: formulas that make labels from votes, or change stored labels."""

from synth.committee.strategies.active import draw_included, margin_gains, max_min_weights
from synth.committee.strategies.crowd import CROWD_METHODS, aggregate_crowd, crowd_posterior
from synth.committee.strategies.means import mean_logits, mean_probabilities
from synth.committee.strategies.refine import is_hard_epoch, refined_labels, smoothed_logits
from synth.committee.strategies.zones import (
    Zones,
    calibrate,
    draw_cutmix_boxes,
    next_of_image,
    replace_dropped,
    self_mix,
    zone_of,
)

__all__ = [
    "CROWD_METHODS",
    "Zones",
    "aggregate_crowd",
    "calibrate",
    "crowd_posterior",
    "draw_cutmix_boxes",
    "draw_included",
    "is_hard_epoch",
    "margin_gains",
    "max_min_weights",
    "mean_logits",
    "mean_probabilities",
    "next_of_image",
    "refined_labels",
    "replace_dropped",
    "self_mix",
    "smoothed_logits",
    "zone_of",
]
