"""Partial least squares with the number of components chosen inside fit."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cross_decomposition import PLSRegression

from pocketcortex.core.errors import InputError
from pocketcortex.mapping._linear import LinearMapping
from pocketcortex.mapping._products import (
    centred_kernel,
    feature_mean,
    feature_moments,
    mean_prediction,
    transposed_features_times,
    working_dtype,
)
from pocketcortex.mapping._spectrum import spectrum_of_kernel
from pocketcortex.mapping._validation import checked_training
from pocketcortex.mapping.folds import check_targets_vary, inner_folds_of


class PLSMapping(LinearMapping):
    """Partial least squares regression, as many components as predict best on inner folds.

    scikit-learn's `PLSRegression`, which does the work, on all neurons together. With more features
    than stimuli it is given the stimuli's coordinates along the eigenvectors of their kernel:
    a rotation of the space the centred features span, to which PLS is indifferent, so the result is
    that of all features at a small part of the cost.

    Parameters
    ----------
    n_components
        Numbers of components to choose from: a number alone (not chosen then), or a sequence. None
        is 1 to 25, or to the rank where that is less. The choice has the least held-out squared
        error, in units of each neuron's variance, summed over neurons.
    scale
        Whether to divide features and responses by their standard deviations (ddof 1).
    inner_folds
        Number of folds, dealt out over the stimuli in their order.
    device
        Where the kernel and products with features are computed, "cpu" or "cuda".

    Attributes
    ----------
    n_components_
        The number chosen.
    coef_
        Coefficients of the features in their own units, (n_features, n_targets); scikit-learn's
        keep the transpose.
    intercept_
        Prediction at all features 0, (n_targets,).
    pls_
        The fitted `PLSRegression`, on the coordinates if features outnumber stimuli.
    n_features_in_
        Number of features.

    With one-dimensional targets the axis of targets is absent everywhere.

    References
    ----------
    Wold, Sjöström & Eriksson (2001), PLS-regression: a basic tool of chemometrics, Chemometrics and
    Intelligent Laboratory Systems 58: 109-130; Schrimpf et al. (2018), Brain-Score, bioRxiv 407007
    (25 components on neurons).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 300))
    >>> pls = PLSMapping(5).fit(X, X[:, :2])
    >>> pls.coef_.shape, pls.predict(X).shape
    ((300, 2), (80, 2))
    """

    def __init__(
        self,
        n_components: Any = None,
        *,
        scale: Any = False,
        inner_folds: Any = 5,
        device: Any = "cpu",
    ) -> None:
        self.n_components = n_components
        self.scale = scale
        self.inner_folds = inner_folds
        self.device = device

    def fit(self, X: Any, y: Any, groups: Any = None) -> "PLSMapping":
        """Return the estimator fitted to features (n_stimuli, n_features) and targets.

        Parameters
        ----------
        X
            Features, array-like; products are in float32 unless X is float64.
        y
            Targets, (n_stimuli, n_targets) or (n_stimuli,), any unit, without NaN.
        groups
            Label of what must stay in one inner fold, such as the content of an image,
            (n_stimuli,).

        Returns
        -------
        PLSMapping
            Itself.

        Raises
        ------
        InputError
            If features or targets hold NaN or infinity, a target is constant, or a setting is out
            of range.
        ValueError
            From scikit-learn, for anything else that is not a numeric matrix of 2 stimuli or more.
        """
        X, Y, single = checked_training(self, X, y)
        check_targets_vary(Y)
        mean, sd = feature_moments(X) if self.scale else (feature_mean(X), None)
        target_sd = Y.std(axis=0, ddof=1) if self.scale else np.ones(Y.shape[1])
        wide = X.shape[1] > X.shape[0]
        scaled = sd if sd is None else sd * np.sqrt(len(X) / (len(X) - 1))
        if wide:
            coordinates, to_dual = _coordinates(X, mean, scaled, self.device)
        else:
            coordinates = (X.astype(np.float64) - mean) / (1.0 if scaled is None else scaled)
        candidates = self._candidates(coordinates)
        labels = None if groups is None else np.asarray(groups)
        self.n_components_ = candidates[0]
        if len(candidates) > 1:
            folds = inner_folds_of(len(X), self.inner_folds, labels)
            self.n_components_ = _choose(coordinates, Y / target_sd, folds, candidates)
        self.pls_ = _fitted(self.n_components_, coordinates, Y / target_sd)
        coef = self.pls_.coef_.T * target_sd  # (n_coordinates, n_targets)
        if wide:
            coef = transposed_features_times(X, mean, to_dual @ coef, self.device)
            coef = coef if scaled is None else coef / scaled[:, None] ** 2
        else:
            coef = coef if scaled is None else coef / scaled[:, None]
        coef = np.asarray(coef, dtype=working_dtype(X))
        target_mean = Y.mean(axis=0)
        intercept = target_mean - mean_prediction(mean, coef)
        self._feature_mean, self._target_mean = mean, target_mean
        self.coef_ = coef[:, 0] if single else coef
        self.intercept_ = intercept[0] if single else intercept
        return self

    def _candidates(self, coordinates: Float[np.ndarray, "n_stimuli n_coordinates"]) -> list[int]:
        n_stimuli, n_coordinates = coordinates.shape
        chosen = not isinstance(self.n_components, int | np.integer)
        n_fitted = n_stimuli - (-(-n_stimuli // self.inner_folds) if chosen else 0)
        most = max(1, min(n_coordinates, n_fitted))
        if self.n_components is None:
            return list(range(1, min(25, most) + 1))
        numbers = sorted({int(n) for n in np.atleast_1d(self.n_components)})
        if not numbers or numbers[0] < 1 or numbers[-1] > most:
            raise InputError(
                f"n_components must be from 1 to {most} with {n_stimuli} stimuli of "
                f"{self.n_features_in_} features, got {self.n_components!r}"
            )
        return numbers


def _coordinates(
    X: Float[np.ndarray, "n_stimuli n_features"],
    mean: Float[np.ndarray, " n_features"],
    scale: Float[np.ndarray, " n_features"] | None,
    device: str,
) -> tuple[Float[np.ndarray, "n_stimuli n_kept"], Float[np.ndarray, "n_stimuli n_kept"]]:
    """Return coordinates of stimuli along their kernel's eigenvectors, and what makes them dual.

    Coefficients C of the coordinates are those of the centred, scaled features by the transposed
    features times (the second result times C).
    """
    spectrum = spectrum_of_kernel(centred_kernel(X, mean, scale, device))
    floor = float(spectrum.values.max()) * len(X) * float(np.finfo(working_dtype(X)).eps)
    kept = spectrum.values > floor
    root = torch.sqrt(spectrum.values[kept])
    vectors = spectrum.vectors[:, kept]
    return (vectors * root).cpu().numpy(), (vectors / root).cpu().numpy()


def _choose(
    T: Float[np.ndarray, "n_stimuli n_coordinates"],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    folds: Int[np.ndarray, " n_stimuli"],
    candidates: list[int],
) -> int:
    """Return the number of components of least held-out squared error, in units of variance."""
    error = np.zeros(len(candidates))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        pls = _fitted(candidates[-1], T[train], Y[train])
        centred = T[test] - T[train].mean(axis=0)
        for index, n in enumerate(candidates):  # the leading components are those of a smaller fit
            coef = pls.x_rotations_[:, :n] @ pls.y_loadings_[:, :n].T
            missed = Y[test] - Y[train].mean(axis=0) - centred @ coef
            error[index] += (missed**2 / Y.var(axis=0)).sum()
    return candidates[int(np.argmin(error))]


def _fitted(
    n_components: int,
    T: Float[np.ndarray, "n_stimuli n_coordinates"],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
) -> PLSRegression:
    """Return the fit; components left when nothing remains to explain stay 0, silently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y residual is constant")
        return PLSRegression(n_components, scale=False).fit(T, Y)
