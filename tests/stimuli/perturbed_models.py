"""Small models to perturb images of: linear ones, whose best changes are known, and others."""

import numpy as np
import torch

from pocketcortex.models import CompactModel


def linear_model(seed: int, size: tuple[int, int] = (12, 16)) -> CompactModel:
    """Return a model whose units are never below zero, so that it is linear in 0..255.

    Three maps, one a colour, filtered by positive kernels on the way to a readout of both signs.
    """
    rng = np.random.default_rng(seed)
    model = CompactModel((3,) * 5, size, image_mean=(0.0, 0.0, 0.0)).eval()
    with torch.no_grad():
        model.layers.conv.weight.zero_()
        model.layers.conv.weight[:, :, 2, 2] = torch.eye(3)
        model.layers.conv.get_parameter("bias").fill_(1.0)
        for depthwise, pointwise in zip(
            model.layers.depthwise, model.layers.pointwise, strict=True
        ):
            kernels = rng.uniform(0, 0.1, tuple(depthwise.weight.shape))
            depthwise.weight.copy_(torch.from_numpy(kernels))
            pointwise.weight.copy_(torch.eye(3)[:, :, None, None])
            pointwise.get_parameter("bias").zero_()
        for norm in model.layers.norms:
            norm.eps = 0.0
        model.readout.copy_(torch.from_numpy(rng.normal(0, 0.1, tuple(model.readout.shape))))
        model.readout_bias.fill_(float(rng.normal()))
    return model


def rectified_model(seed: int, size: tuple[int, int] = (12, 16)) -> CompactModel:
    """Return a model of random weights, many of whose units are silent."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CompactModel((4, 3 + seed % 3, 4, 3, 2), size)
        with torch.no_grad():
            model.layers.conv.weight.div_(50)
            for norm in model.layers.norms:
                norm.get_buffer("running_var").fill_(0.1)
                norm.bias.fill_(0.3)  # so that no layer is silent altogether
            model.readout.normal_()
    return model.eval()


def weights_of(model: CompactModel) -> np.ndarray:
    """Return the derivative of a linear model's response by each pixel, `(3, h, w)`."""
    x = torch.full((1, 3, *model.image_size), 128.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    weights: np.ndarray = gradient[0].numpy().astype(np.float64)
    return weights


def some_images(n_models: int, n: int, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    """Return images of all levels, some pixels at the ends of the range."""
    rng = np.random.default_rng(5)
    levels = rng.normal(128, 80, (n_models, n, 3, *size)).round().clip(0, 255)
    images: np.ndarray = levels.astype(np.uint8)
    return images


def response_to(model: CompactModel, image: np.ndarray) -> float:
    with torch.inference_mode():
        return float(model(torch.from_numpy(image[None].copy()))[0])
