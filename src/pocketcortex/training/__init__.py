"""Training: the ensemble over sessions, distillation into students, retraining of pruned models."""

from pocketcortex.training.distill import distill_shared, refresh_batch_norm
from pocketcortex.training.ensemble import (
    SessionFeatures,
    embed,
    fit_members,
    map_ensemble,
    member_disagreement,
    predict_responses,
)
from pocketcortex.training.optimize import Distillation, Monitor
from pocketcortex.training.schedule import EnsembleTraining
from pocketcortex.training.students import (
    Distilled,
    distill_students,
    new_students,
    retrain,
    student_groups,
    students_on_trunk,
)

__all__ = [
    "Distillation",
    "Distilled",
    "EnsembleTraining",
    "Monitor",
    "SessionFeatures",
    "distill_shared",
    "distill_students",
    "embed",
    "fit_members",
    "map_ensemble",
    "member_disagreement",
    "new_students",
    "predict_responses",
    "refresh_batch_norm",
    "retrain",
    "student_groups",
    "students_on_trunk",
]
