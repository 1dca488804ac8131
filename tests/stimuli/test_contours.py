"""Contours: straight ones are the library's edges, curved ones have the area of two discs' lens."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketcortex.core import InputError
from pocketcortex.stimuli import contours, edges

BLACK, GREY, WHITE = (0, 0, 0), (128, 128, 128), (255, 255, 255)


def lens_area(r: float, s: float, d: float) -> float:
    """Return the area that two discs of radii r and s share, their centres d apart."""
    one = (d**2 + r**2 - s**2) / (2 * d)  # from the first centre to the common chord
    other = d - one
    return float(
        r**2 * np.arccos(one / r) + s**2 * np.arccos(other / s)
        - one * np.sqrt(r**2 - one**2) - other * np.sqrt(s**2 - other**2)
    )  # fmt: skip


def white_share(**changed: Any) -> np.ndarray:
    """Return the white share of each pixel, of white on black on black."""
    given = {"curvatures_per_px": [0.1], "directions_deg": [0], "size": 64, "radius_px": 12.0}
    images = contours(**(given | {"surround": BLACK} | changed)).images
    assert images.dtype == np.uint8
    assert (images == images[:, :1]).all()
    return images[:, 0] / 255


@pytest.mark.parametrize("direction", [0.0, 37.0, 90.0, 202.5])
def test_no_curvature_is_an_edge(direction: float) -> None:
    """The direction of an edge is its foreground's, that of a contour its background's."""
    centre = (30.3, 27.6)
    (found,) = contours([0], [direction], 64, radius_px=12.0, centre_px=centre).images
    (edge,) = edges([direction + 180], [0], 64, centre_px=centre).images
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(x - centre[0], y - centre[1])
    assert (found == edge)[:, distance < 11].all()
    assert (found == 128)[:, distance > 13].all()
    assert {0, 255} <= set(found[0][distance < 11].tolist())


@settings(max_examples=25, deadline=None)
@given(
    curvature=st.floats(0.05, 0.3),
    direction=st.floats(0, 360),
    radius=st.floats(4, 14),
    x=st.floats(28, 35),
    y=st.floats(28, 35),
)
def test_foreground_has_the_area_of_a_lens(
    curvature: float, direction: float, radius: float, x: float, y: float
) -> None:
    (share,) = white_share(
        curvatures_per_px=[curvature], directions_deg=[direction], radius_px=radius,
        centre_px=(x, y),
    )  # fmt: skip
    bend = 1 / curvature
    wanted = np.pi * bend**2 if bend <= radius / 2 else lens_area(radius, bend, bend)
    # where both borders meet, the product of two coverages stands for that of the meeting
    assert share.sum() == pytest.approx(wanted, rel=0.02, abs=0.5)


def test_less_curved_borders_leave_more_and_tend_to_half() -> None:
    area = white_share(curvatures_per_px=[0.3, 0.1, 0.03, 1e-4, 0]).sum(axis=(1, 2))
    assert (np.diff(area) > 0).sum() >= 3
    assert area[-2:] == pytest.approx([np.pi * 12**2 / 2] * 2, rel=2e-3)


@pytest.mark.parametrize(
    ("direction", "away"), [(0.0, (-1, 0)), (90.0, (0, 1)), (180.0, (1, 0)), (270.0, (0, -1))]
)
def test_foreground_lies_behind(direction: float, away: tuple[int, int]) -> None:
    """0 puts the background right of the border, 90 above: y goes down."""
    for curvature in (0, 0.1):
        (share,) = white_share(curvatures_per_px=[curvature], directions_deg=[direction])
        y, x = np.mgrid[:64, :64]
        mean = np.array([(share * x).sum(), (share * y).sum()]) / share.sum() - 31.5
        assert np.dot(mean, away) > 3
        assert abs(np.cross(np.append(mean, 0), (*away, 0))[-1]) < 0.1


def test_border_runs_through_the_centre_and_bulges() -> None:
    """On its axis the foreground ends at the centre; beside that, where the circle is."""
    (share,) = white_share(size=65, curvatures_per_px=[0.1])  # the middle is pixel 32
    for off in (-6, -3, 0, 3, 6):
        behind = 10 - np.sqrt(10**2 - off**2)
        row = share[32 + off, 25:]  # all within the window; the circle's far side is not
        assert (row[:3] == 1).all()
        assert 24.5 + row.sum() == pytest.approx(32 - behind, abs=0.15)


def test_colours_are_as_asked() -> None:
    red, blue, green = (200, 10, 20), (5, 6, 180), (9, 140, 8)
    found = contours(
        [0.1], [0], 64, radius_px=12.0, foreground=red, background=blue, surround=green
    )
    (image,) = found.images
    assert tuple(image[:, 32, 27]) == red
    assert tuple(image[:, 32, 40]) == blue
    assert tuple(image[:, 2, 2]) == green
    assert found.parameters["foreground"][0] == "#c80a14"
    assert found.parameters["background"][0] == "#0506b4"


def test_swapped_colours_show_the_complement_within_the_window() -> None:
    one, other = (
        contours([0.1], [20], 48, radius_px=10.0, foreground=a, background=b, surround=GREY)
        .images.astype(int)
        for a, b in ((WHITE, BLACK), (BLACK, WHITE))
    )  # fmt: skip
    y, x = np.mgrid[:48, :48]
    within = np.hypot(x - 23.5, y - 23.5) < 9
    assert (abs(one + other - 255)[:, :, within] <= 1).all()
    assert (one == other)[:, :, np.hypot(x - 23.5, y - 23.5) > 11].all()


def test_every_curvature_in_every_direction() -> None:
    found = contours([0, 0.2], [0, 90, 45], 32, radius_px=6.0, centre_px=(10.0, 20.5))
    table = found.parameters
    assert found.kinds == ("contour",)
    assert found.images.shape == (6, 3, 32, 32)
    assert table["curvature_per_px"].tolist() == [0, 0, 0, 0.2, 0.2, 0.2]
    assert table["direction_deg"].tolist() == [0, 90, 45] * 2
    assert (table[["x_px", "y_px", "radius_px"]].to_numpy() == (10, 20.5, 6)).all()
    (alone,) = contours([0.2], [90], 32, radius_px=6.0, centre_px=(10.0, 20.5)).images
    assert (found.images[4] == alone).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"curvatures_per_px": [-0.1]}, "curvatures_per_px must be one or more finite numbers, at"),
        ({"curvatures_per_px": []}, "curvatures_per_px must be one or more"),
        ({"curvatures_per_px": [np.nan]}, "curvatures_per_px must be one or more"),
        ({"directions_deg": []}, "directions_deg must be one or more"),
        ({"directions_deg": [np.inf]}, "directions_deg must be one or more"),
        ({"radius_px": 0.0}, "radius_px must be one or more finite numbers, above 0"),
        ({"size": 0}, "size must be at least 1"),
        ({"size": 1}, "a contour needs 2 pixels or more, got 1"),
        ({"foreground": (0, 0, 256)}, "256"),
        ({"surround": (0, 0, 300)}, "300"),
        ({"surround": (-1, 0, 0)}, "-1"),
    ],
)
def test_wrong_input_is_refused(changed: dict[str, Any], message: str) -> None:
    given = {"curvatures_per_px": [0.1], "directions_deg": [0], "size": 32, "radius_px": 6.0}
    with pytest.raises(InputError, match=re.escape(message)):
        contours(**(given | changed))
