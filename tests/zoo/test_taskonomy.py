"""The Taskonomy encoder: shapes, names of its parameters, and what its stages do."""

import torch
from torch import nn

from pocketcortex.zoo import TaskonomyEncoder, build_network, list_networks
from pocketcortex.zoo._torchvision import import_torchvision


def encoder() -> TaskonomyEncoder:
    network = build_network("taskonomy_random").network
    assert isinstance(network, TaskonomyEncoder)
    return network


def test_names_and_shapes_are_those_of_a_resnet50_and_a_compression() -> None:
    shapes = {k: v.shape for k, v in encoder().state_dict().items()}
    resnet = import_torchvision().models.resnet50(weights=None).state_dict()
    expected = {k: v.shape for k, v in resnet.items() if not k.startswith("fc.")}
    own = {k: v for k, v in shapes.items() if not k.startswith("compress")}
    assert own == expected
    assert shapes["compress1.weight"] == (8, 2048, 3, 3)
    assert shapes["compress_bn.weight"] == (8,)
    assert "compress1.bias" not in shapes


def test_output_is_eight_standardised_maps() -> None:
    x = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        maps = encoder().train()(x)  # batch norm by the batch keeps activations alive
    assert maps.shape == (2, 8, 16, 16)
    flat = maps.flatten(2)
    torch.testing.assert_close(flat.mean(2), torch.zeros(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.var(2, correction=0), torch.ones(2, 8), atol=1e-3, rtol=0)


def test_stages_one_and_two_halve_the_size_in_their_last_block() -> None:
    x, network = torch.zeros(1, 3, 256, 256), encoder()
    sizes = {}
    for name, module in network.named_modules():
        if name.startswith("layer") and name.endswith("relu3"):
            module.register_forward_hook(
                lambda _m, _i, y, name=name: sizes.__setitem__(name[:8], y.shape[-1])
            )
    with torch.inference_mode():
        network(x)
    stages = [[sizes[k] for k in sizes if k.startswith(f"layer{s}")] for s in (1, 2, 3, 4)]
    assert stages == [[64, 64, 32], [32, 32, 32, 16], [16] * 6, [16] * 3]
    shortcut = network.layer1.get_submodule("2.downsample")
    assert isinstance(shortcut, nn.MaxPool2d)


def test_the_untrained_encoder_stands_in_the_table() -> None:
    names = [s.name for s in list_networks(source="taskonomy")]
    assert names[-1] == "taskonomy_random"
    assert len(names) == 25
