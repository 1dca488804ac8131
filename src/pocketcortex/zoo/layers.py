"""Which layers a network has, and what each gives for one image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pocketcortex.zoo._probe import probe
from pocketcortex.zoo._taps import ROOT, tapped
from pocketcortex.zoo.network import Network


@dataclass(frozen=True)
class Layer:
    """One output of one module.

    Attributes
    ----------
    name
        Path of the module in ``Network.network``, with ``#2`` and on from its second call;
        ``(output)`` is what the network itself gives.
    kind
        Class of the module.
    shape
        Of the features of one image.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


def network_layers(network: Network, *, image_size: tuple[int, int] = (64, 64)) -> list[Layer]:
    """Return the layers that features are taken from, in the order in which they are computed.

    These are the outputs of all modules but mere containers, without those that are bit for bit
    an earlier one's for two images of noise, which may depend on the weights. The names are those
    of ``stream_kernels`` with ``within="network"``.

    Parameters
    ----------
    network
        Run three times, on two images and on one.
    image_size
        Height and width of the noise, before the network's own resizing; a network that resizes
        nothing sees it as it is.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *image_size), generator=generator).float()
    found = probe(network, network.network, images, lambda x: x)
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, output: Tensor) -> None:
        if name in found.n_features:
            shape = tuple(output.shape)
            n_each = shape[0]  # more than one where an image is cut into windows
            shapes[name] = shape[1:] if n_each == 1 else shape

    with torch.inference_mode(), tapped(network.network, visit):
        network(images[:1])
    return [Layer(name, _kind(network, name), shapes[name]) for name in found.n_features]


def _kind(network: Network, name: str) -> str:
    path = name.partition("#")[0].partition("[")[0]
    module = network.network if path == ROOT else network.network.get_submodule(path)
    return type(module).__name__
