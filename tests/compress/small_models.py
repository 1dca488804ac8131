"""Models small enough to prune in a moment, and what the tests of pruning ask of them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from pocketcortex.core import StimulusSet
from pocketcortex.models import CompactModel
from pocketcortex.training import refresh_batch_norm

FILTERS = (8, 7, 6, 9, 10)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 12), dtype=np.uint8)


def random_model(dead: Mapping[int, Sequence[int]] = MappingProxyType({})) -> CompactModel:
    """Return a model of live filters, except those of each layer that answer 0 to every image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CompactModel(FILTERS, (16, 12))
        with torch.no_grad():
            model.readout.normal_()
            model.readout_bias.normal_()
            for layer, norm in enumerate(model.layers.norms):
                norm.bias.uniform_(0, 1)
                norm.weight.uniform_(0.3, 2)
                norm.weight[list(dead.get(layer, []))] = 0
                norm.bias[list(dead.get(layer, []))] = -1
    refresh_batch_norm(model.train(), StimulusSet.from_array(IMAGES))
    return model.double().eval()


def responses(model: CompactModel) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(IMAGES)).numpy()


def kept_filters(small: CompactModel, model: CompactModel) -> list[list[int]]:
    """Find the surviving filters by their batch-norm statistics, which pruning copies."""
    kept = []
    for few, all_ in zip(small.layers.norms, model.layers.norms, strict=True):
        values = all_.get_buffer("running_var").tolist()
        kept.append([values.index(v) for v in few.get_buffer("running_var").tolist()])
    return kept
