"""Training: the ensemble over sessions, distillation into students, retraining of pruned models."""

from pocketcortex.training.distill import Distillation, distill, refresh_batch_norm, retrain
from pocketcortex.training.ensemble import (
    SessionFeatures,
    embed,
    fit_members,
    map_ensemble,
    member_disagreement,
    predict_responses,
)
from pocketcortex.training.schedule import EnsembleTraining

__all__ = [
    "Distillation",
    "EnsembleTraining",
    "SessionFeatures",
    "distill",
    "embed",
    "fit_members",
    "map_ensemble",
    "member_disagreement",
    "predict_responses",
    "refresh_batch_norm",
    "retrain",
]
