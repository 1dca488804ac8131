"""Where models narrow, and how much comes together there: filters, inputs combined, dimensions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64

from pocketcortex.core import InputError
from pocketcortex.dissect.alignment import ChannelStatistics
from pocketcortex.metrics.dimensionality import participation_ratio
from pocketcortex.models import CompactModel


def filters_table(
    models: Sequence[CompactModel], channels: ChannelStatistics | None = None
) -> pd.DataFrame:
    """Return how many filters each layer of each model has, and how many dimensions they span.

    Parameters
    ----------
    models
        The models.
    channels
        What `model_alignment` gathered of the same models in the same order, or None.

    Returns
    -------
    pd.DataFrame
        One row for each model and layer: ``model`` (its place), ``layer`` (0 to 4; the paper counts
        1 to 5), ``n_filters``, ``ratio`` (filters over those of the layer before; NaN in layer 0),
        and with `channels` ``dimensionality``, the participation ratio of the channels' covariance
        over images and positions.

    Raises
    ------
    InputError
        If there is no model or `channels` is of other models.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3a: about 50 filters early, 5 to 10 late.
    """
    _check(models, channels)
    counts = np.array([model.filters for model in models])
    n_models, n_layers = counts.shape
    ratio = np.full(counts.shape, np.nan)
    ratio[:, 1:] = counts[:, 1:] / counts[:, :-1]
    table = {
        "model": np.repeat(np.arange(n_models), n_layers),
        "layer": np.tile(np.arange(n_layers), n_models),
        "n_filters": counts.ravel(),
        "ratio": ratio.ravel(),
    }
    if channels is not None:
        table["dimensionality"] = channels.dimensionality.T.ravel()
    return pd.DataFrame(table)


def consolidation_table(
    models: Sequence[CompactModel], channels: ChannelStatistics | None = None
) -> pd.DataFrame:
    r"""Return for each model the layer that narrows most and how many inputs it combines.

    The consolidation step, as the paper calls it, is where many channels become few. An output
    filter with pointwise weights :math:`w_i` of inputs whose standard deviations over images and
    positions are :math:`s_i` effectively combines

    .. math:: \frac{(\sum_i w_i^2 s_i^2)^2}{\sum_i w_i^4 s_i^4}

    inputs: the participation ratio of what each would contribute to its variance if they were
    uncorrelated, which they are not.

    Parameters
    ----------
    models
        The models.
    channels
        What `model_alignment` gathered of the same models in the same order; None leaves out what
        needs it.

    Returns
    -------
    pd.DataFrame
        One row for each model: ``model`` (its place), ``layer`` (1 to 4; of equal ones the first),
        ``ratio`` (its filters over those of the layer before; 1 or more if no layer narrows),
        ``n_inputs``, ``n_outputs``, ``inputs_combined_by_weight`` (all :math:`s_i` 1; mean over
        outputs whose weights are not all 0), and with `channels` ``inputs_combined`` (with
        :math:`s_i` of the depthwise outputs), ``dimensionality_before`` and
        ``dimensionality_after`` (of the layer before and of this one).

    Raises
    ------
    InputError
        If there is no model or `channels` is of other models.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3 (consolidation). The figures are our own.
    """
    _check(models, channels)
    rows = []
    for number, model in enumerate(models):
        filters = np.array(model.filters)
        layer = int(np.argmin(filters[1:] / filters[:-1])) + 1
        weights = model.layers.pointwise[layer - 1].weight.detach().double().cpu().numpy()
        squares = weights[:, :, 0, 0] ** 2
        row = {
            "model": number,
            "layer": layer,
            "ratio": filters[layer] / filters[layer - 1],
            "n_inputs": int(filters[layer - 1]),
            "n_outputs": int(filters[layer]),
            "inputs_combined_by_weight": _combined(squares),
        }
        if channels is not None:
            variance = channels.input_sd[number][layer - 1] ** 2
            before, after = channels.dimensionality[layer - 1 : layer + 1, number]
            row |= {
                "inputs_combined": _combined(squares * variance),
                "dimensionality_before": float(before),
                "dimensionality_after": float(after),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _combined(contributions: Float[np.ndarray, "n_outputs n_inputs"]) -> float:
    ratios: Float64[np.ndarray, " n_outputs"] = participation_ratio(contributions)
    known = ratios[~np.isnan(ratios)]
    return float(known.mean()) if len(known) else float("nan")


def _check(models: Sequence[CompactModel], channels: ChannelStatistics | None) -> None:
    if not models:
        raise InputError("there is no model; give at least one")
    if channels is None:
        return
    inputs = [tuple(len(sd) for sd in own) for own in channels.input_sd]
    if inputs != [model.filters[:-1] for model in models]:
        raise InputError(
            "channels must be those of the same models in the same order, as model_alignment "
            "returned them"
        )
