"""Scores of a network's layers by representational similarity, with and without optimism."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from pocketcortex.benchmark.rdms import (
    Comparison,
    compare_pairs,
    compare_rdms,
    n_stimuli_of,
    pairs_among,
    square_of,
)
from pocketcortex.core import InputError

Protocol = Literal["honest", "published"]

LEAST_STIMULI = 5
"""Of one half or fold, within which matrices are compared."""


@dataclass(frozen=True, eq=False, repr=False)
class RSAScores:
    """How alike layers' dissimilarity matrices, and the chosen layer's, are to those of sites.

    Attributes
    ----------
    protocol
        ``"honest"`` or ``"published"``.
    comparison
        Of matrices: ``"pearson"``, ``"spearman"`` or ``"whitened"``.
    layers, sites
        Names.
    layer_scores
        Of every layer over all stimuli, (n_layers, n_sites).
    chosen
        Place of the layer chosen, one row a choice, (n_choices, n_sites).
    values
        Score of the chosen layers, (n_sites,).
    null
        The same with the site's stimuli in another order, (n_permutations, n_sites).
    reported
        Stimuli among which the layer of each choice is scored, (n_choices, n_stimuli).
    n_stimuli
        Number of stimuli.
    reasons
        Sites and layers without a score, each with the reason.
    """

    protocol: Protocol
    comparison: Comparison
    layers: tuple[str, ...]
    sites: tuple[str, ...]
    layer_scores: Float64[np.ndarray, "n_layers n_sites"]
    chosen: Int[np.ndarray, "n_choices n_sites"]
    values: Float64[np.ndarray, " n_sites"]
    null: Float64[np.ndarray, "n_permutations n_sites"]
    reported: Bool[np.ndarray, "n_choices n_stimuli"]
    n_stimuli: int
    reasons: Mapping[str, str]

    def __repr__(self) -> str:
        scored = self.values[np.isfinite(self.values)]
        mean = f"mean {scored.mean():.3f}" if scored.size else "none scored"
        return (
            f"RSAScores({self.protocol}, {self.comparison}: {len(self.layers)} layers, "
            f"{len(self.sites)} sites, {mean})"
        )

    def chosen_layers(self) -> list[str]:
        """Return the layer chosen most often for each site, the earliest if equal; "" for none."""
        often = [np.bincount(places, minlength=1).argmax() for places in self.chosen.T]
        return [
            "" if site in self.reasons else self.layers[place]
            for site, place in zip(self.sites, often, strict=True)
        ]

    def table(self, *, model: str, every_layer: bool = False) -> pd.DataFrame:
        """Return the scores as a tidy table.

        Parameters
        ----------
        model
            The network's name, for the column `model`.
        every_layer
            Whether to give a row for each site and layer too, marked "layer" in `choice`.

        Returns
        -------
        pd.DataFrame
            Columns model, site, choice, layer, metric, value, null (mean over permutations),
            n_stimuli, reason.
        """
        n_sites = len(self.sites)
        null = self.null.mean(axis=0) if len(self.null) else np.full(n_sites, np.nan)
        rows = [
            (site, "chosen", layer, value, zero)
            for site, layer, value, zero in zip(
                self.sites, self.chosen_layers(), self.values, null, strict=True
            )
        ]
        for layer, scores in zip(self.layers, self.layer_scores, strict=True):
            if every_layer:
                rows += [
                    (site, "layer", layer, value, np.nan)
                    for site, value in zip(self.sites, scores, strict=True)
                ]
        out = pd.DataFrame(rows, columns=["site", "choice", "layer", "value", "null"])
        out.insert(0, "model", model)
        out.insert(4, "metric", f"rsa {self.comparison}")
        out["n_stimuli"] = self.n_stimuli
        out["reason"] = [
            "" if np.isfinite(value) else self.reasons.get(site) or self.reasons.get(layer, "")
            for site, layer, value in zip(out["site"], out["layer"], out["value"], strict=True)
        ]
        return out


def rsa_scores(
    layer_rdms: Float64[np.ndarray, "n_layers n_pairs"],
    site_rdms: Mapping[str, Float64[np.ndarray, " n_pairs"]],
    *,
    rng: np.random.Generator,
    layers: tuple[str, ...] | None = None,
    protocol: Protocol = "honest",
    comparison: Comparison = "pearson",
    n_splits: int = 10,
    n_permutations: int = 20,
) -> RSAScores:
    """Return how alike a network's layers are to recorded sites in their dissimilarities.

    ``"published"`` (Conwell et al.): the layer most alike over all stimuli, and how alike it is
    there. The best of many layers is above 0 even for responses to other stimuli.

    ``"honest"``: stimuli are halved at random; the layer most alike over pairs within one half is
    scored over pairs within the other, both ways round, averaged over splits. No stimulus is in
    both, so that the score is 0 on average for sites that have nothing to do with the layers.

    Parameters
    ----------
    layer_rdms
        Upper triangles, such as :meth:`NetworkKernels.rdms`; NaN rows for unusable layers.
    site_rdms
        Upper triangles by site, such as :func:`response_rdm`: distances, not similarities.
    rng
        Source of halves and permutations.
    layers
        Names of the layers; by default their numbers.
    protocol, comparison
        As above, and for :func:`compare_rdms`.
    n_splits
        Random halvings of ``"honest"``, 1 or more.
    n_permutations
        How often all is done again with the sites' stimuli in another order, the same for all sites
        and, for ``"honest"``, in one halving each.

    Returns
    -------
    RSAScores
        A site whose matrix has NaN, or no variation, is NaN, with the reason.

    Raises
    ------
    InputError
        If there is no site, shapes or numbers of names disagree, no layer is usable, a half has
        fewer than 5 stimuli, or a setting is out of range.

    References
    ----------
    Conwell et al. (2021), NeurIPS 34. Kriegeskorte et al. (2008), Frontiers in Systems
    Neuroscience 2: 4.
    """
    names = tuple(str(k) for k in range(len(layer_rdms))) if layers is None else layers
    n = n_stimuli_of(layer_rdms.shape[1])
    check_rsa(layer_rdms, site_rdms, names, protocol, n_splits, n_permutations)
    sites = np.stack(list(site_rdms.values()))
    everything = compare_rdms(layer_rdms, sites, comparison=comparison)
    reasons = _reasons(everything, names, tuple(site_rdms))
    usable = [k for k, name in enumerate(names) if name not in reasons]
    scored = np.array([site not in reasons for site in site_rdms])
    pairs = np.stack(np.triu_indices(n, 1))
    place = square_of(np.arange(pairs.shape[1]), n)

    def once(order: np.ndarray, halves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return chosen layers (n_choices, n_sites) and their mean score."""
        shuffled = sites[:, place[order[pairs[0]], order[pairs[1]]]]
        among = [pairs_among(half, n) for half in halves]
        scores = [
            compare_pairs(layer_rdms[usable][:, p], shuffled[:, p], pairs[:, p], n, comparison)
            for p in among
        ]
        best = [np.where(np.isnan(s), -np.inf, s).argmax(axis=0) for s in scores]
        others = scores if protocol == "published" else _swapped(scores)
        values = [other[b, np.arange(len(sites))] for other, b in zip(others, best, strict=True)]
        return np.array(usable)[np.stack(best)], np.mean(values, axis=0)

    def halves(n_halvings: int) -> list[np.ndarray]:
        if protocol == "published":
            return [np.ones(n, dtype=bool)]
        firsts = [rng.permutation(n) < n // 2 for _ in range(n_halvings)]
        return [half for first in firsts for half in (first, ~first)]

    own = halves(n_splits)
    chosen, values = once(np.arange(n), own)
    null = [once(rng.permutation(n), halves(1))[1] for _ in range(n_permutations)]
    return RSAScores(
        protocol=protocol,
        comparison=comparison,
        layers=names,
        sites=tuple(site_rdms),
        layer_scores=everything,
        chosen=chosen,
        values=np.where(scored, values, np.nan),
        null=np.where(scored, np.array(null).reshape(n_permutations, len(sites)), np.nan),
        reported=np.stack(own if protocol == "published" else _swapped(own)),
        n_stimuli=n,
        reasons=reasons,
    )


def _swapped(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return parts that are listed two by two, halves of one whole, with each pair turned round."""
    return [parts[k + 1 - 2 * (k % 2)] for k in range(len(parts))]


def _reasons(
    scores: Float64[np.ndarray, "n_layers n_sites"], layers: tuple[str, ...], sites: tuple[str, ...]
) -> dict[str, str]:
    """Return why layers or sites have no score at all.

    Raises
    ------
    InputError
        If no layer has one.
    """
    missing = np.isnan(scores)
    why = "dissimilarities are NaN or all equal"
    found = {site: why for k, site in enumerate(sites) if missing[:, k].all()}
    known = ~missing.all(axis=0)
    found |= {layer: why for k, layer in enumerate(layers) if missing[k, known].all()}
    if not known.any():
        raise InputError("no site or no layer is usable: all have NaN or equal dissimilarities")
    return found


def check_rsa(
    layer_rdms: Float64[np.ndarray, "..."],
    site_rdms: Mapping[str, Float64[np.ndarray, "..."]],
    layers: tuple[str, ...] | None,
    protocol: str,
    n_splits: int,
    n_permutations: int,
) -> None:
    """Raise InputError unless shapes, names and settings go together."""
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol must be honest or published, got {protocol!r}")
    n_pairs = layer_rdms.shape[-1]
    shapes = {site: rdm.shape for site, rdm in site_rdms.items()}
    if layer_rdms.ndim != 2 or not shapes or set(shapes.values()) != {(n_pairs,)}:
        raise InputError(
            "layers must be (n_layers, n_pairs) and each site (n_pairs,) over the same stimuli, "
            f"got {layer_rdms.shape} and {shapes}"
        )
    if layers is not None and (len(layers) != len(layer_rdms) or len(set(layers)) < len(layers)):
        raise InputError(f"give each of {len(layer_rdms)} layers a name of its own, got {layers}")
    if layers is not None and set(layers) & set(shapes):
        raise InputError(f"layers and sites need different names, got {set(layers) & set(shapes)}")
    n = n_stimuli_of(n_pairs)
    if protocol == "honest" and n // 2 < LEAST_STIMULI:
        raise InputError(f"half of {n} stimuli is fewer than {LEAST_STIMULI}")
    if n_splits < 1 or n_permutations < 0:
        raise InputError(
            "n_splits must be 1 or more and n_permutations 0 or more, got "
            f"{n_splits}, {n_permutations}"
        )
