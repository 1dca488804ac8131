"""Which images to show next: those that models disagree on, unlike each other, gaudy or random."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.stimuli._candidates import Draw, Top, in_memory, refuse_few, with_gaudy
from pocketcortex.stimuli.spread import core_set

Arm = Literal["random", "gaudy", "diverse", "disagreement"]
"""Why an image was chosen."""

Predict = Callable[[StimulusSet], Float[np.ndarray, "n_members n_stimuli n_neurons"]]
Describe = Callable[[StimulusSet], Float[np.ndarray, "n_stimuli n_features"]]


@dataclass(frozen=True)
class ChoiceConfig:
    """How many images of each arm, and how those of disagreement are found.

    The defaults are the published numbers.

    Attributes
    ----------
    n_disagreement
        Images that members disagree on: a core set of the `n_top` they disagree on most.
    n_random
        Images drawn at random.
    n_gaudy
        Images drawn at random and made gaudy.
    n_diverse
        A core set, by image features, of `n_top` images drawn at random; no model decides.
    n_top
        Candidates that a core set is chosen from.
    block
        Candidates predicted at a time; it and `n_top` bound the memory.
    core
        Distances of the core set among candidates of high disagreement. ``"features"``: between
        image features (published). ``"disagreement"`` (ours): between what the members say about
        an image, each less the mean of the members, so that images which would settle the same
        question are near each other, and those on which all agree are near none.
    gaudy_pool
        Half of the candidates for `n_disagreement` are made gaudy.

    Raises
    ------
    InputError
        If a number is negative, no image is asked for, `block` is below 1, `n_top` is below the
        images to be chosen from it, or `core` is unknown.
    """

    n_disagreement: int = 250
    n_random: int = 250
    n_gaudy: int = 0
    n_diverse: int = 0
    n_top: int = 2000
    block: int = 2000
    core: str = "disagreement"
    gaudy_pool: bool = False

    def __post_init__(self) -> None:
        for name in ("n_disagreement", "n_random", "n_gaudy", "n_diverse"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 images or more; got {getattr(self, name)}")
        if self.n_images < 1:
            raise InputError("no image is asked for; let n_disagreement, n_random, ... be some")
        if self.block < 1:
            raise InputError(f"block must be 1 image or more; got {self.block}")
        most = max(self.n_disagreement, self.n_diverse)
        if self.n_top < most:
            raise InputError(f"n_top must be at least the {most} to choose; got {self.n_top}")
        if self.core not in ("disagreement", "features"):
            raise InputError(f"core must be 'disagreement' or 'features'; got {self.core!r}")

    @property
    def n_images(self) -> int:
        """Images of all arms."""
        return self.n_disagreement + self.n_random + self.n_gaudy + self.n_diverse

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """Images chosen, arm by arm: random, gaudy, diverse, disagreement.

    Attributes
    ----------
    stimuli
        The images as they are to be shown, named as in the pool; in memory.
    arms
        Why each was chosen.
    gaudy
        Whether each was made gaudy.
    disagreement
        Of the members on each image of that arm, in the unit of their predictions; NaN for others.
    n_candidates
        Images that the members predicted, to choose from.
    """

    stimuli: StimulusSet
    arms: tuple[Arm, ...]
    gaudy: Bool[np.ndarray, " n_images"]
    disagreement: Float[np.ndarray, " n_images"]
    n_candidates: int


def choose_images(
    pool: StimulusSet,
    config: ChoiceConfig,
    *,
    seed: int,
    predict_members: Predict | None = None,
    features: Describe | None = None,
    shown: StimulusSet | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Choice:
    """Return the images to show next, each content once and none that was shown before.

    Random, gaudy and diverse images are drawn first, so the random ones are a fair sample of the
    pool, whatever the members say. The rest of the pool is streamed in blocks, the `n_top`
    candidates of highest disagreement so far are kept, and a core set is chosen among them.

    Parameters
    ----------
    pool
        Candidates; decoded once for disagreement, twice with `gaudy_pool`.
    config
        How many of each arm.
    seed
        Decides everything random, 0 or more.
    predict_members
        Every member's predictions, ``(n_members, n_stimuli, n_neurons)``, of a set of images;
        needed for images of disagreement.
    features
        One row for each of a set of images; needed for diverse images and a core set by features.
    shown
        Images shown before: neither they nor gaudy versions of them are chosen, and core sets by
        features keep away from them.
    advance
        Told how many candidates were looked at, for a progress bar.

    Raises
    ------
    InputError
        If a callable is missing that is needed, or the pool has too few images that are new.

    References
    ----------
    Cowley & Pillow (2020), NeurIPS 33, and its public code: a core set of 250 of the 2,000 images
    of most disagreement in a pool of 80,000, and 250 random ones; optionally half the pool gaudy.
    The order of the arms, the diverse arm, and the core set by disagreement are ours.
    """
    by_features = config.n_disagreement > 0 and config.core == "features"
    if config.n_disagreement and predict_members is None:
        raise InputError("to choose images of disagreement, give predict_members")
    needs_features = config.n_diverse > 0 or by_features
    if needs_features and features is None:
        raise InputError("to choose diverse images, or a core set by features, give features")
    rng = np.random.default_rng(seed)
    draw = Draw(pool, rng.permutation(len(pool)), set() if shown is None else set(shown.digests))
    half = (rng.random(len(pool)) < 0.5) & config.gaudy_pool
    anchor = None
    if needs_features and features is not None and shown is not None and len(shown):
        anchor = features(shown)
    parts: list[Choice] = []
    if config.n_random:
        taken = draw.take(pool, draw.first(pool, config.n_random, "random"))
        parts.append(_choice(taken, "random"))
    if config.n_gaudy:
        made = with_gaudy(pool, np.ones(len(pool), dtype=bool))
        taken = draw.take(made, draw.first(made, config.n_gaudy, "gaudy"))
        parts.append(_choice(taken, "gaudy", np.ones(len(taken), dtype=bool)))
    if config.n_diverse and features is not None:
        some = draw.first(pool, config.n_top, "diverse", at_most=True)
        refuse_few(len(some), config.n_diverse, "diverse")
        kept = some[core_set(features(pool.take(some)), config.n_diverse, chosen=anchor)]
        parts.append(_choice(draw.take(pool, kept), "diverse"))
    if config.n_disagreement and predict_members is not None:
        candidates = with_gaudy(pool, half)
        top = _stream(candidates, draw, config, predict_members, advance)
        rows = top.apart
        if by_features and features is not None:
            rows = features(candidates.take(top.places))
        else:
            anchor = np.zeros((1, rows.shape[1]), dtype=rows.dtype)  # all members agree
        kept = core_set(rows, config.n_disagreement, chosen=anchor)
        best = top.places[kept]
        taken = draw.take(candidates, best)
        parts.append(_choice(taken, "disagreement", half[best], top.values[kept], top.n_seen))
    return Choice(
        StimulusSet.concatenate([part.stimuli for part in parts]),
        tuple(arm for part in parts for arm in part.arms),
        np.concatenate([part.gaudy for part in parts]),
        np.concatenate([part.disagreement for part in parts]),
        sum(part.n_candidates for part in parts),
    )


def _choice(
    stimuli: StimulusSet,
    arm: Arm,
    made_gaudy: np.ndarray | None = None,
    values: np.ndarray | None = None,
    n_candidates: int = 0,
) -> Choice:
    """Return what was chosen for one arm."""
    n = len(stimuli)
    return Choice(
        stimuli,
        (arm,) * n,
        np.zeros(n, dtype=bool) if made_gaudy is None else made_gaudy,
        np.full(n, np.nan) if values is None else values,
        n_candidates,
    )


def _stream(
    candidates: StimulusSet,
    draw: Draw,
    config: ChoiceConfig,
    predict_members: Predict,
    advance: Callable[[int], None],
) -> Top:
    """Return the best of all candidates that are new, met in the pool's own order."""
    top = Top(config.n_top)
    for start in range(0, len(candidates), config.block):
        places = np.arange(start, min(start + config.block, len(candidates)))
        free = draw.free(candidates, places)
        if len(free):
            block = in_memory(candidates.take(free))
            new = draw.new(block, np.arange(len(free)))
            known = set(top.digests)
            kept = [place for digest, place in new.items() if digest not in known]
            if kept:
                digests = [block.digests[k] for k in kept]
                top.add(free[kept], digests, predict_members(block.take(kept)))
        advance(len(places))
    refuse_few(len(top.places), config.n_disagreement, "disagreement")
    return top
