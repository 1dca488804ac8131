import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from pocketcortex import plots
from pocketcortex.core import InputError

ROLES = {"natural_max": "random", "natural_min": "random", "adversarial+": "base"}


def make_tables(n=6):
    draw = np.random.default_rng(0)
    centre = {"natural_max": 140.0, "natural_min": -50.0, "adversarial+": 80.0}
    effects = pd.DataFrame(
        [
            {"neuron": k, "role": role, "percent": value, "d_prime": value / 50}
            for role in ROLES
            for k, value in enumerate(draw.normal(centre[role], 10, size=n))
        ]
    )
    effects.loc[effects["neuron"] == 2, "percent"] = np.nan
    rows = []
    for role, reference in ROLES.items():
        own = effects[effects["role"] == role]
        row = {"role": role, "reference": reference, "n_neurons": own["percent"].notna().sum()}
        for name in ("percent", "d_prime"):
            row |= {f"{name}_mean": own[name].mean(), f"{name}_se": own[name].sem()}
            row |= {f"{name}_p": 0.0625 if role == "natural_min" else 0.0001}
        row |= {"d_prime_n": n, "n_tested": n, "n_increased": 4, "n_decreased": 1}
        rows.append(row)
    return effects, pd.DataFrame(rows)


def dots(ax):
    """Offsets of the dots of each role."""
    return [c.get_offsets() for c in ax.collections if len(c.get_offsets()) > 1]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_draws_every_neuron_mean_and_error():
    effects, population = make_tables()
    ax = plots.plot_effects(effects, population)
    for points, role in zip(dots(ax), ROLES, strict=True):
        expected = effects.loc[effects["role"] == role, "percent"].dropna()
        assert np.array_equal(points[:, 1], expected)
    means = [line.get_ydata()[0] for line in ax.lines if to_hex(line.get_color()) != "#ffffff"]
    assert means == pytest.approx([0, *population["percent_mean"]])
    bands = [c.get_paths()[0].get_extents() for c in ax.collections if c.get_alpha() == 0.22]
    for band, row in zip(bands, population.itertuples(), strict=True):
        assert band.y0 == pytest.approx(row.percent_mean - row.percent_se)
        assert band.y1 == pytest.approx(row.percent_mean + row.percent_se)
    assert ax.get_ylabel() == "change of response, %Δr"


def test_the_same_neuron_is_joined_and_gaps_are_not():
    effects, population = make_tables()
    ax = plots.plot_effects(effects, population)
    segments = next(c for c in ax.collections if hasattr(c, "get_segments")).get_segments()
    assert len(segments) == 5 * 2  # neuron 2 has no percent
    wide = effects.pivot(index="role", columns="neuron", values="percent")
    joined = {(a[1], b[1]) for a, b in segments}
    assert joined == {
        (wide.loc[first, k], wide.loc[second, k])
        for first, second in (("natural_max", "natural_min"), ("natural_min", "adversarial+"))
        for k in (0, 1, 3, 4, 5)
    }


def test_numbers_stand_in_words():
    effects, population = make_tables()
    found = texts(plots.plot_effects(effects, population))
    mean, error = population["percent_mean"][1], population["percent_se"][1]
    assert f"−{-mean:.1f} ± {error:.1f} %" in found
    assert "n = 5, p = 0.062\n4↑ 1↓ of 6" in found
    assert sum("p < 0.001" in text for text in found) == 2


def test_colours_say_what_a_role_is_meant_to_do():
    effects, population = make_tables()
    ax = plots.plot_effects(effects, population)
    faces = [to_hex(c.get_facecolor()[0]) for c in ax.collections if len(c.get_offsets()) > 1]
    assert faces[0] == faces[2] != faces[1]


def test_undefined_neurons_are_counted_below():
    effects, population = make_tables()
    labels = [t.get_text() for t in plots.plot_effects(effects, population).get_xticklabels()]
    assert labels[0] == "natural\nmax\n(1 undefined)"
    labels = plots.plot_effects(effects, population, measure="d_prime").get_xticklabels()
    assert [t.get_text() for t in labels] == ["natural\nmax", "natural\nmin", "adversarial+"]


def test_a_role_without_any_value_is_drawn_empty():
    effects, population = make_tables()
    effects["percent"] = np.nan
    empty = population.assign(percent_mean=np.nan, percent_se=np.nan, percent_p=np.nan, n_neurons=0)
    ax = plots.plot_effects(effects, empty)
    assert texts(ax).count("undefined") == 3
    assert "n = 0\n4↑ 1↓ of 6" in texts(ax)


def test_all_dots_and_texts_are_within_the_axes():
    effects, population = make_tables()
    ax = plots.plot_effects(effects, population)
    low, high = ax.get_ylim()
    assert all(((points[:, 1] > low) & (points[:, 1] < high)).all() for points in dots(ax))
    ax.figure.canvas.draw()
    box = ax.get_window_extent()
    highest_dot = ax.transData.transform((0, np.nanmax(effects["percent"])))[1]
    for text in ax.texts:
        extent = text.get_window_extent()
        assert extent.y1 <= box.y1
        assert extent.y0 > highest_dot


def test_figure_has_a_panel_for_each_reference():
    figure = plots.figure_causal(*make_tables())
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "against random images",
        "against the image each was made from",
    ]
    assert [len(ax.get_xticks()) for ax in figure.axes] == [2, 1]
    with Image.open(io.BytesIO(plots.render_figure(figure).png)) as image:
        assert np.asarray(image).std() > 0


def test_draws_into_given_axes():
    first = plots.plot_effects(*make_tables())
    assert plots.plot_effects(*make_tables(), ax=first) is first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, p: (e.drop(columns="percent"), p), "`effects` lacks percent"),
        (lambda e, p: (e, p.drop(columns="percent_p")), "`population` lacks percent_p"),
        (lambda e, p: (e[e["role"] != "natural_min"], p), "no row of role 'natural_min'"),
        (lambda e, p: (pd.concat([e, e]), p), "two rows of one neuron"),
        (lambda e, p: (e, p[:0]), "one or more roles"),
        (lambda e, p: (e, pd.concat([p, p])), "one row for each"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(InputError, match=message):
        plots.plot_effects(*change(*make_tables()))


def test_refuses_an_unknown_reference():
    effects, population = make_tables()
    with pytest.raises(InputError, match="got 'mean'"):
        plots.figure_causal(effects, population.assign(reference="mean"))
