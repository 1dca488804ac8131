"""Compact models with random weights and statistics, for the tests of this room."""

from collections.abc import Sequence

import torch

from pocketcortex.models import CompactModel

RAGGED = [(4, 3, 5, 2, 6), (1, 1, 1, 1, 1), (7, 2, 3, 4, 2), (3, 6, 2, 5, 3)]
"""Models of different filters per layer."""
SIZE = (14, 17)


def random_model(
    filters: Sequence[int], size: tuple[int, int] = SIZE, seed: int = 0
) -> CompactModel:
    """Return a model in float64, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CompactModel(filters, size)
        with torch.no_grad():
            model.readout.normal_()
            model.readout_bias.normal_()
            for norm in model.layers.norms:
                norm.weight.uniform_(0.5, 2)
                norm.bias.normal_()
                norm.get_buffer("running_mean").normal_()
                norm.get_buffer("running_var").uniform_(0.5, 2)
    return model.double().eval()


def ragged_models(size: tuple[int, int] = SIZE) -> list[CompactModel]:
    """Return a model for each of `RAGGED`."""
    return [random_model(filters, size, seed=k) for k, filters in enumerate(RAGGED)]
