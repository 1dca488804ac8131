"""Probes: five families in opposite colours, on any pixel, alike wherever they are."""

import numpy as np
import pytest

from pocketcortex.core import InputError
from pocketcortex.dissect import AXES, FAMILIES, colours_of, probes

SIZE = 36


def rgb(name: str) -> np.ndarray:
    return np.array([int(name[k : k + 2], 16) for k in (1, 3, 5)])


def test_all_families_are_there() -> None:
    bank = probes(SIZE, AXES[0])
    assert len(bank) == len(bank.table) == len(bank.canvas)
    assert bank.canvas.shape[1:] == (3, 2 * SIZE - 1, 2 * SIZE - 1)
    assert set(bank.table["family"]) == set(FAMILIES)
    shapes = bank.table.groupby("family")["shape"].unique()
    assert {family: set(own) for family, own in shapes.items()} == {
        "dot": {"disc", "ringed disc"}, "edge": {"border", "bar"}, "curve": {"border", "arc"},
        "texture": {"grating"}, "colour": {"plain"},
    }  # fmt: skip
    assert len(np.unique(bank.canvas, axis=0)) == len(bank)  # none twice


def test_phases_of_a_grating_are_one_group() -> None:
    table = probes(SIZE, AXES[0]).table
    sizes = table.groupby("group").size()
    assert sorted(sizes.index) == list(range(len(sizes)))
    by_family = table.groupby("group")["family"].first()
    assert (sizes[by_family == "texture"] == 4).all()
    assert (sizes[by_family != "texture"] == 1).all()
    gratings = table[table["family"] == "texture"].groupby("group")
    assert (gratings["phase_deg"].nunique() == 4).all()
    assert (gratings[["orientation_deg", "cycles_per_image"]].nunique() == 1).all().all()


@pytest.mark.parametrize("place", [(0, 0), (17, 18), (35, 35), (5, 30)])
def test_middle_is_moved_to_any_pixel(place: tuple[int, int]) -> None:
    bank = probes(SIZE, AXES[0])
    x, y = place
    shown = bank.at(x, y)
    assert shown.shape == (len(bank), 3, SIZE, SIZE)
    assert (shown[:, :, y, x] == bank.canvas[:, :, SIZE - 1, SIZE - 1]).all()
    discs = (bank.table["shape"] == "plain").to_numpy()
    rows, columns = np.nonzero((shown[discs][0] != 128).any(axis=0))
    reach = 1 + bank.table["radius_px"][discs].iloc[0]
    assert np.hypot(rows - y, columns - x).max() <= reach
    if min(place) > 6 and max(place) < 29:  # the whole disc is seen
        assert (rows.mean(), columns.mean()) == pytest.approx((y, x))


def test_every_shape_is_symmetrical_about_its_pixel_or_has_another_that_is_its_mirror() -> None:
    bank = probes(SIZE, AXES[0])
    for _, own in bank.table[bank.table["family"].isin(["dot", "colour"])].groupby("group"):
        image = bank.canvas[own.index[0]]
        assert (image == image[:, ::-1]).all()
        assert (image == image[:, :, ::-1]).all()
    borders = bank.canvas[(bank.table["shape"] == "border").to_numpy()].astype(int)
    for image in borders[:16]:
        assert np.abs(borders - image[:, :, ::-1]).max(axis=(1, 2, 3)).min() <= 1


def test_table_tells_the_colours() -> None:
    """Of discs in the middle, ringed ones too, whose background is the ring."""
    bank = probes(SIZE, "hue 30")
    middle = bank.canvas[:, :, SIZE - 1, SIZE - 1]
    large = bank.table["shape"].isin(["disc", "ringed disc", "plain"]) & (
        bank.table["radius_px"] > 1.2
    )
    assert set(bank.table[large]["shape"]) == {"disc", "ringed disc", "plain"}
    for k in np.flatnonzero(large):
        row = bank.table.iloc[k]
        assert (middle[k] == rgb(row["foreground"])).all(), row
        right = bank.canvas[k][:, SIZE - 1, SIZE - 1 + int(np.ceil(row["radius_px"] + 0.5))]
        if row["shape"] != "ringed disc" or row["radius_px"] > 2:
            assert (right == rgb(row["background"])).all(), row


@pytest.mark.parametrize("axis", AXES)
def test_colours_are_opposite_about_grey(axis: str) -> None:
    one, other = (np.array(colour) for colour in colours_of(axis))
    if axis == AXES[0]:
        assert (one == 255).all()
        assert (other == 0).all()
        return
    assert (one + other == 256).all()
    assert np.abs(one - 128).max() == 120
    assert abs((one - 128).sum()) <= 2  # equal red + green + blue, but for rounding
    bank = probes(SIZE, axis)
    assert len(bank) == len(probes(SIZE, AXES[0]))
    assert (bank.table["family"] == probes(SIZE, AXES[0]).table["family"]).all()


def test_hues_go_around() -> None:
    ways = [np.array(colours_of(axis)[0]) - 128.0 for axis in AXES[1:]]
    ways += [-way for way in ways]
    for one, other in zip(ways, ways[1:] + ways[:1], strict=True):
        cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        assert np.rad2deg(np.arccos(cosine)) == pytest.approx(30, abs=1)
    assert colours_of("hue 0")[0] == (248, 8, 128)


def test_shapes_grow_with_the_image() -> None:
    small, large = (probes(size, AXES[0]).table for size in (SIZE, 2 * SIZE))
    assert np.allclose(2 * small["radius_px"].dropna(), large["radius_px"].dropna())
    assert np.allclose(small["curvature_per_px"].dropna(), 2 * large["curvature_per_px"].dropna())


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="36 pixels or more, got 35"):
        probes(35, AXES[0])
    for ask in (colours_of, lambda axis: probes(SIZE, axis)):
        with pytest.raises(InputError, match="axis 'hue 45' must be one of white-black, hue 0"):
            ask("hue 45")
