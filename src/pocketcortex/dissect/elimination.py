"""Filters taken out one after the other, the least harmful first."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from pocketcortex.core import InputError
from pocketcortex.models import Ablations

Harm = Callable[
    [Float[np.ndarray, " n_images"], Float[np.ndarray, "... n_images"]], Float[np.ndarray, "..."]
]
"""From intact responses and responses without some filters to what was lost, 0 for nothing."""


def flattening(
    intact: Float[np.ndarray, " n_images"], ablated: Float[np.ndarray, "... n_images"]
) -> Float[np.ndarray, "..."]:
    r"""Return how much flatter a tuning curve has become: our dot-size invariance index (DSI).

    .. math:: 1 - \mathrm{Var}(r_\mathrm{ablated}) / \mathrm{Var}(r)

    over the stimuli of the curve: 1 if it is flat, 0 if as tuned as before, below 0 if more. Of
    dots in several sizes this is an index of dot-size invariance, of dots in several numbers one
    of dot-number invariance.

    Returns
    -------
    float64; NaN where the intact curve is flat.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4e, gives the two end points (1 flat, 0
    unchanged) and no formula; this one is ours.
    """
    variance = np.asarray(intact, dtype=np.float64).var()
    left = np.asarray(ablated, dtype=np.float64).var(axis=-1)
    return np.asarray(1 - left / variance if variance > 0 else np.full_like(left, np.nan))


def lost_selectivity(
    intact: Float[np.ndarray, " n_images"], ablated: Float[np.ndarray, "... n_images"]
) -> Float[np.ndarray, "..."]:
    """Return 1 minus the squared correlation with the intact responses, over images.

    A change of all responses by one factor or offset costs nothing, but a turned sign costs all:
    a negative correlation counts as 0.

    Returns
    -------
    float64, 0..1; 1 where the ablated responses are all alike, NaN where the intact ones are.
    """
    one = np.asarray(intact, dtype=np.float64)
    other = np.asarray(ablated, dtype=np.float64)
    one, other = one - one.mean(), other - other.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(other, axis=-1)
    if not np.linalg.norm(one) > 0:
        return np.asarray(np.full(lengths.shape, np.nan))
    alike = lengths > 1e-12 * np.maximum(np.abs(ablated).max(axis=-1), 1e-300)
    r = other @ one / (np.where(alike, lengths, 1.0) * np.linalg.norm(one))
    return np.asarray(1 - np.where(alike, np.clip(r, 0, 1), 0.0) ** 2)


@dataclass(frozen=True, eq=False)
class Elimination:
    """What became of a model's responses as its filters were taken out.

    Attributes
    ----------
    order
        Filters in the order they went.
    harm
        Harm with the first 0, 1, 2, ... of them out. Of filters taken out together all but the
        last have NaN.
    responses
        Responses then; NaN in the same places.
    n_filters
        Filters the model had.
    """

    order: Int[np.ndarray, " n_out"]
    harm: Float[np.ndarray, " n_out+1"]
    responses: Float[np.ndarray, "n_out+1 n_images"]
    n_filters: int

    def kept(self, n_out: int | None = None) -> Bool[np.ndarray, " n_filters"]:
        """Return the filters left with the first `n_out` gone, by default all of them."""
        left = np.ones(self.n_filters, dtype=bool)
        left[self.order[:n_out]] = False
        return left


def eliminate(
    model: Ablations,
    images: UInt8[np.ndarray, "n 3 h w"],
    harm: Harm,
    *,
    limit: float = np.inf,
    at_once: float = 0.0,
    advance: Callable[[int], None] = lambda n: None,
) -> Elimination:
    """Take out filters, each time those that harm the responses least without them.

    Every filter left is tried in every round, on top of those that are gone.

    Parameters
    ----------
    model
        The model, its filters to be set to zero or to their means.
    images
        Stimuli by whose responses harm is measured, levels 0..255.
    harm
        Such as `flattening` or `lost_selectivity`.
    limit
        Most harm; the filter that would pass it stays, and nothing more is taken out.
    at_once
        Share of the filters left that goes in one round, 0..0.5; at least one. A round that passes
        the limit is tried again with half as many.
    advance
        Told how many filters went.

    Raises
    ------
    InputError
        If there are fewer than two images, `at_once` is out of range, or the intact model answers
        all images alike.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4h (cumulative ablation, one at a time).
    """
    if len(images) < 2 or not 0 <= at_once <= 0.5:
        raise InputError(
            f"elimination needs two images or more and at_once within 0..0.5, got {len(images)} "
            f"and {at_once}"
        )
    shown = torch.from_numpy(images).to(model.device)
    intact = model.responses(shown).double().cpu().numpy()
    if not np.ptp(intact) > 0:
        raise InputError("the model answers all images alike; nothing can be lost")
    kept = np.ones(len(model), dtype=bool)
    order: list[int] = []
    harms, responses = [0.0], [intact]
    share = at_once
    while kept.any():
        own = np.flatnonzero(kept)
        without = model.without_each(shown, kept)[own].double().cpu().numpy()
        each = harm(intact, without)
        ranked = own[np.argsort(each, kind="stable")]
        count = max(1, int(share * len(own)))
        while True:
            fewer = kept.copy()
            fewer[ranked[:count]] = False
            if count == 1:
                answer = without[np.flatnonzero(own == ranked[0])[0]]
            else:
                answer = model.responses(shown, fewer).double().cpu().numpy()
            found = float(harm(intact, answer))
            if found <= limit or count == 1:
                break
            count //= 2
            share = count / len(own)
        if not found <= limit:
            break
        kept = fewer
        order += ranked[:count].tolist()
        harms += [float("nan")] * (count - 1) + [found]
        responses += [np.full_like(intact, np.nan)] * (count - 1) + [answer]
        advance(count)
    return Elimination(
        np.array(order, dtype=np.int64), np.array(harms), np.stack(responses), len(model)
    )
