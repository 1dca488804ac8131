"""How a network is scored against an area."""

from dataclasses import dataclass
from typing import Literal, get_args

from pocketcortex.benchmark.rdms import Comparison
from pocketcortex.benchmark.rsa import LEAST_STIMULI
from pocketcortex.core import InputError

Analysis = Literal["regression", "rsa"]


@dataclass(frozen=True)
class AreaSettings:
    """How a network is scored against an area.

    Attributes
    ----------
    analyses
        ``"regression"`` (areas with single neurons), ``"rsa"`` or both.
    comparison
        Of dissimilarity matrices.
    n_folds
        Folds of honest regression; 2: chosen on one half of the images, reported on the other.
    n_splits
        Halvings of honest RSA.
    n_permutations
        Of each null.
    n_resamples
        Of each interval.
    level
        Coverage of intervals.
    rsa_stimuli
        Images of RSA at most: more are thinned to so many, drawn by seed.

    Raises
    ------
    InputError
        If an analysis is unknown or none is asked for, or a number is out of range.
    """

    analyses: tuple[str, ...] = ("regression", "rsa")
    comparison: Comparison = "pearson"
    n_folds: int = 2
    n_splits: int = 10
    n_permutations: int = 5
    n_resamples: int = 1000
    level: float = 0.95
    rsa_stimuli: int = 300

    def __post_init__(self) -> None:
        known = get_args(Analysis)
        if not self.analyses or not set(self.analyses) <= set(known):
            raise InputError(f"analyses must be among {', '.join(known)}, got {self.analyses}")
        least = {"n_folds": 2, "n_splits": 1, "n_permutations": 0, "n_resamples": 2}
        for name, value in (least | {"rsa_stimuli": 2 * LEAST_STIMULI}).items():
            if getattr(self, name) < value:
                raise InputError(f"{name} must be {value} or more, got {getattr(self, name)}")
        if not 0 < self.level < 1:
            raise InputError(f"level must be within 0..1, both excluded, got {self.level}")
