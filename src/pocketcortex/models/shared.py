"""One network for many neurons: shared layers and a spatial readout for each neuron."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pocketcortex.models.compact import CompactLayers, CompactModel, readout_size


class SharedCompactModel(nn.Module):
    """Predict many neurons from the layers of one compact model.

    ``r_n = sum_f M_nf sum_ij S_nij X_fij + b_n`` with X the last layer's maps: each neuron weighs
    the shared filters (mixing) and the positions (spatial map).

    Parameters
    ----------
    filters
        Filters per layer, first layer first.
    n_neurons
        Neurons to predict.
    image_size
        Height and width of the images in pixels.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Shared compact models".
    """

    def __init__(
        self, filters: Sequence[int], n_neurons: int, image_size: tuple[int, int] = (112, 112)
    ) -> None:
        super().__init__()
        self.layers = CompactLayers(filters, image_size)
        height, width = readout_size(self.layers.image_size)
        self.mixing = nn.Parameter(torch.randn(n_neurons, filters[-1]) / filters[-1] ** 0.5)
        self.spatial = nn.Parameter(torch.zeros(n_neurons, height, width))
        self.bias = nn.Parameter(torch.zeros(n_neurons))

    def forward(
        self, images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n n_neurons"]:
        """Predict every neuron's response to raw images (0..255)."""
        return self.read_out(self.layers(images))

    def read_out(
        self, maps: Float[Tensor, "n filters rows columns"]
    ) -> Float[Tensor, "n n_neurons"]:
        """Predict every neuron's response from the last layer's maps."""
        pooled = maps.flatten(2) @ self.spatial.flatten(1).T  # (n, filters, n_neurons)
        return torch.einsum("nfk,kf->nk", pooled, self.mixing) + self.bias

    def compact_models(self) -> Iterator[CompactModel]:
        """Yield each neuron's own compact model: a copy of the layers and its spatial readout."""
        mean = self.layers.image_mean.flatten().tolist()
        for mixing, spatial, bias in zip(self.mixing, self.spatial, self.bias, strict=True):
            with torch.random.fork_rng(devices=[]):  # what it draws is replaced
                model = CompactModel(self.layers.filters, self.layers.image_size, mean)
            model.to(self.bias)
            model.layers.load_state_dict(self.layers.state_dict())
            with torch.no_grad():
                model.readout.copy_(mixing[:, None, None] * spatial)
                model.readout_bias.copy_(bias)
            yield model.eval()
