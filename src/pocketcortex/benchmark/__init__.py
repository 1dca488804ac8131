"""Networks against recordings: regression and representational similarity, layer by layer."""

from pocketcortex.benchmark.rdm_bootstrap import RDMBootstrap, bootstrap_rdm_scores
from pocketcortex.benchmark.rdms import compare_rdms, response_rdm
from pocketcortex.benchmark.regression import RegressionScores, regression_scores
from pocketcortex.benchmark.rsa import RSAScores, rsa_scores
from pocketcortex.benchmark.rsr import rsr_score

__all__ = [
    "RDMBootstrap",
    "RSAScores",
    "RegressionScores",
    "bootstrap_rdm_scores",
    "compare_rdms",
    "regression_scores",
    "response_rdm",
    "rsa_scores",
    "rsr_score",
]
