"""Causal tests: how far each role of stimuli changed the responses, neuron by neuron."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pocketcortex.core import InputError
from pocketcortex.plots.style import (
    FAINT,
    INK,
    MUTED,
    SMALL_SIZE,
    TEXT_SIZE,
    axes_or_new,
    label_axes,
    swarm_offsets,
)

Measure = Literal["percent", "d_prime"]
"""Change in percent of the mean response to the reference, or in sd over random images."""

_LABELS = {
    "percent": "change of response, %Δr",
    "d_prime": "change of response, d′ (sd over random images)",
}
_REFERENCES = {"random": "against random images", "base": "against the image each was made from"}
_LEGEND = (
    "dots: neurons, one line each; bars: mean ± s.e. over n neurons, with its p; "
    "↑↓: neurons that changed significantly by themselves"
)
_RAISING, _LOWERING, _NEITHER = "#D55E00", "#0072B2", "#6A6A6A"
_WIDTH = 1.35  # inches a role
_HEIGHT = 4.6
_HEADROOM = 0.2  # of the axes' height, for the text above


def plot_effects(
    effects: pd.DataFrame,
    population: pd.DataFrame,
    *,
    measure: Measure = "percent",
    ax: Axes | None = None,
) -> Axes:
    """Draw the change of response of every neuron by each role, and the mean over neurons.

    A dot is a neuron, a thin line joins a neuron's dots of neighbouring roles, and the thick bar is
    the mean over neurons with its standard error. Above stand mean and error, the number of
    neurons, the p of the mean, and how many neurons by themselves increased or decreased
    significantly. Roles meant to raise the response are orange, those meant to lower it blue, and
    controls grey; neurons without a value are not drawn, and are counted below the role.

    Parameters
    ----------
    effects
        One row for each neuron and role, as `metrics.causal_effects` gives it.
    population
        One row for each role to draw, in order, as `metrics.population_effects` gives it.
    measure
        ``"percent"``, or ``"d_prime"`` for responses without a true zero.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If `measure` is unknown, a column is missing, there is no role, or a role of `population`
        has no row in `effects` or several for one neuron.
    """
    roles = _checked(effects, population, measure)
    ax = axes_or_new(ax, (1.0 + _WIDTH * len(roles), _HEIGHT))
    wide = effects.pivot(index="role", columns="neuron", values=measure).loc[list(roles)]
    table = wide.to_numpy(dtype=np.float64)  # (role, neuron)
    known = np.isfinite(table)
    low, high = _limits(table[known])
    places = np.full(table.shape, np.nan)
    for row in range(len(table)):
        places[row, known[row]] = row + swarm_offsets(
            table[row, known[row]], bin_width=(high - low) / 60, step=0.06, half_width=0.3
        )
    points = np.stack([places, table], axis=-1)
    segments = np.stack([points[:-1], points[1:]], axis=2).reshape(-1, 2, 2)
    segments = segments[~np.isnan(segments).any(axis=(1, 2))]
    ax.add_collection(LineCollection(list(segments), colors=FAINT, linewidths=0.5, zorder=1))
    ax.axhline(0, color=MUTED, linewidth=0.9, zorder=1.5)
    top = high + _HEADROOM / (1 - _HEADROOM) * (high - low)
    ax.set(xlim=(-0.6, len(roles) - 0.4), ylim=(low, top))
    for row, role in enumerate(roles):
        colour = _colour(role)
        ax.scatter(
            places[row, known[row]], table[row, known[row]], s=15, color=colour, alpha=0.55,
            edgecolors="white", linewidths=0.4, zorder=2,
        )  # fmt: skip
        _draw_role(ax, row, population[population["role"] == role].iloc[0], measure, colour)
    labels = [_label(role, int((~own).sum())) for role, own in zip(roles, known, strict=True)]
    ax.set_xticks(range(len(roles)), labels)
    for tick in ax.get_xticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="x", length=0)
    ticks = MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    ax.set_yticks([tick for tick in ticks if low <= tick <= high])
    label_axes(ax, "", _LABELS[measure])
    return ax


def figure_causal(
    effects: pd.DataFrame, population: pd.DataFrame, *, measure: Measure = "percent"
) -> Figure:
    """Return a panel for each reference: random natural images, and the stimuli's base images.

    Parameters
    ----------
    effects, population, measure
        As for `plot_effects`.

    Raises
    ------
    InputError
        As `plot_effects`, and if a reference is neither ``"random"`` nor ``"base"``.
    """
    _checked(effects, population, measure)
    if unknown := set(population["reference"]) - set(_REFERENCES):
        raise InputError(
            f"a reference must be one of {', '.join(_REFERENCES)}, got {sorted(unknown)[0]!r}"
        )
    parts = {
        reference: population[population["reference"] == reference]
        for reference in _REFERENCES
        if (population["reference"] == reference).any()
    }
    sizes = [max(len(part), 2) for part in parts.values()]
    figure = Figure(figsize=(1.0 * len(parts) + _WIDTH * sum(sizes), 4.9), layout="constrained")
    axes = figure.subplots(1, len(parts), width_ratios=sizes, squeeze=False)[0]
    for ax, (reference, part) in zip(axes, parts.items(), strict=True):
        plot_effects(effects, part, measure=measure, ax=ax)
        ax.set_title(_REFERENCES[reference], fontsize=TEXT_SIZE, color=INK, loc="left")
    figure.supxlabel(_LEGEND, fontsize=SMALL_SIZE, color=MUTED)
    return figure


def _checked(effects: pd.DataFrame, population: pd.DataFrame, measure: str) -> Sequence[str]:
    """Return the roles to draw, once each; refuse tables that do not fit."""
    if measure not in get_args(Measure):
        raise InputError(f"measure must be 'percent' or 'd_prime', got {measure!r}")
    needed = {
        "effects": (effects, ["neuron", "role", measure]),
        "population": (
            population,
            ["role", "reference", *(f"{measure}_{name}" for name in ("mean", "se", "p")),
             "n_tested", "n_increased", "n_decreased"],
        ),
    }  # fmt: skip
    for name, (table, columns) in needed.items():
        if missing := [column for column in columns if column not in table]:
            raise InputError(f"the table `{name}` lacks {', '.join(missing)}")
    roles = [str(role) for role in population["role"]]
    if not roles or len(set(roles)) < len(roles):
        raise InputError(f"`population` needs one row for each of one or more roles, got {roles}")
    if absent := [role for role in roles if role not in set(effects["role"])]:
        raise InputError(f"`effects` has no row of role {absent[0]!r}")
    if effects.duplicated(["neuron", "role"]).any():
        raise InputError("`effects` has two rows of one neuron and role; number neurons through")
    return roles


def _limits(values: Float[np.ndarray, " _"]) -> tuple[float, float]:
    """Return limits that hold 0 and all values, with a little room."""
    low, high = (float(f(values, initial=0.0)) for f in (np.min, np.max))
    room = 0.05 * max(high - low, 1e-9)
    return (low - room, high + room) if high > low else (-1.0, 1.0)


def _draw_role(ax: Axes, place: int, row: pd.Series, measure: str, colour: str) -> None:
    """Draw one role's mean and standard error, and write the numbers above."""
    mean, error, p = (float(row[f"{measure}_{name}"]) for name in ("mean", "se", "p"))
    if np.isfinite(mean):
        span = [place - 0.34, place + 0.34]
        if np.isfinite(error):
            ax.fill_between(span, mean - error, mean + error, color=colour, alpha=0.22, lw=0,
                            zorder=2.5)  # fmt: skip
        ax.plot(span, [mean, mean], color="white", linewidth=3.8, zorder=3)
        ax.plot(span, [mean, mean], color=colour, linewidth=2.2, zorder=3)
    n = int(row["n_neurons"] if measure == "percent" else row["d_prime_n"])
    unit, digits = ("%", 1) if measure == "percent" else ("", 2)
    found = f"{mean:+.{digits}f}".replace("-", "−") + (
        f" ± {error:.{digits}f}" if np.isfinite(error) else ""
    )
    numbers = f"n = {n}, {_p_text(p)}" if np.isfinite(mean) else f"n = {n}"
    single = f"{int(row['n_increased'])}↑ {int(row['n_decreased'])}↓ of {int(row['n_tested'])}"
    transform = ax.get_xaxis_transform()  # x as data, y as a share of the axes
    ax.text(
        place, 0.985, f"{found}{' ' * bool(unit)}{unit}" if np.isfinite(mean) else "undefined",
        transform=transform, ha="center", va="top", fontsize=SMALL_SIZE + 0.5, color=colour,
        fontweight="bold",
    )  # fmt: skip
    ax.text(
        place, 0.925, f"{numbers}\n{single}", transform=transform, ha="center", va="top",
        fontsize=SMALL_SIZE - 0.5, color=INK, linespacing=1.35,
    )  # fmt: skip


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _label(role: str, n_missing: int) -> str:
    words = role.replace("_", "\n").replace("-", "−")
    return f"{words}\n({n_missing} undefined)" if n_missing else words


def _colour(role: str) -> str:
    """Return the colour of what a role is meant to do to the response."""
    if role.endswith(("max", "+")):
        return _RAISING
    return _LOWERING if role.endswith(("min", "-")) else _NEITHER
