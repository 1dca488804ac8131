"""Compact models wired by hand, for the tests of dissection: what they prefer is known."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from pocketcortex.models import CompactModel
from pocketcortex.models.compact import BATCH_NORM_EPS

SIZE = 36
CELL = (3, 4)
"""Row and column of the readout that hand-made models look through."""
CENTRE_PX = (19, 15)
"""x and y of the pixel under `CELL`: a cell's kernels lie about pixel 4 k + 3."""

DELTA = np.zeros((5, 5))
DELTA[2, 2] = 1
BOX = np.full((5, 5), 1 / 25)
LUMINANCE = np.array([1, 1, 1]) / 3
RED_GREEN = np.array([1, -1, 0]) / 2
EDGE = np.outer([1, 1, 1, 1, 1], [-1, -1, 0, 1, 1]) / 10
"""Bright on the right."""
SPOT = np.full((5, 5), -1 / 16)
SPOT[1:4, 1:4] = 1 / 9
_PHASE = 2 * np.pi * np.arange(-2, 3) / 4
STRIPES = [np.outer(np.ones(5), f(_PHASE) - f(_PHASE).mean()) / 10 for f in (np.cos, np.sin)]
"""Even and odd, four pixels a period, across."""


def natural_images(n: int = 24, seed: int = 0) -> np.ndarray:
    """Return blurred noise of full contrast, in colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 3, SIZE // 4, SIZE // 4), dtype=np.uint8)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)


def silent(filters: Sequence[int] = (1, 1, 1, 1, 1)) -> CompactModel:
    """Return a model of zeros, grey as its mean, whose batch norms change nothing."""
    with torch.random.fork_rng():
        model = CompactModel(filters, (SIZE, SIZE), (128.0, 128.0, 128.0))
    with torch.no_grad():
        for one in model.parameters():
            one.zero_()
        for norm in model.layers.norms:
            norm.weight.fill_(1)
            norm.get_buffer("running_var").fill_(1 - BATCH_NORM_EPS)
    return model.double().eval()


@torch.no_grad()
def chained(
    kernels: Sequence[np.ndarray],
    colour: np.ndarray = LUMINANCE,
    pool: np.ndarray = DELTA,
    cell: tuple[int, int] = CELL,
) -> CompactModel:
    """Return a model that sums the rectified answers of layer-0 kernels, pooled, at a cell."""
    n = len(kernels)
    model = silent((n, 1, 1, 1, 1))
    layers = model.layers
    for k, kernel in enumerate(kernels):
        layers.conv.weight[k] = torch.from_numpy(colour[:, None, None] * kernel)
    for i, kernels_i in enumerate(layers.depthwise):
        kernels_i.weight[:] = torch.from_numpy(pool if i < 2 else DELTA)
        layers.pointwise[i].weight[:] = 1
    model.readout[0][cell] = 0.1
    return model


def dot_model() -> CompactModel:
    return chained([SPOT])


def edge_model() -> CompactModel:
    """Bright right of dark, over a length of five pixels and more."""
    tall = np.zeros((5, 5))
    tall[:, 2] = 0.2
    return chained([EDGE], pool=tall)


def texture_model() -> CompactModel:
    """Stripes of any phase over much of the field."""
    return chained([sign * kernel for kernel in STRIPES for sign in (1, -1)], pool=BOX)


def colour_model() -> CompactModel:
    """Red without green, over much of the field; no grey excites it."""
    return chained([BOX], RED_GREEN, pool=BOX)


EXCITATORY = [(0, 2), (1, 2), (2, 0), (3, 3), (4, 1), (5, 2)]
"""Filters (stage, number) of the chain that `planted` hides: an edge detector."""
INHIBITORY = [(0, 4), (1, 4), (2, 2), (3, 0), (4, 3)]
"""Its inhibition by light, which ends in the same readout."""
FILTERS = (5, 4, 5, 4, 4)


@torch.no_grad()
def planted(noise: float = 1e-3, seed: int = 0) -> CompactModel:
    """Return a model of 27 filters, of which 11 make its response: an edge less what is light.

    The others take part as well, and reach the response, but by weights of `noise`.
    """
    rng = np.random.default_rng(seed)
    model = silent(FILTERS)
    layers = model.layers
    layers.conv.weight[:] = torch.from_numpy(0.05 * rng.normal(size=layers.conv.weight.shape))
    for depthwise, pointwise in zip(layers.depthwise, layers.pointwise, strict=True):
        depthwise.weight[:] = torch.from_numpy(rng.normal(0.04, 0.1, depthwise.weight.shape))
        pointwise.weight[:] = torch.from_numpy(noise * rng.normal(size=pointwise.weight.shape))
    model.readout[:] = torch.from_numpy(noise * rng.normal(size=model.readout.shape))
    plain = torch.from_numpy(LUMINANCE[:, None, None])
    layers.conv.weight[EXCITATORY[0][1]] = plain * torch.from_numpy(EDGE)
    layers.conv.weight[INHIBITORY[0][1]] = plain * torch.from_numpy(BOX)
    for chain in (EXCITATORY, INHIBITORY):
        for stage, number in chain[1:5]:
            layers.depthwise[stage - 1].weight[number] = torch.from_numpy(DELTA)
        for (stage, number), (_, following) in pairwise(chain[1:5]):
            layers.pointwise[stage - 1].weight[following, number] = 1
    layers.pointwise[3].weight[EXCITATORY[5][1], EXCITATORY[4][1]] = 1
    layers.pointwise[3].weight[EXCITATORY[5][1], INHIBITORY[4][1]] = -1
    layers.pointwise[3].bias[EXCITATORY[5][1]] = 600  # keeps the sum above zero
    model.readout[(EXCITATORY[5][1], *CELL)] = 0.1
    return model
