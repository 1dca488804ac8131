"""Candidates for the next images: a pool without what was shown, and the best of a stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pocketcortex.core import ImageSource, InputError, StimulusSet
from pocketcortex.stimuli.gaudy import gaudy
from pocketcortex.stimuli.spread import disagreement

_DRAWN_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class _GaudySource(ImageSource):
    """The images of a set, some of them made gaudy when they are read."""

    stimuli: StimulusSet
    made: Bool[np.ndarray, " n_stimuli"]

    def __repr__(self) -> str:
        return f"{self.stimuli!r}, {self.made.sum()} made gaudy"

    def __len__(self) -> int:
        return len(self.stimuli)

    @property
    def names(self) -> tuple[str, ...]:
        return self.stimuli.names

    @property
    def image_size(self) -> tuple[int, int]:
        return self.stimuli.image_size

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        images = np.array(self.stimuli.read(index))
        images[self.made[index]] = gaudy(images[self.made[index]])
        return images


def with_gaudy(stimuli: StimulusSet, made: Bool[np.ndarray, " n_stimuli"]) -> StimulusSet:
    """Return a set of images of which some are made gaudy."""
    return StimulusSet.from_source(_GaudySource(stimuli, made)) if made.any() else stimuli


def in_memory(stimuli: StimulusSet) -> StimulusSet:
    """Return the images decoded, so that they are decoded once for whatever reads them."""
    return StimulusSet.from_array(stimuli.images(), stimuli.names)


class Draw:
    """What is left of a pool: places in random order, without contents seen and places taken.

    Where images of the pool are made gaudy, neither they nor their sources may have been seen.
    """

    def __init__(
        self, pool: StimulusSet, order: Int[np.ndarray, " n_stimuli"], seen: set[str]
    ) -> None:
        self.pool, self.order, self.seen = pool, order, seen
        self.used = np.zeros(len(order), dtype=bool)

    def first(
        self, stimuli: StimulusSet, n: int, arm: str, *, at_most: bool = False
    ) -> Int[np.ndarray, " n_drawn"]:
        """Return the next `n` places whose images are new and differ, fewer if `at_most`."""
        found: dict[str, int] = {}
        for start in range(0, len(self.order), _DRAWN_AT_ONCE):
            places = self.free(stimuli, self.order[start : start + _DRAWN_AT_ONCE])
            for digest, place in self.new(stimuli, places).items():
                found.setdefault(digest, place)
            if len(found) >= n:
                break
        if not at_most:
            refuse_few(len(found), n, arm)
        return np.array(list(found.values())[:n], dtype=np.intp)

    def take(self, stimuli: StimulusSet, places: Int[np.ndarray, " n_taken"]) -> StimulusSet:
        """Return the images at these places, which nothing gets from now on."""
        taken = in_memory(stimuli.take(places))
        self.seen.update(taken.digests)
        self.used[places] = True
        return taken

    def free(
        self, stimuli: StimulusSet, places: Int[np.ndarray, " n_places"]
    ) -> Int[np.ndarray, " n_free"]:
        """Return those of the places that are not taken and whose sources were not seen."""
        places = places[~self.used[places]]
        if stimuli is self.pool or not len(places):
            return places
        sources = self.pool.take(places).digests
        return places[[digest not in self.seen for digest in sources]]

    def new(self, stimuli: StimulusSet, places: Int[np.ndarray, " n_places"]) -> dict[str, int]:
        """Return digest and place of images not seen, the first of each content."""
        found: dict[str, int] = {}
        if len(places):
            for place, digest in zip(places, stimuli.take(places).digests, strict=True):
                if digest not in self.seen:
                    found.setdefault(digest, int(place))
        return found


class Top:
    """The candidates of highest disagreement met so far, at most `n` and no content twice.

    Attributes
    ----------
    places, digests
        Where in the pool they are, and their contents.
    values
        Their disagreement, falling.
    apart
        Members' predictions less their mean, ``(n_kept, n_members * n_neurons)``.
    n_seen
        Candidates met.
    """

    def __init__(self, n: int) -> None:
        self.n, self.n_seen = n, 0
        self.places = np.empty(0, dtype=np.intp)
        self.digests: list[str] = []
        self.values = np.empty(0)
        self.apart = np.empty((0, 0))

    def add(
        self,
        places: Int[np.ndarray, " n_new"],
        digests: Sequence[str],
        predicted: Float[np.ndarray, "n_members n_new n_neurons"],
    ) -> None:
        """Look at some more, none of whose contents is among those kept."""
        apart = (predicted - predicted.mean(axis=0)).transpose(1, 0, 2).reshape(len(places), -1)
        values = np.concatenate([self.values, disagreement(predicted)])
        kept = np.argsort(-values, kind="stable")[: self.n]
        if len(self.places):
            apart = np.concatenate([self.apart, apart])
        self.apart, self.values = apart[kept], values[kept]
        self.places = np.concatenate([self.places, places])[kept]
        both = [*self.digests, *digests]
        self.digests = [both[k] for k in kept]
        self.n_seen += len(places)


def refuse_few(n_found: int, n_wanted: int, arm: str) -> None:
    """Raise InputError if there are too few images for an arm."""
    if n_found < n_wanted:
        raise InputError(
            f"the pool has {n_found} new images where the arm {arm} needs {n_wanted}; give a "
            "larger bank, or ask for fewer images"
        )
