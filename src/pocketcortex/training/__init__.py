"""Training: the ensemble over sessions, distillation into students, retraining of pruned models."""

from pocketcortex.training.distill import Distillation, distill, refresh_batch_norm, retrain
from pocketcortex.training.ensemble import (
    EnsembleTraining,
    SessionFeatures,
    embed,
    fit_members,
    map_ensemble,
    predict_responses,
)

__all__ = [
    "Distillation",
    "EnsembleTraining",
    "SessionFeatures",
    "distill",
    "embed",
    "fit_members",
    "map_ensemble",
    "predict_responses",
    "refresh_batch_norm",
    "retrain",
]
