"""Which family of stimuli each model prefers, and how sure that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, UInt8

from pocketcortex.core import InputError
from pocketcortex.dissect.fields import MODELS_AT_ONCE, PLACES, SHIFT, ReceptiveFields
from pocketcortex.dissect.probes import AXES, FAMILIES, RADII, probes
from pocketcortex.models import CompactModel, PairedStack
from pocketcortex.stimuli import plain_colours

NONE = "none"
"""What a model without a preference is said to prefer."""

_WORTH_A_LOOK = 0.5  # of the response to white and black that a hue must reach to be shown in full

# Settled on one simulated animal and tried on another (examples/insilico_circuits.py).
_PLAIN = 0.93  # colour: of the best response that a plain disc must reach
_CLOSED = 0.74  # dot: the best border, bar or arc may reach so much of the best dot
_DRIVEN_SD = 4.0  # standard deviations above the mean of natural images that probes must drive
_LIKELY = 0.5  # least share of resamples that must give the family
_SMALL = 0.1  # image sides: dots of a smaller radius are small ones
_SIZED = 0.5  # of the best small dot, most that the largest of its series may reach
_ALSO_AROUND = 0.25  # share of each family, the strongest, that is shown around the centre too


@dataclass(frozen=True, eq=False)
class Preferences:
    """What every model of a population prefers.

    Attributes
    ----------
    table
        One row a model: ``family`` (one of `FAMILIES` or `NONE`), ``axis`` of colours, ``shape``
        and parameters of the best probe, ``response`` to it, ``sd_above_mean`` of natural images,
        ``confidence`` (share of resamples of the probes that give this family), ``margin`` (score
        of this family minus the best of the others; below 0 where the rule prefers a family to one
        that drives as much), ``reason`` where the family is none, and for each family
        ``score_FAMILY``: the best response above grey in the axis preferred, over the best of all
        families.
    stimuli
        For each model the best probe of each family, in the order of `FAMILIES`, in its axis.
    responses
        To them.
    """

    table: pd.DataFrame
    stimuli: UInt8[np.ndarray, "n_models 5 3 h w"]
    responses: Float[np.ndarray, "n_models 5"]

    def ranked(self, family: str) -> Int[np.ndarray, " n_of_family"]:
        """Return the models that prefer a family, most convincing first.

        By confidence times margin times how far the best probe drives beyond natural images.
        """
        own = np.flatnonzero(self.table["family"] == family)
        merit = np.asarray(merits(self.table.iloc[own]))
        return own[np.argsort(-merit, kind="stable")]


def merits(table: pd.DataFrame) -> Float[np.ndarray, " n"]:
    """Return what candidates of a family are ranked by: confidence x margin x drive (in sd)."""
    product = table["confidence"] * table["margin"].clip(lower=0) * table["sd_above_mean"]
    return np.asarray(product, dtype=np.float64)


def preferences(
    models: Sequence[CompactModel],
    fields: ReceptiveFields,
    natural_responses: Float[np.ndarray, "n_images n_models"],
    *,
    with_field: Bool[np.ndarray, " n_known"],
    rng: np.random.Generator,
    n_resamples: int = 200,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> Preferences:
    """Return the family of stimuli that each model prefers: dot, edge, curve, texture, colour.

    `probes` of all families are shown in the middle of each model's receptive field and at four
    places around it (there the strongest quarter of each family), in white and black and, where a
    hue drives the model too, in the hue that does so most. A family's score is the best response
    above that to grey. The decision, in this order: *colour*, if hues drive the model more than
    white and black and a plain disc reaches 93 % of the best response; *texture*, if gratings
    averaged over phase beat all else; *dot*, if borders, bars and arcs reach at most 74 % of the
    best dot; *edge*, if straight ones drive at least as much as curved ones; else *curve*.
    No family, with the reason, is given to a model without a receptive field, whose best probe
    drives it less than four standard deviations above the mean of natural images, or whose family
    fewer than half of the resamples give. Nor is one given to a
    model of dots without a best size: the best dot must be a small one (a radius below a tenth of
    the image's side), and the largest of the same series reach at most half of it.

    Parameters
    ----------
    models
        Compact models for one image size, square.
    fields
        Their receptive fields.
    natural_responses
        Their responses to natural images, two or more, for mean and standard deviation.
    with_field
        Which models have one that is worth the name: from `has_field`.
    rng
        Source of the resamples.
    n_resamples
        Resamples of probes and places by which confidence is told; 0 does without.
    device
        Where to compute.
    advance
        Told how many models are done.

    Raises
    ------
    InputError
        If the numbers of models differ, there are fewer than two natural images, or images are
        not square.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Extended Data Fig. 6, groups models by eye; the
    probes, the rule and its thresholds are ours, and were settled on simulated neurons.
    """
    n_images, n_models = natural_responses.shape
    if {len(models), len(fields.x_px), len(with_field)} != {n_models}:
        raise InputError(
            f"{len(models)} models, {len(fields.x_px)} receptive fields, {len(with_field)} words "
            f"on whether they have one, and responses of {n_models}: give one of each a model"
        )
    if n_images < 2:
        raise InputError(f"natural responses need two images or more, got {n_images}")
    height, width = models[0].image_size
    if height != width:
        raise InputError(f"probes are square; the models take {height} x {width}")
    mean, sd = natural_responses.mean(axis=0), natural_responses.std(axis=0)
    rows, images, responses = [], [], []
    for first in range(0, n_models, MODELS_AT_ONCE):
        own = range(first, min(n_models, first + MODELS_AT_ONCE))
        asked = _Asked([models[k] for k in own], fields, list(own), device)
        for place, k in enumerate(own):
            row, shown, answers = _decide(asked, place, rng, n_resamples)
            row["sd_above_mean"] = (row["response"] - mean[k]) / sd[k] if sd[k] > 0 else np.nan
            row["reason"] = _why_none(row, bool(with_field[k]), float(fields.share_of_image[k]))
            row["preferred"] = row["family"]
            if row["reason"]:
                row["family"] = NONE
            rows.append(row)
            images.append(shown)
            responses.append(answers)
        advance(len(own))
    return Preferences(pd.DataFrame(rows), np.stack(images), np.stack(responses))


class _Asked:
    """The responses of a few models to probes, above those to grey."""

    def __init__(
        self,
        models: Sequence[CompactModel],
        fields: ReceptiveFields,
        own: Sequence[int],
        device: str | torch.device,
    ) -> None:
        self.size = models[0].image_size[0]
        self.device = device
        self.models = models
        self.stack = PairedStack(models).to(device)
        middle = (self.size - 1) / 2
        across, down = (np.nan_to_num(a, nan=middle) for a in (fields.x_px, fields.y_px))
        self.centres = [(round(float(across[k])), round(float(down[k]))) for k in own]
        grey = plain_colours([(128, 128, 128)], self.size).images
        self.grey = self._shown(self.stack, np.stack([grey] * len(models)))[:, 0]
        everyone = range(len(models))
        self.black_white = self._everywhere(self.stack, everyone, [AXES[0] for _ in everyone])
        self.hues = self._hues()

    def _hues(self) -> dict[int, tuple[str, Float[np.ndarray, "n_places n_probes"]]]:
        """Return, for each model that hues drive, the one that does so most and the responses."""
        strength = np.empty((len(AXES) - 1, len(self.models)))
        for number, axis in enumerate(AXES[1:]):
            bank = probes(self.size, axis)
            few = bank.table["shape"].isin(["plain", "ringed disc"]) | (
                (bank.table["family"] == "edge") & (bank.table["shape"] == "border")
            )
            rows = few.to_numpy()
            shown = np.stack([bank.at(*centre)[rows] for centre in self.centres])
            strength[number] = (self._shown(self.stack, shown) - self.grey[:, None]).max(axis=1)
        best = [AXES[1 + int(hue)] for hue in strength.argmax(axis=0)]
        enough = _WORTH_A_LOOK * self.black_white.max(axis=(1, 2)).clip(min=0)
        own = np.flatnonzero(strength.max(axis=0) > enough).tolist()
        if not own:
            return {}
        stack = PairedStack([self.models[k] for k in own]).to(self.device)
        answers = self._everywhere(stack, own, [best[k] for k in own])
        return {k: (best[k], one) for k, one in zip(own, answers, strict=True)}

    def _everywhere(
        self, stack: PairedStack, own: Sequence[int], axes: Sequence[str]
    ) -> Float[np.ndarray, "n_own n_places n_probes"]:
        """Return responses; around the centre only what is strong there is shown, no gratings.

        Where a probe is not shown the response in the middle stands.
        """
        banks = [probes(self.size, axis) for axis in axes]
        grey = self.grey[list(own), None]
        asked = list(zip(own, banks, strict=True))
        middle = self._shown(stack, np.stack([b.at(*self._place(k, 0)) for k, b in asked])) - grey
        out = np.repeat(middle[:, None], len(PLACES), axis=1)
        strong = np.stack([_strongest(row, banks[0].table["family"]) for row in middle])
        for place in range(1, len(PLACES)):
            shown = np.stack([
                bank.at(*self._place(k, place))[some]
                for (k, bank), some in zip(asked, strong, strict=True)
            ])  # fmt: skip
            np.put_along_axis(out[:, place], strong, self._shown(stack, shown) - grey, axis=1)
        return out

    def _place(self, k: int, place: int) -> tuple[int, int]:
        """Return the pixel that is a place about a model's centre."""
        step, last = round(SHIFT * self.size), self.size - 1
        x, y = (
            int(np.clip(c + step * way, 0, last))
            for c, way in zip(self.centres[k], PLACES[place], strict=True)
        )
        return x, y

    def _shown(self, stack: PairedStack, images: np.ndarray) -> Float[np.ndarray, "n_models n"]:
        with torch.inference_mode():
            answers = stack.responses(torch.from_numpy(images).to(self.device))
        return np.asarray(answers.double().cpu().numpy())

    def axis_of(self, k: int) -> tuple[str, Float[np.ndarray, "n_places n_probes"]]:
        """Return the pair of colours that drives a model most, and the responses in it."""
        plain, hue = self.black_white[k], self.hues.get(k)
        if hue is None or hue[1].max() <= plain.max():
            return AXES[0], plain
        return hue

    def image(self, k: int, axis: str, place: int, probe: int) -> UInt8[np.ndarray, "3 h w"]:
        """Return a probe as it was shown to a model."""
        shown = probes(self.size, axis).at(*self._place(k, place))
        return np.ascontiguousarray(shown[probe])


def _decide(
    asked: _Asked, k: int, rng: np.random.Generator, n_resamples: int
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return a row of the table, the best probe of each family, and the responses to them."""
    axis, answers = asked.axis_of(k)
    table = probes(asked.size, axis).table
    group = table["group"].to_numpy()
    counts = np.bincount(group)
    grouped = np.stack([np.bincount(group, weights=one) / counts for one in answers])
    family_of_group = table.groupby("group", sort=True)["family"].first().to_numpy()
    chromatic = axis != AXES[0]
    members = [np.flatnonzero(family_of_group == family) for family in FAMILIES]
    scores = np.array([grouped[:, own].max() for own in members])
    family = _family(scores, chromatic)
    votes = [
        _family(
            np.array([
                grouped[np.ix_(rng.integers(len(PLACES), size=len(PLACES)),
                               rng.choice(own, len(own)))].max()
                for own in members
            ]), chromatic,
        ) for _ in range(n_resamples)
    ]  # fmt: skip
    shown, responses = [], []
    best: dict[str, pd.Series] = {}
    for name, own in zip(FAMILIES, members, strict=True):
        place, at = np.unravel_index(grouped[:, own].argmax(), (len(PLACES), len(own)))
        of_group = np.flatnonzero(group == own[at])
        probe = int(of_group[answers[place, of_group].argmax()])
        shown.append(asked.image(k, axis, int(place), probe))
        responses.append(answers[place, probe] + asked.grey[k])
        best[name] = table.iloc[probe]
    chosen = FAMILIES.index(family)
    others = np.delete(scores, chosen)
    top = scores.max()
    kept = best[family].drop(["family", "group"]).dropna()
    details = {str(name): value for name, value in kept.items()}
    row: dict[str, Any] = {
        "family": family, "axis": axis, "response": float(responses[chosen]),
        "confidence": float(np.mean([vote == family for vote in votes])) if votes else np.nan,
        "margin": float((scores[chosen] - others.max()) / top) if top > 0 else np.nan,
        "largest_dot": _largest_dot(table, answers, best["dot"]),
        "x_px": asked.centres[k][0], "y_px": asked.centres[k][1], "grey": float(asked.grey[k]),
        **{f"score_{name}": float(s / top) if top > 0 else np.nan
           for name, s in zip(FAMILIES, scores, strict=True)},
        **details,
    }  # fmt: skip
    return row, np.stack(shown), np.array(responses)


def _family(scores: Float[np.ndarray, " 5"], chromatic: bool) -> str:
    """Return the family that best responses above grey speak for."""
    dot, edge, curve, texture, plain = scores
    border = max(edge, curve)
    if chromatic and plain >= _PLAIN * scores.max():
        return "colour"
    if texture > max(dot, border):
        return "texture"
    if border <= _CLOSED * dot:
        return "dot"
    return "edge" if edge >= curve else "curve"


def _strongest(answers: Float[np.ndarray, " n"], families: pd.Series) -> Int[np.ndarray, " n_few"]:
    """Return the probes of each family that drive most, but no gratings."""
    few = []
    for family in FAMILIES:
        if family != "texture":
            own = np.flatnonzero(families == family)
            count = max(2, round(_ALSO_AROUND * len(own)))
            few.append(own[np.argsort(-answers[own], kind="stable")[:count]])
    return np.concatenate(few)


def _largest_dot(
    table: pd.DataFrame, answers: Float[np.ndarray, "n_places n_probes"], best: pd.Series
) -> float:
    """Return the response to the largest dot over that to the best, of the same shape and colours.

    1 if the best is no small dot.
    """
    same = (table["family"] == "dot") & (table["shape"] == best["shape"])
    own = np.flatnonzero(same & (table["foreground"] == best["foreground"]))
    radii, reached = table["radius_px"].to_numpy()[own], answers[:, own].max(axis=0)
    if not (best["radius_px"] < _SMALL * radii.max() / RADII[-1] and reached.max() > 0):
        return 1.0
    return float(reached[radii.argmax()] / reached.max())


def _why_none(row: dict[str, Any], with_field: bool, share_of_image: float) -> str:
    """Return why a model has no preference, or nothing."""
    if not with_field:
        return (
            f"no receptive field: shuffled weights have as good a one (half of the gradient's "
            f"energy on {100 * share_of_image:.0f} % of the image)"
        )
    if not row["sd_above_mean"] > _DRIVEN_SD:
        return (
            f"no probe drives it: the best is {row['sd_above_mean']:.1f} standard deviations above "
            "the mean of natural images"
        )
    if row["confidence"] < _LIKELY:
        return f"not sure: {100 * row['confidence']:.0f} % of resamples give the family"
    if row["family"] == "dot" and not row["largest_dot"] <= _SIZED:
        return (
            f"no best size: a dot of radius {row['radius_px']:.1f} px is best, and the largest "
            f"drives {100 * row['largest_dot']:.0f} % as much"
        )
    return ""
