"""`BrainArea`: what recordings of one area of cortex have to say about one list of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Shaped

from pocketcortex.core.errors import InputError
from pocketcortex.core.recordings import Session
from pocketcortex.core.stimuli import Indices, StimulusSet, positions

RELIABILITY = "reliability"
"""Column of `BrainArea.cells` with each neuron's split-half reliability."""

_SYMMETRIC = 1e-8


@dataclass(frozen=True, eq=False, repr=False)
class BrainArea:
    """Responses of an area's neurons to images, their published dissimilarities, or both.

    Parameters
    ----------
    id
        Name that tells it from other areas, such as ``"v4/190923"``.
    stimuli
        The n images, in the order of everything else.
    session
        Single neurons: responses (n, n_repeats, n_neurons). None if only matrices are public.
    rdms
        Dissimilarities between images, (n_subjects, n, n) or (n, n) for one: symmetric, 0 on the
        diagonal, larger for less alike. None if there is a session.
    species, area, layer
        Who and where, such as ``"mouse"``, ``"VISp"`` and ``"L2-3"``; None if not known.
    cells
        What is known of each neuron, one row a neuron of the session in its order: for instance
        ``cre_line``, ``depth_um``, ``reliability`` (split-half, Spearman-Brown corrected).
    held_out
        (n,) True for images that the source sets aside for validation; None if for none, or if
        only those are at hand.
    rdm_ceiling
        Noise ceiling of the matrix as published; None if not.
    note
        What a reader of scores has to know; "" for nothing.

    Raises
    ------
    InputError
        If there is neither session nor matrix; if numbers of images or neurons disagree, or the
        session's images have other names; if a matrix is not of finite numbers, not symmetric, or
        not 0 on the diagonal; if `held_out` is no mask of some but not all images.
    """

    id: str
    stimuli: StimulusSet
    session: Session | None = None
    rdms: Shaped[np.ndarray, "..."] | None = None  # kept as float64 (n_subjects, n, n)
    species: str | None = None
    area: str | None = None
    layer: str | None = None
    cells: pd.DataFrame | None = None
    held_out: Shaped[np.ndarray, "..."] | None = None
    rdm_ceiling: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.session is None and self.rdms is None:
            raise InputError(
                f"area {self.id}: neither responses nor dissimilarities; give session= or rdms="
            )
        if self.session is not None:
            _check_session(self.id, self.session, self.stimuli)
        if self.rdms is not None:
            checked = _checked_rdms(self.id, self.rdms, len(self.stimuli))
            object.__setattr__(self, "rdms", checked)
        if self.cells is not None:
            if len(self.cells) != self.n_neurons:
                raise InputError(
                    f"area {self.id}: cells has {len(self.cells)} rows but there are "
                    f"{self.n_neurons} neurons; give one row a neuron"
                )
            object.__setattr__(self, "cells", self.cells.reset_index(drop=True))
        if self.held_out is not None:
            mask = _checked_mask(self.id, self.held_out, len(self.stimuli))
            object.__setattr__(self, "held_out", mask)

    def __repr__(self) -> str:
        parts = [f"{self.n_stimuli} images"]
        if self.session is not None:
            parts.insert(0, f"{self.n_neurons} neurons")
        if self.rdms is not None:
            parts.append(f"{len(self.rdms)} dissimilarity {_plural('matrix', len(self.rdms))}")
        return f"BrainArea({self.id!r}: {', '.join(parts)})"

    @property
    def n_stimuli(self) -> int:
        """Number of images."""
        return len(self.stimuli)

    @property
    def n_neurons(self) -> int:
        """Number of neurons; 0 if only dissimilarities are at hand."""
        return 0 if self.session is None else self.session.n_neurons

    def require_session(self) -> Session:
        """Return the responses of single neurons.

        Raises
        ------
        InputError
            If only dissimilarities are at hand.
        """
        if self.session is None:
            raise InputError(
                f"area {self.id} has published dissimilarities only, no single neurons; "
                "compare it by rdms, or choose another area"
            )
        return self.session

    def take(self, indices: Indices) -> "BrainArea":
        """Return the area with some of its images, in the order given.

        `held_out` becomes None if it is then True for all or none of them, and the published noise
        ceiling, which is that of all images, is dropped.

        Parameters
        ----------
        indices
            Slice, list of whole numbers, 1-D integer array, or boolean mask over images.

        Raises
        ------
        InputError
            If an index is out of range or nothing is left.
        """
        chosen = positions(indices, self.n_stimuli)
        if not chosen.size:
            raise InputError(f"area {self.id}: no image is left; take at least one")
        rdms = None if self.rdms is None else self.rdms[:, chosen][:, :, chosen]
        held_out = None if self.held_out is None else self.held_out[chosen]
        if held_out is not None and held_out.all() | ~held_out.any():
            held_out = None
        return replace(
            self,
            stimuli=self.stimuli.take(chosen),
            session=None if self.session is None else self.session.take(chosen),
            rdms=rdms,
            held_out=held_out,
            rdm_ceiling=None,
        )

    def select_neurons(self, neurons: Sequence[int]) -> "BrainArea":
        """Return the area with some of its neurons, in the order given.

        Dissimilarities stay as published.

        Raises
        ------
        InputError
            If there are no single neurons, an index is out of range, or nothing is left.
        """
        session = self.require_session()
        chosen = positions(list(neurons), session.n_neurons)
        if not chosen.size:
            raise InputError(f"area {self.id}: no neuron is left of {session.n_neurons}")
        return replace(
            self,
            session=session.select_neurons(chosen.tolist()),
            cells=None if self.cells is None else self.cells.iloc[chosen],
        )

    def reliable(
        self, threshold: float, *, reliability: Float[np.ndarray, " n_neurons"] | None = None
    ) -> "BrainArea":
        """Return the area with the neurons whose split-half reliability reaches a threshold.

        Neurons without a reliability (NaN) are left out.

        Parameters
        ----------
        threshold
            Least reliability kept, at most 1.
        reliability
            One value a neuron, such as `pocketcortex.metrics.split_half_reliability` gives; by
            default the column ``reliability`` of `cells`, which readers fill where repeats are.

        Raises
        ------
        InputError
            If the threshold is not at most 1, there are no single neurons, no reliability is
            known, there is not one value a neuron, or no neuron reaches the threshold.
        """
        session = self.require_session()
        if not threshold <= 1:
            raise InputError(f"the threshold of a reliability is at most 1; got {threshold}")
        if reliability is None:
            reliability = self._known_reliability()
        if reliability.shape != (session.n_neurons,):
            raise InputError(
                f"area {self.id}: reliability is of shape {reliability.shape} but there are "
                f"{session.n_neurons} neurons; give one value a neuron"
            )
        kept = np.flatnonzero(reliability >= threshold)
        if not kept.size:
            known = reliability[~np.isnan(reliability)]
            best = f"the best reaches {known.max():.3f}" if known.size else "none has a reliability"
            raise InputError(
                f"area {self.id}: no neuron of {session.n_neurons} has a reliability of "
                f"{threshold} or more ({best}); lower the threshold"
            )
        return self.select_neurons(kept.tolist())

    def _known_reliability(self) -> Float64[np.ndarray, " n_neurons"]:
        if self.cells is None or RELIABILITY not in self.cells:
            raise InputError(
                f"area {self.id}: the reliability of its neurons is not known, as its source gives "
                "no single repeats; give reliability=, or use all neurons"
            )
        return self.cells[RELIABILITY].to_numpy(dtype=np.float64)


def _plural(noun: str, n: int) -> str:
    return noun if n == 1 else noun.removesuffix("ix") + "ices"


def _check_session(area: str, session: Session, stimuli: StimulusSet) -> None:
    if session.n_stimuli != len(stimuli):
        raise InputError(
            f"area {area}: {len(stimuli)} images but responses to {session.n_stimuli}; "
            "give one image for each row of responses, in order"
        )
    shown = session.stimuli
    if shown is not None and shown is not stimuli and shown.names != stimuli.names:
        raise InputError(
            f"area {area}: its images and those of session {session.id} have different names; "
            "give stimuli=session.stimuli"
        )


def _checked_rdms(area: str, rdms: object, n: int) -> Float64[np.ndarray, "n_subjects n n"]:
    given = np.asarray(rdms)
    if given.dtype.kind not in "fiu":
        raise InputError(f"area {area}: dissimilarities must be numbers; got {given.dtype}")
    frozen = np.array(given[None] if given.ndim == 2 else given, dtype=np.float64)
    if frozen.ndim != 3 or frozen.shape[1:] != (n, n) or not len(frozen):
        raise InputError(
            f"area {area}: dissimilarities must be (n_subjects, {n}, {n}) for {n} images; "
            f"got shape {given.shape}"
        )
    if not np.isfinite(frozen).all():
        raise InputError(
            f"area {area}: {int((~np.isfinite(frozen)).sum())} dissimilarities are not finite; "
            "leave those images out"
        )
    diagonal = np.abs(np.diagonal(frozen, axis1=1, axis2=2)).max()
    if diagonal > _SYMMETRIC:
        raise InputError(
            f"area {area}: an image differs from itself by up to {diagonal:.3g}; dissimilarities "
            "have a zero diagonal: similarities have to be turned round first (1 - similarity)"
        )
    skew = np.abs(frozen - frozen.transpose(0, 2, 1)).max()
    if skew > _SYMMETRIC:
        raise InputError(f"area {area}: dissimilarities are not symmetric (by {skew:.3g})")
    frozen.setflags(write=False)
    return frozen


def _checked_mask(area: str, mask: object, n: int) -> Bool[np.ndarray, " n"]:
    frozen = np.array(mask)
    if frozen.dtype != np.bool_ or frozen.shape != (n,):
        raise InputError(
            f"area {area}: held_out must be {n} truth values, one an image; "
            f"got {frozen.dtype} of shape {frozen.shape}"
        )
    if frozen.all() or not frozen.any():
        raise InputError(
            f"area {area}: held_out is True for {int(frozen.sum())} of {n} images; it must be for "
            "some but not all, or be None"
        )
    frozen.setflags(write=False)
    return frozen
