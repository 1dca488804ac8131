"""Causal tests: how far stimuli made for a neuron change its response, neuron by neuron and all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pocketcortex.core.errors import InputError
from pocketcortex.metrics._averages import averages
from pocketcortex.metrics._permutation import check_permutations, sign_flip_p, two_sample_p
from pocketcortex.metrics.roles import EVERYONE, RANDOM, StimulusRoles

_CLEARLY = 2.0  # standard errors by which a mean must exceed 0 for a ratio to it to mean much

_UNMATCHED = "neuron stands for no model"
_NOT_SHOWN = "no stimulus of this role was shown for this neuron"
_NO_REFERENCE = "no stimulus to compare with was shown to this neuron"
_CONSTANT = "constant: equal responses to all stimuli of the role and its reference"
_NOT_POSITIVE = "mean response to the reference is not clearly above 0, such as in z-scored units"


def causal_effects(
    responses: Float[np.ndarray, "..."],
    roles: StimulusRoles,
    *,
    rng: np.random.Generator,
    targets: Int[np.ndarray, " n_neurons"] | None = None,
    n_permutations: int = 10_000,
) -> pd.DataFrame:
    r"""Return how far each role of stimuli changes each neuron's response, a row for each two.

    .. math:: \%\Delta r = 100 \, (\bar t - \bar r) / \bar r

    with :math:`\bar t` the mean over the role's stimuli made for the neuron's target (each the
    mean of its repeats) and :math:`\bar r` that over the reference: all random natural images for
    roles without base images (maximizing, minimizing), and for the others (adversarial, smoothed)
    the base images, pair by pair. Stimuli made from one base are averaged first, so that bases
    count alike and are what errors and flips are taken over.

    Standard errors are over stimuli, by the delta method: with s² the variances over the role's
    and the reference's stimuli,
    :math:`100 \sqrt{s_t^2 / n_t + (\bar t / \bar r)^2 s_r^2 / n_r} / \bar r`, and for pairs
    :math:`100 \, \mathrm{sd}(t_i - (\bar t / \bar r) r_i) / (\bar r \sqrt n)`. A stimulus brings
    the noise of its own repeats, so trial noise is in them and must not be added. They speak of
    other stimuli made the same way. A bootstrap over the few stimuli of a role would be too narrow
    by :math:`\sqrt{1 - 1/n}`.

    p is that of a two-sided permutation test: labels exchanged between the role's stimuli and the
    random images, with Welch's t as statistic, or signs of the differences flipped within pairs.
    Welch's t lets the variances differ, as they do when maximizing images get fewer repeats than
    random ones. Simulated without effect (Poisson counts, gamma rates of mean 3), 8 to 20 stimuli
    against 100 to 300 with 1 to 10 repeats each are significant at 0.05 in 4.5 to 5.9 % of cases;
    the plain difference of means would be in up to 14 %, though it detects more where the
    repeats are equal.

    Stimuli must not have been chosen by these same responses: the best of many images by their own
    noisy responses are above average by chance.

    Parameters
    ----------
    responses
        (n_stimuli, n_repeats, n_neurons), NaN where a repeat was not shown; or, where there are no
        repeats, averages or a model's predictions (n_stimuli, n_neurons). Any unit; percent
        changes need one with a true zero, such as spike counts or rates.
    roles
        What each stimulus was shown for.
    rng
        Source of the permutations.
    targets
        Which target each neuron stands for (such as the column `model` of :func:`match_neurons`),
        -1 for none; by default neuron k for target k. Several neurons may stand for one.
    n_permutations
        Shuffles; fewer where all there are can be gone through, and then p is exact.

    Returns
    -------
    pd.DataFrame
        One row for each neuron and role:

        ``neuron``, ``target``, ``role``, ``reference`` ("random" or "base")
            which; `target` is -1 for a neuron that stands for none.
        ``n_stimuli``, ``n_reference``, ``n_repeats``
            Stimuli of the role, reference stimuli (random images, or bases), and the mean number
            of repeats of the role's stimuli (NaN for averages).
        ``mean``, ``reference_mean``, ``difference``, ``difference_se``
            In units of the responses.
        ``percent``, ``percent_se``
            NaN unless the reference mean exceeds 0 by two of its standard errors.
        ``d_prime``
            The difference in sd of the neuron's mean responses to random images (of base images,
            if no random ones were shown): defined in any unit, and alike for all roles.
        ``p``, ``reason``
            Why `percent` is NaN, else empty. Errors are NaN below two stimuli.

    Raises
    ------
    InputError
        If shapes, roles and targets disagree, values are infinite, there is no role to test, or
        `n_permutations` is below 100.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 2 and Ext. Data 4 (percent changes against random
    images and original images). Phipson & Smyth (2010), Permutation p-values should never be
    zero. Standard errors over stimuli, the permutations, d' and the rule for small
    references are our own choices; Welch's t under permutation is Janssen's (1997), Studentized
    permutation tests for non-i.i.d. hypotheses, Statistics & Probability Letters 36: 9-21.

    Examples
    --------
    >>> import numpy as np
    >>> roles = StimulusRoles(("random",) * 6 + ("natural_max",) * 4,
    ...     target=np.array([-1] * 6 + [0] * 4), base=np.full(10, -1))
    >>> responses = np.array([1.0, 2, 3, 1, 2, 3, 5, 6, 4, 5])[:, None]
    >>> effects = causal_effects(responses, roles, rng=np.random.default_rng(0))
    >>> effects[["role", "percent", "d_prime"]].round(1).values.tolist()
    [['natural_max', 150.0, 3.4]]
    """
    check_permutations(n_permutations)
    means, counts = averages(responses, len(roles))
    targets = _checked_targets(targets, roles, means.shape[1])
    if not roles.tested:
        raise InputError("there is no role to test: all stimuli are random images or base images")
    compared = [
        _compare(means[:, neuron], counts[:, neuron], roles, role, int(target))
        for neuron, target in enumerate(targets)
        for role in roles.tested
    ]
    p = np.full(len(compared), np.nan)
    testable = [k for k, one in enumerate(compared) if one.p_defined]
    pairs = [k for k in testable if compared[k].paired]
    others = [k for k in testable if not compared[k].paired]
    settings: dict[str, Any] = {"rng": rng, "n_permutations": n_permutations}
    p[others] = two_sample_p([(compared[k].treated, compared[k].reference) for k in others],
                             **settings)  # fmt: skip
    p[pairs] = sign_flip_p([compared[k].treated - compared[k].reference for k in pairs], **settings)
    identity = [
        {"neuron": neuron, "target": int(target), "role": role}
        for neuron, target in enumerate(targets)
        for role in roles.tested
    ]
    rows = [
        who | one.row() | {"p": own, "reason": one.reason}
        for who, one, own in zip(identity, compared, p, strict=True)
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Comparison:
    """One neuron's mean responses to a role's stimuli and to their reference."""

    treated: Float[np.ndarray, " n_treated"]
    reference: Float[np.ndarray, " n_reference"]
    paired: bool
    n_stimuli: int
    n_repeats: float
    yardstick: Float[np.ndarray, " n_yardstick"]
    missing: str

    @property
    def p_defined(self) -> bool:
        return self.reason in ("", _NOT_POSITIVE)

    @property
    def reason(self) -> str:
        if self.missing:
            return self.missing
        if np.ptp(np.concatenate([self.treated, self.reference])) == 0:
            return _CONSTANT
        mean = self.reference.mean()
        error = _se(self.reference)
        clear = mean > (0 if np.isnan(error) else _CLEARLY * error)
        return "" if clear else _NOT_POSITIVE

    def row(self) -> dict[str, Any]:
        """Return the numbers of the comparison; the percent change is NaN if there is a reason."""
        n_reference = len(self.reference)
        found: dict[str, Any] = {
            "reference": "base" if self.paired else RANDOM, "n_stimuli": self.n_stimuli,
            "n_reference": n_reference, "n_repeats": self.n_repeats,
        }  # fmt: skip
        numbers = dict.fromkeys(
            ("mean", "reference_mean", "difference", "difference_se", "percent", "percent_se",
             "d_prime"), np.nan
        )  # fmt: skip
        if self.missing:
            return found | numbers
        mean, base = float(self.treated.mean()), float(self.reference.mean())
        numbers |= {"mean": mean, "reference_mean": base, "difference": mean - base}
        numbers["difference_se"] = self._difference_se(1.0)
        spread = self.yardstick.std(ddof=1) if len(self.yardstick) > 1 else 0.0
        if spread > 0:
            numbers["d_prime"] = (mean - base) / spread
        if not self.reason:
            numbers["percent"] = 100 * (mean - base) / base
            numbers["percent_se"] = 100 * self._difference_se(mean / base) / base
        return found | numbers

    def _difference_se(self, ratio: float) -> float:
        """Return the standard error of mean(treated) - ratio * mean(reference)."""
        if self.paired:
            return _se(self.treated - ratio * self.reference)
        return float(np.hypot(_se(self.treated), ratio * _se(self.reference)))


def _compare(
    mean: Float[np.ndarray, " n_stimuli"],
    count: Float[np.ndarray, " n_stimuli"],
    roles: StimulusRoles,
    role: str,
    target: int,
) -> _Comparison:
    """Return one neuron's responses to a role and its reference, of the stimuli it was shown."""
    shown = ~np.isnan(mean)
    rows, random = (roles.rows(name, target) for name in (role, RANDOM))
    rows, random = rows[shown[rows]], random[shown[random]]
    paired = roles.is_paired(role)
    treated, reference = mean[rows], mean[random]
    if paired:
        with_base = shown[roles.base[rows]]
        missing = _NO_REFERENCE if len(rows) and not with_base.any() else ""
        rows = rows[with_base]
        bases, which = np.unique(roles.base[rows], return_inverse=True)
        treated = np.bincount(which, mean[rows], len(bases)) / np.bincount(which, None, len(bases))
        reference = mean[bases]
    else:
        missing = "" if len(random) else _NO_REFERENCE
    if target == EVERYONE:
        missing = _UNMATCHED
    elif not len(rows):
        missing = missing or _NOT_SHOWN
    return _Comparison(
        treated,
        reference,
        paired,
        len(rows),
        float(count[rows].mean()) if len(rows) else np.nan,
        mean[random] if RANDOM in roles.role else reference,
        missing,
    )


def _se(values: Float[np.ndarray, " _"]) -> float:
    """Return the standard error of a mean; NaN below two values."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _checked_targets(
    targets: Int[np.ndarray, " _"] | None, roles: StimulusRoles, n_neurons: int
) -> Int[np.ndarray, " n_neurons"]:
    """Return which target each neuron stands for."""
    highest = int(roles.target.max())
    if targets is None:
        if highest >= n_neurons:
            raise InputError(
                f"a stimulus has target {highest}, but there are {n_neurons} neurons; give "
                "`targets`, which target each neuron stands for (match_neurons finds them)"
            )
        return np.arange(n_neurons)
    if targets.shape != (n_neurons,):
        raise InputError(f"targets must be one a neuron, ({n_neurons},), got shape {targets.shape}")
    n_targets = roles.n_targets
    if targets.min(initial=0) < EVERYONE or (
        n_targets is not None and targets.max(initial=0) >= n_targets
    ):
        raise InputError(
            f"targets must be -1 for none, or 0..{'' if n_targets is None else n_targets - 1}, got "
            f"{int(targets.min())} to {int(targets.max())}"
        )
    return targets
