"""Scores of a network's layers by ridge regression, as published and without its optimism."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float64, Int, Shaped

from pocketcortex.benchmark._responses import Usable, usable_responses
from pocketcortex.core import InputError
from pocketcortex.mapping import leave_one_out_from_kernel, predict_from_kernel, stimulus_folds
from pocketcortex.metrics import noise_corrected_r2, pearson_r2
from pocketcortex.zoo import NetworkKernels

Protocol = Literal["honest", "published"]
Kind = Literal["standardized", "centred", "projected"]
"""Features z-scored; only centred; centred, and scaled as after random projection."""

N_PROJECTIONS = 4096
"""Dimensions that 119 stimuli were projected to (Johnson-Lindenstrauss, eps 0.1)."""

PEARSON, R2, NOISE_CORRECTED = "pearson r", "r2", "noise-corrected r2"
_LEAST_IN_A_FOLD = 5
_CONSTANT = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class RegressionScores:
    """How well each layer, and the layer chosen for it, predicts each neuron.

    Attributes
    ----------
    protocol
        ``"honest"`` or ``"published"``.
    layers
        Names of the network's layers.
    layer_r
        Pearson's r of every layer, (n_layers, n_neurons).
    chosen
        Place in `layers` of the layer chosen for each neuron, one row for each choice made
        (folds; one row if published), (n_choices, n_neurons). Without meaning where the neuron has
        a reason.
    alpha
        Penalty of the chosen layer, (n_choices, n_neurons).
    values
        Scores of the chosen layers by metric, each (n_neurons,).
    null
        Pearson's r of the chosen layer when responses belong to other stimuli, all of it done
        again, (n_permutations, n_neurons).
    predictions
        Of the chosen layers for stimuli they were not fitted to, less their mean over the fold,
        (n_stimuli, n_neurons).
    folds
        Fold of each stimulus, (n_stimuli,); all 0 if published.
    n_stimuli
        Number of stimuli.
    reasons
        Neurons that cannot be scored, each with the reason; NaN everywhere.
    layer_reasons
        Layers that cannot be used, each with the reason.
    """

    protocol: Protocol
    layers: tuple[str, ...]
    layer_r: Float64[np.ndarray, "n_layers n_neurons"]
    chosen: Int[np.ndarray, "n_choices n_neurons"]
    alpha: Float64[np.ndarray, "n_choices n_neurons"]
    values: Mapping[str, Float64[np.ndarray, " n_neurons"]]
    null: Float64[np.ndarray, "n_permutations n_neurons"]
    predictions: Float64[np.ndarray, "n_stimuli n_neurons"]
    folds: Int[np.ndarray, " n_stimuli"]
    n_stimuli: int
    reasons: Mapping[int, str]
    layer_reasons: Mapping[str, str]

    def __repr__(self) -> str:
        scored = self.values[PEARSON][np.isfinite(self.values[PEARSON])]
        mean = f"mean r {scored.mean():.3f}" if scored.size else "none scored"
        return (
            f"RegressionScores({self.protocol}: {len(self.layers)} layers, "
            f"{self.layer_r.shape[1]} neurons, {mean})"
        )

    def chosen_layers(self) -> list[str]:
        """Return each neuron's layer by name, `a | b` where the choices differ, "" for none."""
        names = []
        for neuron, places in enumerate(self.chosen.T):
            picked = [self.layers[place] for place in places]
            joined = picked[0] if len(set(picked)) == 1 else " | ".join(picked)
            names.append("" if neuron in self.reasons else joined)
        return names

    def table(self, *, model: str, every_layer: bool = False) -> pd.DataFrame:
        """Return the scores as a tidy table.

        Parameters
        ----------
        model
            The network's name, for the column `model`.
        every_layer
            Whether to give a row for each neuron and layer too, marked "layer" in `choice`; those
            of the chosen layers are marked "chosen".

        Returns
        -------
        pd.DataFrame
            Columns model, neuron, choice, layer, metric, value, null (mean over permutations),
            n_stimuli, reason.
        """
        n_neurons = self.layer_r.shape[1]
        reasons = [self.reasons.get(neuron, "") for neuron in range(n_neurons)]
        null = self.null.mean(axis=0) if len(self.null) else np.full(n_neurons, np.nan)
        chosen = self.chosen_layers()
        parts = [
            _rows("chosen", chosen, metric, value, null if metric == PEARSON else np.nan, reasons)
            for metric, value in self.values.items()
        ]
        for name, value in zip(self.layers, self.layer_r, strict=True) if every_layer else ():
            why = self.layer_reasons.get(name, "")
            of_layer = [reason or why for reason in reasons]
            parts.append(_rows("layer", [name] * n_neurons, PEARSON, value, np.nan, of_layer))
        out = pd.concat(parts, ignore_index=True)
        out.insert(0, "model", model)
        out.insert(len(out.columns) - 1, "n_stimuli", self.n_stimuli)
        return out


_UNDEFINED = "undefined: constant predictions, or responses as noisy as they vary"


def _rows(
    choice: str,
    layers: list[str],
    metric: str,
    value: Float64[np.ndarray, " n_neurons"],
    null: Float64[np.ndarray, " n_neurons"] | float,
    reasons: list[str],
) -> pd.DataFrame:
    """Return one row a neuron; a value that is there needs no reason."""
    why = ["" if np.isfinite(v) else r or _UNDEFINED for v, r in zip(value, reasons, strict=True)]
    return pd.DataFrame(
        {
            "neuron": np.arange(len(value)), "choice": choice, "layer": layers, "metric": metric,
            "value": value, "null": null, "reason": why,
        }
    )  # fmt: skip


def regression_scores(
    kernels: NetworkKernels,
    responses: Float64[np.ndarray, "n_stimuli n_repeats n_neurons"],
    *,
    rng: np.random.Generator,
    protocol: Protocol = "honest",
    kind: Kind = "standardized",
    alphas: npt.ArrayLike | None = None,
    n_folds: int = 2,
    n_permutations: int = 1,
    groups: Shaped[np.ndarray, " n_stimuli"] | None = None,
) -> RegressionScores:
    r"""Return how well a network's layers predict neurons by ridge regression from all features.

    ``"published"`` (Conwell et al.): leave-one-out predictions at alpha 1, Pearson's r over all
    stimuli, and for each neuron the layer that comes out best on these same data. Nothing corrects
    for that choice, nor for the negative r of leave-one-out predictions of noise. There, features
    were projected at random to 4,096 dimensions and z-scored after that. Where each projection
    draws on many features, all have about the same variance, and this makes the kernel of features
    that are only centred, scaled to a mean diagonal of 4,096: ``kind="projected"``. By contrast
    ``"standardized"`` z-scores the features themselves.

    ``"honest"``: stimuli are dealt into folds. All is chosen by the stimuli outside a fold: alpha
    for each neuron and layer, and the layer, by exact leave-one-out error within them. The chosen
    layer, fitted to them, predicts the fold. Pearson's r is taken within each fold and averaged
    over folds: as a fold's responses have no part in its predictions, r is 0 on average for neurons
    that have nothing to do with the features. r² and noise-corrected r² are taken once over
    all stimuli, the folds' means taken out of predictions and responses. With two folds this is
    choice on one half and report on the other, both ways round; more folds leave more stimuli to
    fit on.

    The scales of z-scored features are those over all stimuli in both: they are no responses.

    Parameters
    ----------
    kernels
        From :func:`stream_kernels`, n_stimuli of them.
    responses
        One value a repeat, NaN where a repeat is missing; repeat averages as one repeat.
    rng
        Source of folds and permutations.
    protocol
        As above.
    kind
        Features z-scored (``"standardized"``), only centred, or centred and scaled as above.
    alphas
        Penalties to choose from; a single one for ``"published"``. By default 1 for
        ``"published"``, for ``"honest"`` 17 from 1e-4 to 1e4 times the kernel's mean eigenvalue.
    n_folds
        Number of folds of ``"honest"``; a fold has 5 stimuli or more.
    n_permutations
        How often all is done again with responses given to other stimuli, the same order for all
        neurons. They share the kernels' eigenvectors.
    groups
        Label of what must stay in one fold and is left out together, such as an image's content.

    Returns
    -------
    RegressionScores
        NaN for what cannot be scored, with the reason.

    Raises
    ------
    InputError
        If kernels and responses are of different stimuli, no layer or no neuron is usable, or
        protocol, kind, alphas, n_folds or n_permutations is out of range.

    References
    ----------
    Conwell et al. (2021), Neural regression, representational similarity, model zoology & neural
    taskonomy at scale in rodent visual cortex, NeurIPS 34. Leave-one-out without refitting: Hastie,
    Tibshirani & Friedman (2009), section 7.10.1.
    """
    _check(kernels, responses, protocol, kind, n_permutations)
    usable = usable_responses(responses)
    stack = _Stack(kernels, kind)
    layer_reasons = dict(kernels.reasons)
    for k, name in enumerate(kernels.layers):
        if name not in layer_reasons and not stack[k].diagonal().sum() > 0:
            layer_reasons[name] = "features do not vary over stimuli"
    layers = [k for k, name in enumerate(kernels.layers) if name not in layer_reasons]
    if not layers:
        raise InputError(f"no layer is usable: {dict(list(layer_reasons.items())[:3])}")
    orders = [rng.permutation(len(responses)) for _ in range(n_permutations)]
    Y = np.hstack([usable.mean, *(usable.mean[order] for order in orders)])
    if protocol == "published":
        alpha = _single_alpha(alphas)
        choices = [_published(stack, layers, Y, alpha, groups)]
    else:
        folds = stimulus_folds(len(responses), n_folds=n_folds, rng=rng, groups=groups)
        if np.bincount(folds).min() < _LEAST_IN_A_FOLD:
            raise InputError(
                f"n_folds={n_folds} leaves fewer than {_LEAST_IN_A_FOLD} of {len(folds)} stimuli "
                "in a fold, too few for a correlation; ask for fewer folds"
            )
        choices = [
            _honest(stack, layers, Y, folds == fold, alphas, groups) for fold in range(n_folds)
        ]
    return _assemble(kernels, responses, protocol, usable, choices, n_permutations, layer_reasons)


class _Stack:
    """The layers' kernels of one kind, a layer at a time: all of them may not fit into memory."""

    def __init__(self, kernels: NetworkKernels, kind: Kind) -> None:
        self.kernels = kernels.standardized if kind == "standardized" else kernels.centred
        self.projected = kind == "projected"

    def __len__(self) -> int:
        return len(self.kernels)

    def __getitem__(self, k: int) -> Float64[np.ndarray, "n n"]:
        kernel = np.asarray(self.kernels[k])
        scale = np.trace(kernel) / len(kernel) / N_PROJECTIONS if self.projected else 1.0
        return kernel / scale if scale > 0 else kernel


@dataclass(frozen=True)
class _Choice:
    """One choice of a layer for each column of targets, and its scores on the stimuli reported."""

    test: Shaped[np.ndarray, " n_stimuli"]
    r: Float64[np.ndarray, "n_layers n_columns"]
    best: Int[np.ndarray, " n_columns"]
    alpha: Float64[np.ndarray, " n_columns"]
    predictions: Float64[np.ndarray, "n_test n_columns"]


def _published(
    stack: _Stack,
    layers: list[int],
    Y: Float64[np.ndarray, "n n_columns"],
    alpha: float,
    groups: Shaped[np.ndarray, " n"] | None,
) -> _Choice:
    def predict(k: int) -> tuple[Any, Any, Any]:
        predictions = leave_one_out_from_kernel(stack[k], Y, alpha=alpha, groups=groups)
        r = column_pearson(Y, predictions)
        return predictions, np.where(np.isnan(r), np.inf, -r), np.full(Y.shape[1], alpha)

    return _best_of(len(stack), layers, Y, np.ones(len(Y), dtype=bool), predict)


def _honest(
    stack: _Stack,
    layers: list[int],
    Y: Float64[np.ndarray, "n n_columns"],
    test: Shaped[np.ndarray, " n"],
    alphas: npt.ArrayLike | None,
    groups: Shaped[np.ndarray, " n"] | None,
) -> _Choice:
    def predict(k: int) -> tuple[Any, Any, Any]:
        found = predict_from_kernel(stack[k], Y, test, alphas=alphas, groups=groups)
        return found.predictions, found.training_error, found.alpha

    return _best_of(len(stack), layers, Y, test, predict)


def _best_of(
    n_layers: int,
    layers: Iterable[int],
    Y: Float64[np.ndarray, "n n_columns"],
    test: Shaped[np.ndarray, " n"],
    predict: Callable[[int], tuple[Any, Any, Any]],
) -> _Choice:
    """Return scores of all layers, and for each column the layer of least loss, the first if equal.

    `predict` gives a layer's predictions, losses and penalties.
    """
    n_columns = Y.shape[1]
    r = np.full((n_layers, n_columns), np.nan)
    least = np.full(n_columns, np.inf)
    best = np.zeros(n_columns, dtype=np.int64)
    alpha, chosen = np.full(n_columns, np.nan), np.full((int(test.sum()), n_columns), np.nan)
    for k in layers:
        predictions, loss, penalty = predict(k)
        r[k] = column_pearson(Y[test], predictions)
        better = loss < least
        least[better], best[better], alpha[better] = loss[better], k, penalty[better]
        np.copyto(chosen, predictions, where=better)
    return _Choice(test, r, best, alpha, chosen)


def column_pearson(
    Y: Float64[np.ndarray, "n n_columns"], predictions: Float64[np.ndarray, "n n_columns"]
) -> Float64[np.ndarray, " n_columns"]:
    """Return Pearson's r of each column with its predictions, NaN where either is constant."""
    sizes, centred = [], []
    for values in (Y, predictions):
        part = values - values.mean(axis=0)
        size = np.linalg.norm(part, axis=0)
        flat = size <= _CONSTANT * np.linalg.norm(values, axis=0)
        centred.append(part)
        sizes.append(np.where(flat, np.nan, size))
    return np.asarray(np.einsum("ij,ij->j", *centred) / (sizes[0] * sizes[1]))


def _assemble(
    kernels: NetworkKernels,
    responses: Float64[np.ndarray, "n_stimuli n_repeats n_neurons"],
    protocol: Protocol,
    usable: Usable,
    choices: list[_Choice],
    n_permutations: int,
    layer_reasons: dict[str, str],
) -> RegressionScores:
    """Average scores over choices and put neurons back where they were."""
    n_neurons, n_usable = responses.shape[2], len(usable.neurons)
    columns = np.arange(n_usable * (1 + n_permutations))
    chosen_r = np.mean([choice.r[choice.best, columns] for choice in choices], axis=0)
    chosen_r = chosen_r.reshape(1 + n_permutations, n_usable)

    def everywhere(values: np.ndarray, fill: Any = np.nan) -> np.ndarray:
        out = np.full((*values.shape[:-1], n_neurons), fill, dtype=values.dtype)
        out[..., usable.neurons] = values
        return out

    metrics: dict[str, Callable[..., np.ndarray]] = {R2: pearson_r2}
    shown = responses[:, :, usable.neurons]
    if (np.isfinite(shown).sum(axis=1) >= 2).any():
        metrics[NOISE_CORRECTED] = noise_corrected_r2
    values = {PEARSON: everywhere(chosen_r[0])}
    predictions, means = np.empty((2, *usable.mean.shape))
    folds = np.zeros(len(responses), dtype=np.int64)
    for fold, c in enumerate(choices):  # each stimulus is reported once
        predicted = c.predictions[:, :n_usable]
        folds[c.test] = fold
        predictions[c.test] = predicted - predicted.mean(axis=0)
        means[c.test] = usable.mean[c.test].mean(axis=0)
    for metric, score in metrics.items():
        data = shown - means[:, None] if metric == NOISE_CORRECTED else usable.mean - means
        values[metric] = everywhere(score(data, predictions))
    return RegressionScores(
        protocol=protocol,
        layers=kernels.layers,
        layer_r=everywhere(np.mean([choice.r[:, :n_usable] for choice in choices], axis=0)),
        chosen=everywhere(np.stack([choice.best[:n_usable] for choice in choices]), 0),
        alpha=everywhere(np.stack([choice.alpha[:n_usable] for choice in choices])),
        values=values,
        null=everywhere(chosen_r[1:]),
        predictions=everywhere(predictions),
        folds=folds,
        n_stimuli=len(responses),
        reasons=usable.reasons,
        layer_reasons=layer_reasons,
    )


def _single_alpha(alphas: npt.ArrayLike | None) -> float:
    grid = np.atleast_1d(np.asarray(1.0 if alphas is None else alphas, dtype=np.float64))
    if grid.size != 1:
        raise InputError(
            f"the published protocol has one alpha for all neurons, got {grid.size}; give one, or "
            "protocol='honest'"
        )
    return float(grid.reshape(-1)[0])


def _check(
    kernels: NetworkKernels,
    responses: Float64[np.ndarray, "..."],
    protocol: str,
    kind: str,
    n_permutations: int,
) -> None:
    for name, value, known in (
        ("protocol", protocol, get_args(Protocol)),
        ("kind", kind, get_args(Kind)),
    ):
        if value not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if responses.ndim != 3 or len(responses) != kernels.n_stimuli:
        raise InputError(
            f"responses must be ({kernels.n_stimuli}, n_repeats, n_neurons), the kernels' stimuli "
            f"first, got {responses.shape}"
        )
    if n_permutations < 0:
        raise InputError(f"n_permutations must be 0 or more, got {n_permutations}")
