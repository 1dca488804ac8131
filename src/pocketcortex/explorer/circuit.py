"""A model opened: responses without some filters, and every stage's maps for one image."""

import copy
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pocketcortex.core import InputError
from pocketcortex.dissect import describe_colour_kernel, describe_kernel, trace
from pocketcortex.explorer.pictures import floats, quantized
from pocketcortex.models import Ablations, numpy_weights
from pocketcortex.models.accounting import model_size
from pocketcortex.stimuli import smoothing_saliency

if TYPE_CHECKING:
    from pocketcortex.models import CompactModel

Filters = Iterable[tuple[int, int]]
"""Filters by stage (0..5) and number within it."""

STAGE_NAMES = (
    "layer 0: kernels over colours",
    "layer 1: depthwise kernels",
    "layer 2: depthwise kernels",
    "layer 3: depthwise kernels",
    "layer 4: depthwise kernels",
    "spatial readout",
)


class OpenedModel:
    """One model and what is derived from it once.

    Parameters
    ----------
    model
        The compact model, on the CPU.
    """

    def __init__(self, model: "CompactModel") -> None:
        self.model = model

    @cached_property
    def ablations(self) -> Ablations:
        """The model with filters that can be taken out."""
        return Ablations(self.model)

    @cached_property
    def weights(self) -> dict[str, Any]:
        """Weights with batch norm folded in, as a page takes them."""
        return {name: floats(value) for name, value in numpy_weights(self.model).items()}

    @cached_property
    def words(self) -> list[list[str]]:
        """What each kernel of the first five stages does, in words."""
        weights = numpy_weights(self.model)
        stages = [[describe_colour_kernel(k) for k in weights["conv"].astype(np.float64)]]
        for i in range(1, len(self.model.filters)):
            kernels = weights[f"depthwise{i}"].astype(np.float64)
            stages.append([describe_kernel(kernel) for kernel in kernels])
        return stages

    @cached_property
    def size(self) -> dict[str, Any]:
        """Parameters by part, and multiply-adds."""
        found = model_size(self.model)
        return {
            "parameters": found.parameters.total,
            "convolution": found.parameters.convolution,
            "batch_norm": found.parameters.batch_norm,
            "readout": found.parameters.readout,
            "macs": found.macs,
        }

    def kept(self, without: Filters) -> np.ndarray:
        """Return which filters are left without some.

        Raises
        ------
        InputError
            If there is no such filter.
        """
        kept = np.ones(len(self.ablations), dtype=np.bool_)
        for stage, number in without:
            kept[self.ablations.filter(stage, number)] = False
        return kept

    def responses(
        self, images: UInt8[np.ndarray, "n 3 h w"], without: Filters = ()
    ) -> Float[np.ndarray, " n"]:
        """Return the responses without some filters, their kernels set to zero."""
        shown = torch.from_numpy(images)
        found = self.ablations.responses(shown, self.kept(without))
        return np.asarray(found.double().numpy())

    def effects(self, image: UInt8[np.ndarray, "3 h w"], without: Filters = ()) -> dict[str, Any]:
        """Return what each filter adds to the response: with it minus without it.

        One number a filter, stage after stage; 0 for those taken out already.
        """
        shown, kept = torch.from_numpy(image[None]), self.kept(without)
        now = self.ablations.responses(shown, kept)
        lost = now - self.ablations.without_each(shown, kept)[:, 0]
        return {"effects": lost.double().tolist(), "response": float(now)}

    def trace(self, image: UInt8[np.ndarray, "3 h w"], without: Filters = ()) -> dict[str, Any]:
        """Return the maps of every stage for an image.

        ``maps{i}`` are the rectified maps of layer i, ``filtered{i}`` what each depthwise kernel
        of layer i makes of its input map (for layer 0 the convolution without offset), and
        ``products`` the last maps times the readout; ``by_filter`` their sums.
        """
        found = trace(self.without(without), image)
        told: dict[str, Any] = {}
        for i, layer in enumerate(found.layers):
            told[f"filtered{i}"] = quantized(layer.filtered)
            told[f"maps{i}"] = quantized(layer.maps)
        told["products"] = quantized(found.products)
        return {
            "maps": told, "by_filter": found.by_filter.tolist(), "bias": found.bias,
            "response": found.response,
        }  # fmt: skip

    def saliency(self, image: UInt8[np.ndarray, "3 h w"]) -> dict[str, Any]:
        """Return how the response changes when each patch of an image is smoothed."""
        found = smoothing_saliency([self.model], image[None, None])
        return {
            "map": found.maps[0, 0].astype(np.float64).tolist(),
            "corners": found.positions.tolist(), "patch_px": found.patch,
            "response": float(found.responses[0, 0]), "kind": "smoothing",
        }  # fmt: skip

    def without(self, filters: Filters) -> "CompactModel":
        """Return a copy of the model with kernels set to zero."""
        filters = list(filters)
        if not filters:
            return self.model
        self.kept(filters)
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for stage, number in filters:
                kernels = (
                    model.layers.conv.weight if stage == 0
                    else model.readout if stage > len(model.layers.depthwise)
                    else model.layers.depthwise[stage - 1].weight
                )  # fmt: skip
                kernels[number] = 0
        return model

    def check(self, image: UInt8[np.ndarray, "3 h w"]) -> None:
        """Refuse an image of another size than the model's."""
        if image.shape[1:] != tuple(self.model.image_size):
            height, width = self.model.image_size
            raise InputError(
                f"the model takes images of {height} x {width}, got {image.shape[1]} x "
                f"{image.shape[2]}; upload it first, which resizes it"
            )
