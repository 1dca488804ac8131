"""Small models to explore, and their names."""

import numpy as np
import torch

from pocketcortex.models import CompactModel

SIDE, N_MODELS = 40, 3
FILTERS = (4, 3, 3, 3, 2)
TOKEN = "a-secret-of-the-tests"  # noqa: S105
NAMES = [f"compact_model_s1_neuron{k}" for k in range(N_MODELS)]


def small_model(seed: int) -> CompactModel:
    """Return a model with random kernels that reads about one place."""
    rows, columns = np.mgrid[: SIDE // 4, : SIDE // 4]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CompactModel(FILTERS, (SIDE, SIDE))
        blob = np.exp(-((rows - 4 - seed % 2) ** 2 + (columns - 5) ** 2) / 4)
        with torch.no_grad():
            model.readout.copy_(torch.randn(FILTERS[-1], 1, 1) * torch.from_numpy(blob))
            for norm in model.layers.norms:
                norm.bias.uniform_(0.5, 1)
    return model.eval()
