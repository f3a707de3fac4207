"""Recovery: images are optimised so that a committee recognises them.

SRe2L (Yin et al. 2023), SRe2L++ and CV-DD (Cui et al. 2025) are settings of `recover_images`; so
is the image side of LPLD (Xiao and He 2024), with batches of one class and its own statistics.
"""

from synth.recovery.aims import Aim, AnchorAim, DirectionAim, NormAim, gradient_directions
from synth.recovery.blending import (
    Blending,
    edge_complexity,
    fit_complexity,
    nearest_patches,
)
from synth.recovery.difficulty import difficulty_groups, precision_scores
from synth.recovery.loop import (
    RecoverProblem,
    RecoverSettings,
    RecoverState,
    RecoverStep,
    Teacher,
    ValidImages,
    first_state,
    recover_images,
    teachers_gradient,
)
from synth.recovery.schedules import (
    RecoverBatch,
    Schedule,
    draw_members,
    drawn_anew,
    every_set_in_turn,
    largest_priors,
    plan_batches,
)
from synth.recovery.statistics import (
    NormStatistics,
    class_statistics,
    running_statistics,
    statistics_distance,
    watch_batch_norms,
)
from synth.recovery.views import SharedView, SharedViews

__all__ = [
    "Aim",
    "AnchorAim",
    "Blending",
    "DirectionAim",
    "NormAim",
    "NormStatistics",
    "RecoverBatch",
    "RecoverProblem",
    "RecoverSettings",
    "RecoverState",
    "RecoverStep",
    "Schedule",
    "SharedView",
    "SharedViews",
    "Teacher",
    "ValidImages",
    "class_statistics",
    "difficulty_groups",
    "draw_members",
    "drawn_anew",
    "edge_complexity",
    "every_set_in_turn",
    "first_state",
    "fit_complexity",
    "gradient_directions",
    "largest_priors",
    "nearest_patches",
    "plan_batches",
    "precision_scores",
    "recover_images",
    "running_statistics",
    "statistics_distance",
    "teachers_gradient",
    "watch_batch_norms",
]
