"""Every architecture of the table, untrained: built, run on two images, its layers counted."""

import gc

import pytest
import torch
from torch import Tensor

from pocketcortex.zoo import build_network, list_networks, network_layers

CANNOT: dict[str, str] = {}
"""Networks that cannot be built or run today, with the reason that they give. None."""

# The public counts of DenseNets vary by one layer between two versions of the published table.
ONE_LESS = {"densenet121", "densenet161", "densenet169", "densenet201"}

CONSTANT = {
    "googlenet": "kernels drawn with deviation 0.01 let the images' differences die out",
    "mixer_b16_224": "the classifier starts at zero",
    "mixer_l16_224": "the classifier starts at zero",
}
"""Networks whose untrained output is the same for every image, with the reason."""

NAMES = [s.name for s in list_networks() if s.source.partition(":")[0] in ("torchvision", "timm")]
NAMES += ["taskonomy_normal", "taskonomy_random", "resnet50_simclr"]

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_runs(name: str) -> None:
    if name in CANNOT:
        with pytest.raises(Exception, match=CANNOT[name]):
            build_network(f"{name}@random:0")(IMAGES)
        return
    network = build_network(f"{name}@random:0")
    key = network.key
    layers = network_layers(network)
    with torch.inference_mode():
        output = network(IMAGES)
    assert isinstance(output, Tensor)
    assert output.shape[0] == 2
    assert output.isfinite().all()
    assert torch.equal(output[0], output[1]) == (name in CONSTANT)
    assert len({layer.name for layer in layers}) == len(layers) >= 18
    assert network.key == key == build_network(f"{name}@random:0").key
    if network.spec.published_parameters is not None:
        assert network.n_parameters == network.spec.published_parameters
    if network.spec.published_layers is not None:
        assert len(layers) == network.spec.published_layers - (name in ONE_LESS)
    del network
    gc.collect()
    published = build_network(f"{name}@random:0", protocol="published")
    with torch.inference_mode():
        smaller = published(IMAGES)
    assert isinstance(smaller, Tensor)
    assert smaller.isfinite().all()
