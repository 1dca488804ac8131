"""Models with shuffled weights: what an explanation must not find anything in."""

import numpy as np
import torch

from pocketcortex.models import CompactModel


def shuffled_weights(model: CompactModel, *, rng: np.random.Generator) -> CompactModel:
    """Return a copy of a model whose numbers are shuffled within each array.

    Kernels, mixing weights, offsets, batch-norm statistics and the readout keep their values, but
    not their places; the model keeps its size and distribution of weights, and loses its circuit.

    Parameters
    ----------
    model
        The compact model.
    rng
        Source of the orders.
    """
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        shuffled = CompactModel(model.filters, model.image_size).to(model.readout)
    state = {}
    for name, values in model.state_dict().items():
        if values.ndim == 0 or name.endswith("image_mean"):
            state[name] = values
            continue
        order = torch.from_numpy(rng.permutation(values.numel())).to(values.device)
        state[name] = values.flatten()[order].reshape(values.shape)
    shuffled.load_state_dict(state)
    return shuffled.eval()
