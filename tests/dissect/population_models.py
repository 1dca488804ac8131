"""Compact models with random weights whose filters all answer, for the tests of populations."""

import torch

from pocketcortex.models import CompactModel

RAGGED = [(4, 6, 3, 5, 3), (7, 3, 4, 3, 6), (5, 5, 3, 4, 3), (3, 8, 5, 6, 4), (6, 4, 4, 3, 3)]
"""Models of different filters per layer, three or more in each."""


def population(
    n_models: int, size: tuple[int, int] = (14, 17), seed: int = 0
) -> list[CompactModel]:
    """Return models in evaluation mode, their batch norms set by images of white noise."""
    found = []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        noise = torch.rand(40, 3, *size) * 255
        for k in range(n_models):
            model = CompactModel(RAGGED[k % len(RAGGED)], size)
            model.readout.normal_()
            for norm in model.layers.norms:
                norm.bias.normal_(0.3, 0.3)
                norm.momentum = 1.0
            model.train()(noise)
            found.append(model.eval())
    return found
