"""Raw images to network input: the same as torchvision's and timm's own transforms."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.zoo import PUBLISHED, RAW, TASKONOMY, Preprocessing, find_network
from pocketcortex.zoo._torchvision import import_timm, import_torchvision
from pocketcortex.zoo.preprocessing import Preprocess
from pocketcortex.zoo.registry import network_preprocessing

RNG = np.random.default_rng(0)
SMOOTH = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((330, 260))
PIXELS = torch.from_numpy(np.asarray(SMOOTH).transpose(2, 0, 1).copy())[None]
LEVEL = 1 / 255 / 0.224  # one level of brightness after normalisation by the smallest deviation


def close(ours: Tensor, theirs: Tensor) -> None:
    """Compare up to Pillow's rounding to whole levels, after rows and again after columns."""
    torch.testing.assert_close(ours[0], theirs, atol=1.5 * LEVEL, rtol=0)
    assert (ours[0] - theirs).abs().mean() < 0.5 * LEVEL


@pytest.mark.parametrize("name", ["resnet50", "inception_v3"])
def test_torchvision_s_own(name: str) -> None:
    weights = next(iter(import_torchvision().models.get_model_weights(name)))
    how = network_preprocessing(find_network(name))
    close(Preprocess(how)(PIXELS), weights.transforms()(SMOOTH))


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "ghostnet_100", "eca_nfnet_l0"])
def test_timm_s_own(name: str) -> None:
    timm: Any = import_timm()
    config = timm.get_pretrained_cfg(find_network(name).source.partition(":")[2]).to_dict()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
    close(Preprocess(network_preprocessing(find_network(name)))(PIXELS), transform(SMOOTH))


def test_published() -> None:
    transforms: Any = import_torchvision().transforms
    theirs = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    close(Preprocess(PUBLISHED)(PIXELS), theirs(SMOOTH))


def test_taskonomy_is_from_minus_one_to_one() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 8, 8)
    x = Preprocess(TASKONOMY)(images)
    assert x.shape == (2, 3, 256, 256)
    torch.testing.assert_close(x.unique(), torch.tensor([-1.0, 1.0]))


def test_raw_images_stay_as_they_are() -> None:
    assert torch.equal(Preprocess(RAW)(PIXELS), PIXELS.float())


def test_integers_and_floats_are_the_same() -> None:
    prepare = Preprocess(Preprocessing((50, 40), 60, "bicubic"))
    assert torch.equal(prepare(PIXELS), prepare(PIXELS.double()))
    assert prepare(PIXELS).shape == (1, 3, 50, 40)


def test_bicubic_overshoot_is_clipped_and_nearest_makes_no_levels() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 255
    for interpolation in ("bicubic", "nearest"):
        how = Preprocessing((20, 20), None, interpolation, mean=None, std=None)
        x = Preprocess(how)(edge)
        assert x.min() == 0
        assert x.max() == 255
    assert set(x.unique().tolist()) == {0, 255}


def test_images_can_be_differentiated_by() -> None:
    images = PIXELS.float().requires_grad_()
    Preprocess(PUBLISHED)(images).sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (0, 5)}, "1 x 1 pixels or more, got"),
        ({"size": (50, 50), "short_side": 40}, "short_side 40 must not be smaller"),
        ({"size": None, "short_side": 40}, "short_side 40 must not be smaller"),
        ({"size": (5, 5), "interpolation": "lanczos"}, "'lanczos' is not one of bilinear, bicubic"),
        ({"size": (5, 5), "mean": None}, "both mean and std, or neither"),
        ({"size": (5, 5), "std": (1.0, 0.0, 1.0)}, "std must be above 0"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(**settings)
