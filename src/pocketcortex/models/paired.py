"""Many compact models, each shown images of its own: responses and their gradients."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.models._paired import OneByOne, Padded, each_alone
from pocketcortex.models.compact import CompactModel
from pocketcortex.models.export import fold_batch_norm

_BATCH = 256
"""Images run at once on an accelerator, of all models together."""


class PairedStack(nn.Module):
    """Run many compact models at once, each on images of its own.

    `CompactStack` shows every model the same images; here model k sees only ``images[k]``, as
    when an image is synthesized for each neuron. The models are copied, in evaluation mode, batch
    norm folded into the convolutions; their weights get no gradients.

    On a CPU every image runs alone, so that its maps stay in the cache, and as many models at once
    as torch has threads: an image's response and gradient are the same to the last bit whatever
    runs beside it. Elsewhere all models run as one batch, padded to the largest.

    Parameters
    ----------
    models
        Compact models for the same image size.

    Raises
    ------
    InputError
        If there is no model, or they take images of different sizes or means.
    """

    def __init__(self, models: Sequence[CompactModel]) -> None:
        super().__init__()
        if not models:
            raise InputError("a paired stack needs at least one compact model, got none")
        if len({(m.image_size, tuple(m.layers.image_mean.flatten().tolist())) for m in models}) > 1:
            raise InputError("paired models must share one image size and one image mean")
        self.image_size = models[0].image_size
        folded = [cast(CompactModel, fold_batch_norm(model)) for model in models]
        self.singles = nn.ModuleList(OneByOne(model) for model in folded)
        self.padded = Padded(folded)

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self.singles)

    @torch.no_grad()
    def responses(
        self,
        images: Float[Tensor, "n_models n 3 h w"] | UInt8[Tensor, "n_models n 3 h w"],
    ) -> Float[Tensor, "n_models n"]:
        """Return every model's responses to its own images.

        Parameters
        ----------
        images
            Levels 0..255, on the stack's device; ``images[k]`` are model k's.

        Returns
        -------
        responses, ``(n_models, n)``, in the units the models were trained in.

        Raises
        ------
        InputError
            If there are not as many sets of images as models, or they are of another size.
        """
        self._check(images)
        if not self._on_cpu():
            return torch.cat([self.padded(x) for x in self._batches(images)], dim=1)

        def run(k: int) -> Tensor:
            return torch.cat([self.singles[k](image) for image in images[k].split(1)])

        return torch.stack(each_alone(run, len(self)))

    @torch.no_grad()
    def gradients(
        self, images: Float[Tensor, "n_models n 3 h w"]
    ) -> tuple[Float[Tensor, "n_models n"], Float[Tensor, "n_models n 3 h w"]]:
        """Return every model's responses to its own images and their gradients.

        Parameters
        ----------
        images
            Levels 0..255, on the stack's device; ``images[k]`` are model k's.

        Returns
        -------
        responses, ``(n_models, n)``
            As `responses` returns them.
        gradients, ``(n_models, n, 3, height, width)``
            Derivative of each response by each pixel of its own image, per level.

        Raises
        ------
        InputError
            As for `responses`.
        """
        self._check(images)
        if not self._on_cpu():
            parts = [self.padded.gradient(x) for x in self._batches(images)]
            return torch.cat([r for r, _ in parts], dim=1), torch.cat([g for _, g in parts], dim=1)

        def run(k: int) -> tuple[Tensor, Tensor]:
            single = cast(OneByOne, self.singles[k])
            parts = [single.gradient(image) for image in images[k].split(1)]
            return torch.cat([r for r, _ in parts]), torch.cat([g for _, g in parts])

        parts = each_alone(run, len(self))
        return torch.stack([r for r, _ in parts]), torch.stack([g for _, g in parts])

    def _check(self, images: Tensor) -> None:
        if len(images) != len(self) or images.shape[1] < 1:
            raise InputError(
                f"{len(self)} models need as many sets of one or more images, "
                f"(n_models, n, 3, height, width); got {tuple(images.shape)}"
            )
        if tuple(images.shape[2:]) != (3, *self.image_size):
            raise InputError(
                f"the models take images (n_models, n, 3, {self.image_size[0]}, "
                f"{self.image_size[1]}), got {tuple(images.shape)}"
            )

    def _on_cpu(self) -> bool:
        return self.padded.get_buffer("mean").device.type == "cpu"

    def _batches(self, images: Tensor) -> Sequence[Tensor]:
        """Return the images in parts small enough for an accelerator's memory."""
        parts: Sequence[Tensor] = images.split(max(1, _BATCH // len(self)), dim=1)
        return parts
