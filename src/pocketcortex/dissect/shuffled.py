"""Models with shuffled weights: what an explanation must not find anything in."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8

from pocketcortex.dissect.fields import receptive_fields
from pocketcortex.models import CompactModel

_OF_SHUFFLED = 0.5  # of their median share: the largest that is a field
_N_DRAWN = 60  # shuffled models of the population
_N_MIXED = 200  # shufflings of a readout
_ORGANIZED_SD = 4.0  # above them; settled on one simulated animal (trained 15.6, shuffled 2.4)


def shuffled_weights(
    model: CompactModel, *, rng: np.random.Generator, keep_readout: bool = False
) -> CompactModel:
    """Return a copy of a model whose numbers are shuffled within each array.

    Kernels, mixing weights, offsets, batch-norm statistics and the readout keep their values, but
    not their places; the model keeps its size and distribution of weights, and loses its circuit.

    Parameters
    ----------
    model
        The compact model.
    rng
        Source of the orders.
    keep_readout
        Leave the readout as it is: a receptive field, but random filters.
    """
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        shuffled = CompactModel(model.filters, model.image_size).to(model.readout)
    state = {}
    for name, values in model.state_dict().items():
        kept = name.endswith("image_mean") or (keep_readout and name.startswith("readout"))
        if values.ndim == 0 or kept:
            state[name] = values
            continue
        order = torch.from_numpy(rng.permutation(values.numel())).to(values.device)
        state[name] = values.flatten()[order].reshape(values.shape)
    shuffled.load_state_dict(state)
    return shuffled.eval()


def has_field(
    models: Sequence[CompactModel],
    images: UInt8[np.ndarray, "n 3 h w"],
    *,
    rng: np.random.Generator,
    device: str | torch.device = "cpu",
) -> Bool[np.ndarray, " n_models"]:
    """Return which models have a receptive field that shuffled weights do not have.

    Two conditions. The share of the image that holds half of the gradient's energy
    (`ReceptiveFields.share_of_image`) is less than half of the median of 60 models drawn from the
    population, each with its weights shuffled anew. And the readout is a map, not a heap: products
    of neighbouring weights (Moran's statistic, summed over filters) lie more than four standard
    deviations above those of 200 shufflings of it; for one large weight that fell on some place
    makes a small field too.

    Parameters
    ----------
    models
        The population, one model or more.
    images
        Natural images for the gradients, as for `receptive_fields`.
    rng
        Source of the draws and orders.
    device
        Where to compute.

    Raises
    ------
    InputError
        As for `receptive_fields`.

    References
    ----------
    Moran, Biometrika 37 (1950), for the statistic. The test is ours; the publication looks at
    fields by eye.
    """
    drawn = np.arange(_N_DRAWN) % max(len(models), 1)
    if len(models) > _N_DRAWN:
        drawn = rng.permutation(len(models))[:_N_DRAWN]
    mixed = [shuffled_weights(models[k], rng=rng) for k in drawn.tolist()] if models else []
    own, chance = (
        np.nan_to_num(receptive_fields(some, images, device=device).share_of_image, nan=1.0)
        for some in (models, mixed)
    )
    mapped = np.array([_organization(model, rng) for model in models]) > _ORGANIZED_SD
    return np.asarray((own < _OF_SHUFFLED * np.median(chance)) & mapped)


def _organization(model: CompactModel, rng: np.random.Generator) -> float:
    """Return by how many standard deviations neighbours in the readout are more alike than mixed.

    0 for a readout of one value.
    """
    weights = model.readout.detach().cpu().double().numpy()
    mixed = [rng.permutation(weights.ravel()).reshape(weights.shape) for _ in range(_N_MIXED)]
    products = np.array([_neighbours(one) for one in mixed])
    spread = products.std()
    if not spread > 0:
        return 0.0
    return float((_neighbours(weights) - products.mean()) / spread)


def _neighbours(weights: Float64[np.ndarray, "n_filters h w"]) -> float:
    """Return the sum of products of neighbours, each filter's mean taken off."""
    about = weights - weights.mean((1, 2), keepdims=True)
    down, across = about[:, 1:] * about[:, :-1], about[..., 1:] * about[..., :-1]
    return float(down.sum() + across.sum())
