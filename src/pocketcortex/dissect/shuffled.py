"""Models with shuffled weights: what an explanation must not find anything in."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from pocketcortex.dissect.fields import receptive_fields
from pocketcortex.models import CompactModel

_OF_SHUFFLED = 0.5  # of their median share: the largest that is a field


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


def chance_field(
    models: Sequence[CompactModel],
    images: UInt8[np.ndarray, "n 3 h w"],
    *,
    rng: np.random.Generator,
    n_shuffled: int = 60,
    device: str | torch.device = "cpu",
) -> float:
    """Return the largest share of the image that is a receptive field: half of what chance gives.

    Models are drawn from the population, each with its weights shuffled anew; a model whose field
    (`ReceptiveFields.share_of_image`) is not smaller than half of their median has none to speak
    of. The median, since one large weight of the readout now and then makes a tiny field.

    Parameters
    ----------
    models
        The population, one model or more.
    images
        Natural images for the gradients, as for `receptive_fields`.
    rng
        Source of the draws and orders.
    n_shuffled
        Models to shuffle.
    device
        Where to compute.

    Raises
    ------
    InputError
        As for `receptive_fields`.

    References
    ----------
    Our test; the publication looks at fields by eye.
    """
    drawn = np.arange(n_shuffled) % max(len(models), 1)
    if len(models) > n_shuffled:
        drawn = rng.permutation(len(models))[:n_shuffled]
    mixed = [shuffled_weights(models[k], rng=rng) for k in drawn.tolist()] if models else []
    shares = receptive_fields(mixed, images, device=device).share_of_image
    return float(_OF_SHUFFLED * np.median(np.nan_to_num(shares, nan=1.0)))
