"""Networks against recordings: regression and representational similarity, layer by layer."""

from pocketcortex.benchmark.area_regression import neuron_draws
from pocketcortex.benchmark.area_scores import AreaScores, score_area
from pocketcortex.benchmark.area_settings import AreaSettings
from pocketcortex.benchmark.ceilings import (
    neuron_ceilings,
    split_half_rdm_ceiling,
    subject_rdm_ceiling,
)
from pocketcortex.benchmark.prediction_bootstrap import PredictionBootstrap, bootstrap_predictions
from pocketcortex.benchmark.questions import group_means, property_effect, trained_minus_random
from pocketcortex.benchmark.ranking import Correction, adjusted_p, rank_models
from pocketcortex.benchmark.rdm_bootstrap import RDMBootstrap, bootstrap_rdm_scores
from pocketcortex.benchmark.rdms import MIN_CELLS, compare_rdms, response_rdm
from pocketcortex.benchmark.regression import RegressionScores, regression_scores
from pocketcortex.benchmark.rsa import RSAScores, rsa_scores
from pocketcortex.benchmark.rsa_bootstrap import bootstrap_rsa, bootstrap_rsr
from pocketcortex.benchmark.rsr import rsr_predictions, rsr_score

__all__ = [
    "MIN_CELLS",
    "AreaScores",
    "AreaSettings",
    "Correction",
    "PredictionBootstrap",
    "RDMBootstrap",
    "RSAScores",
    "RegressionScores",
    "adjusted_p",
    "bootstrap_predictions",
    "bootstrap_rdm_scores",
    "bootstrap_rsa",
    "bootstrap_rsr",
    "compare_rdms",
    "group_means",
    "neuron_ceilings",
    "neuron_draws",
    "property_effect",
    "rank_models",
    "regression_scores",
    "response_rdm",
    "rsa_scores",
    "rsr_predictions",
    "rsr_score",
    "score_area",
    "split_half_rdm_ceiling",
    "subject_rdm_ceiling",
    "trained_minus_random",
]
