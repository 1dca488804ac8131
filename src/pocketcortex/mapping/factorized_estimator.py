"""The scikit-learn face of factorized maps."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from pocketcortex.core.errors import InputError
from pocketcortex.mapping._products import working_dtype
from pocketcortex.mapping._validation import checked_new, checked_training
from pocketcortex.mapping.factorized import (
    RELATIVE_PENALTIES,
    Alternating,
    Gradient,
    fit_factorized,
)
from pocketcortex.mapping.folds import check_targets_vary, inner_folds_of

_AT_ONCE = 64  # stimuli predicted together


class FactorizedMapping(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    r"""Factorized map of each neuron: which channels (mixing) times where (spatial).

    .. math::
        \hat r_n = \sum_k m_{nk} \sum_{ij} s_{nij} X_{kij} + b_n

    Both solvers start from the rank-one part of the neuron's ridge solution: its weights reshaped
    to (positions, channels), first singular pair, each vector times :math:`\sqrt{s_1}`. Responses
    are z-scored inside; weights and predictions are in the responses' units. Everything chosen
    (ridge penalty, penalty, number of steps) is chosen inside the stimuli given to `fit`.

    ``solver="alternating"`` minimizes

    .. math::
        \sum_i (y_i - \hat y_i)^2 + \lambda_n \|s_n\|^2 \|m_n\|^2

    by exact ridge steps in m with s fixed and in s with m fixed, so the loss falls at every step.
    As scale can move between s and m, L2 penalties :math:`\lambda_m \|m\|^2 + \lambda_s \|s\|^2`
    amount, at the best scale, to :math:`2 \sqrt{\lambda_m \lambda_s} \|m\| \|s\|`: one penalty on
    the product, with the same stationary points as the one above, which is that of ridge on the
    rank-one weights. :math:`\lambda_n` is chosen for each neuron by inner folds, in units of its
    ridge penalty.

    ``solver="gradient"`` follows Adam on mean squared error plus the two L2 penalties, all stimuli
    at each step, and stops each neuron at its best step on the first inner fold; then it starts
    again on all stimuli and takes as many steps. The alternating solver predicted better on the
    recordings it was tried on, and is the default.

    Parameters
    ----------
    map_shape
        (channels, rows, columns) of the maps that rows of a flat X hold, channels slowest. None
        takes X as it comes: (n_stimuli, channels, rows, columns), or (n_stimuli, channels), maps of
        one position.
    solver
        "alternating" or "gradient".
    n_components
        The fit runs in so many principal components of the channels (over stimuli and positions of
        the training set), which is several times faster; None uses all channels.
    inner_folds
        Number of folds, dealt out over the stimuli in their order, that choose the penalty; the
        first is the gradient solver's validation part.
    relative_penalties
        Alternating solver: penalties to choose from, in units of the neuron's ridge penalty. One
        alone is not chosen, and saves the inner folds.
    tol
        Alternating solver: a neuron stops when a step lowers its loss by less than this fraction.
    lambda_mix, lambda_spatial
        Gradient solver: L2 penalties, beside the mean squared error of z-scored responses.
    learning_rate
        Gradient solver: of Adam, in units of the weights' root mean square at the start.
    max_steps
        Most steps; None is 20 (alternating) or 200 (gradient).
    device
        Where to compute, "cpu" or "cuda"; it needs float64.

    Attributes
    ----------
    spatial_
        Spatial weights, (n_neurons, rows, columns). Their sum is not negative.
    mixing_
        Mixing weights, (n_neurons, channels), in the responses' units; each neuron's have the same
        norm as its spatial weights.
    intercept_
        Prediction at all features 0, (n_neurons,).
    penalty_
        Chosen penalty, (n_neurons,); NaN with the gradient solver.
    ridge_alpha_
        Penalty of the ridge solution each neuron started from, (n_neurons,).
    n_steps_
        Steps taken, (n_neurons,).
    held_out_predictions_
        Of each training stimulus by weights that its inner fold did not see, at the penalty chosen,
        (n_stimuli, n_neurons); as a score slightly too good, since the penalty was chosen by them.
        Absent with the gradient solver or one penalty.
    map_shape_
        (channels, rows, columns).
    n_features_in_
        Size of X's second axis.

    With one-dimensional targets the axis of neurons is absent everywhere.

    References
    ----------
    Klindt et al. (2017), Neural system identification for large populations separating "what" and
    "where", NeurIPS 30 (the model); Cadena et al. (2019), PLOS Computational Biology
    15: e1006897 (readouts from deep features).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 8, 5, 5))
    >>> y = X[:, 3, 2, 2] - X[:, 5, 2, 2] + 4
    >>> mapping = FactorizedMapping().fit(X, y)
    >>> mapping.spatial_.shape, mapping.mixing_.shape, np.argmax(mapping.spatial_)
    ((5, 5), (8,), np.int64(12))
    """

    def __init__(
        self,
        map_shape: Any = None,
        *,
        solver: Any = "alternating",
        n_components: Any = 256,
        inner_folds: Any = 4,
        relative_penalties: Any = RELATIVE_PENALTIES,
        tol: Any = 1e-3,
        lambda_mix: Any = 0.1,
        lambda_spatial: Any = 0.1,
        learning_rate: Any = 0.02,
        max_steps: Any = None,
        device: Any = "cpu",
    ) -> None:
        self.map_shape = map_shape
        self.solver = solver
        self.n_components = n_components
        self.inner_folds = inner_folds
        self.relative_penalties = relative_penalties
        self.tol = tol
        self.lambda_mix = lambda_mix
        self.lambda_spatial = lambda_spatial
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.device = device

    def fit(self, X: Any, y: Any, groups: Any = None) -> "FactorizedMapping":
        """Return the estimator fitted to maps and responses.

        Parameters
        ----------
        X
            Maps (n_stimuli, channels, rows, columns), or flat (n_stimuli, n_features); products are
            in float32 unless X is float64.
        y
            Responses, (n_stimuli, n_neurons) or (n_stimuli,), any unit, without NaN.
        groups
            Label of what must stay in one inner fold, such as the content of an image,
            (n_stimuli,).

        Returns
        -------
        FactorizedMapping
            Itself.

        Raises
        ------
        InputError
            If maps or responses hold NaN or infinity, a response is constant, the shape of X does
            not agree with `map_shape`, or a setting is out of range.
        ValueError
            From scikit-learn, for anything else that is not a numeric array of 2 stimuli or more.
        """
        X, targets, single = checked_training(self, X, y, maps=True)
        check_targets_vary(targets)
        solver = self._checked_solver()
        labels = None if groups is None else np.asarray(groups)
        folds = inner_folds_of(len(X), self.inner_folds, labels)
        self.map_shape_ = self._shape_of_maps(X)
        fit = fit_factorized(
            X.reshape(len(X), self.map_shape_[0], -1),
            targets,
            folds,
            solver=solver,
            n_components=self.n_components,
            groups=labels,
            device=self.device,
        )
        spatial = fit.spatial.reshape(-1, *self.map_shape_[1:])
        self.spatial_ = spatial[0] if single else spatial
        self.mixing_ = fit.mixing[0] if single else fit.mixing
        self.intercept_ = fit.intercept[0] if single else fit.intercept
        self.penalty_ = fit.penalty[0] if single else fit.penalty
        self.ridge_alpha_ = fit.ridge_alpha[0] if single else fit.ridge_alpha
        self.n_steps_ = fit.steps[0] if single else fit.steps
        if (held_out := fit.held_out_predictions) is not None:
            self.held_out_predictions_ = held_out[:, 0] if single else held_out
        return self

    def predict(self, X: Any) -> Float[np.ndarray, "..."]:
        """Return predictions, float64, in the responses' units.

        Parameters
        ----------
        X
            Maps of new stimuli, shaped as those fitted on.

        Returns
        -------
        np.ndarray
            (n_stimuli, n_neurons), or (n_stimuli,) if fitted to one-dimensional responses.

        Raises
        ------
        InputError
            If maps hold NaN or infinity, or have another shape than those fitted on.
        ValueError
            From scikit-learn: not fitted, or another number of features.
        """
        check_is_fitted(self)
        X = checked_new(self, X, maps=True)
        if (shape := self._shape_of_maps(X)) != self.map_shape_:
            raise InputError(f"maps must be {self.map_shape_} as fitted, got {shape}")
        single = self.mixing_.ndim == 1
        dtype = working_dtype(X)
        mixing = torch.from_numpy(np.atleast_2d(self.mixing_).astype(dtype)).to(self.device)
        spatial = self.spatial_[None] if single else self.spatial_
        where = torch.from_numpy(spatial.reshape(len(spatial), -1).astype(dtype)).to(mixing)
        flat = X.reshape(len(X), self.map_shape_[0], -1)
        parts = []
        for start in range(0, len(X), _AT_ONCE):
            maps = torch.from_numpy(flat[start : start + _AT_ONCE].astype(dtype)).to(mixing)
            parts.append(((mixing @ maps) * where).sum(2, dtype=torch.float64).cpu().numpy())
        predictions = np.concatenate(parts) + self.intercept_
        return np.asarray(predictions[:, 0] if single else predictions)

    def _shape_of_maps(self, X: Float[np.ndarray, "n_stimuli ..."]) -> tuple[int, int, int]:
        if self.map_shape is None:
            if X.ndim == 2:
                return (X.shape[1], 1, 1)
            if X.ndim == 4:
                return X.shape[1], X.shape[2], X.shape[3]
            raise InputError(
                "X must be (n_stimuli, channels, rows, columns) or (n_stimuli, channels), got "
                f"shape {X.shape}"
            )
        channels, rows, columns = (int(size) for size in self.map_shape)
        if X.shape[1:] not in {(channels, rows, columns), (channels * rows * columns,)}:
            raise InputError(
                f"X must hold maps of map_shape {self.map_shape}, flat or not, got shape {X.shape}"
            )
        return channels, rows, columns

    def _checked_solver(self) -> Alternating | Gradient:
        if self.n_components is not None and self.n_components < 1:
            raise InputError(f"n_components must be 1 or more, or None, got {self.n_components}")
        if self.max_steps is not None and self.max_steps < 1:
            raise InputError(f"max_steps must be 1 or more, or None, got {self.max_steps}")
        if self.solver == "alternating":
            relative = tuple(float(value) for value in self.relative_penalties)
            if not relative or not all(0 < value < np.inf for value in relative):
                raise InputError(
                    f"relative_penalties must be one or more finite numbers above 0, got {relative}"
                )
            return Alternating(relative, self.max_steps or 20, self.tol)
        if self.solver == "gradient":
            if min(self.lambda_mix, self.lambda_spatial) < 0 or self.learning_rate <= 0:
                raise InputError(
                    "lambda_mix and lambda_spatial must not be negative and learning_rate must be "
                    f"above 0, got {self.lambda_mix}, {self.lambda_spatial}, {self.learning_rate}"
                )
            return Gradient(
                self.lambda_mix, self.lambda_spatial, self.learning_rate, self.max_steps or 200
            )
        raise InputError(f"solver must be 'alternating' or 'gradient', got {self.solver!r}")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
