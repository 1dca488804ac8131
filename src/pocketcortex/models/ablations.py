"""Responses of one compact model without some of its filters, all single ablations in one batch."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models._paired import each_alone
from pocketcortex.models.compact import STRIDES, CompactModel, bias_of, same_conv
from pocketcortex.models.export import fold_batch_norm

N_STAGES = 6
"""Stages of filters: layer 0's kernels, the depthwise kernels of layers 1 to 4, the readouts."""

_CPU_VALUES, _VALUES = 2**20, 2**26
"""Values of ablated maps computed at once; on a CPU about what its cache holds."""
_CPU_IMAGES, _IMAGES = 1, 32
_LAST = len(STRIDES) - 1


class Ablations(nn.Module):
    r"""One compact model whose filters can be taken out, one by one, by sets, or by stages.

    A filter is what the paper counts: a kernel of layer 0, a depthwise kernel of layers 1 to 4, or
    a spatial readout; its kernel is set to zero. All ablations of one filter each share what comes
    before it. With :math:`z_j` the depthwise outputs of a layer, :math:`y = W z + b` what it
    rectifies, and filter j taken out,

    .. math:: y^{(j)} = y - w_j z_j ,

    so that only the layers behind are computed again; layer 0's filter j leaves the constant
    :math:`[b_j]_+` in its map, which reaches layer 1 as :math:`z_j` does. Answers equal those of
    the model with the kernel set to zero and run anew, up to rounding.

    With reference images a filter is replaced by its mean instead: layer 0's map, a depthwise
    output or a readout's sum by its mean over images and positions. That leaves the layers behind
    at the operating point they were trained at.

    Filters are numbered stage by stage: see `stages` and `numbers`.

    Parameters
    ----------
    model
        The compact model; copied, in evaluation mode, batch norm folded into the convolutions.
    reference
        Images to take means over, levels 0..255; None sets kernels to zero.

    Raises
    ------
    InputError
        If there is no reference image, or it is of another size than the model's.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4e, h (kernels set to zero). The rank-one form
    and the replacement by means are ours.
    """

    def __init__(
        self,
        model: CompactModel,
        reference: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"] | None = None,
    ) -> None:
        super().__init__()
        folded = cast(CompactModel, fold_batch_norm(model))
        self.folded = folded.requires_grad_(False)
        self.image_size = model.image_size
        self.filters = model.filters
        self.counts = model.filters_per_layer
        self.stages: Int[np.ndarray, " n_filters"] = np.repeat(np.arange(N_STAGES), self.counts)
        self.numbers: Int[np.ndarray, " n_filters"] = np.concatenate(
            [np.arange(count) for count in self.counts]
        )
        for stage, fill in enumerate(
            self._zeros() if reference is None else self._means(reference)
        ):
            self.register_buffer(f"fill_{stage}", fill)

    def __len__(self) -> int:
        """Return the number of filters."""
        return len(self.stages)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._fill(0).device

    def filter(self, stage: int, number: int) -> int:
        """Return the place of a filter among all, from its stage (0..5) and number within it.

        Raises
        ------
        InputError
            If there is none.
        """
        if not 0 <= stage < N_STAGES or not 0 <= number < self.counts[stage]:
            raise InputError(
                f"there is no filter {number} in stage {stage}; stages 0..{N_STAGES - 1} have "
                f"{', '.join(map(str, self.counts))} filters"
            )
        return sum(self.counts[:stage]) + number

    @torch.no_grad()
    def responses(
        self,
        images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"],
        kept: Bool[np.ndarray, " n_filters"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Return the responses with all filters, or with those alone that are `kept`.

        Parameters
        ----------
        images
            Levels 0..255, on the model's device.
        kept
            True for filters to keep; None keeps all.

        Returns
        -------
        responses, ``(n,)``, in the units the model was trained in.

        Raises
        ------
        InputError
            If the images are of another size than the model's, or `kept` of another length.
        """
        masks = self._masks(kept)
        return torch.cat(self._tiled(images, lambda x: self._base(x, masks)[-1]))

    @torch.no_grad()
    def without_each(
        self,
        images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"],
        kept: Bool[np.ndarray, " n_filters"] | None = None,
    ) -> Float[Tensor, "n_filters n"]:
        """Return the responses without each filter in turn.

        Parameters
        ----------
        images
            Levels 0..255, on the model's device.
        kept
            Filters there are to begin with; None for all. For the others the row is the response
            with all that are kept.

        Raises
        ------
        InputError
            As for `responses`.
        """
        masks = self._masks(kept)
        return torch.cat(self._tiled(images, lambda x: self._singles(x, masks)), dim=1)

    @torch.no_grad()
    def without_stages(
        self,
        images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"],
    ) -> Float[Tensor, "6 n"]:
        """Return the responses without all filters of each stage in turn.

        Raises
        ------
        InputError
            If the images are of another size than the model's.
        """
        rows = [self.responses(images, self.stages != stage) for stage in range(N_STAGES)]
        return torch.stack(rows)

    def _masks(self, kept: Bool[np.ndarray, " n_filters"] | None) -> list[Tensor]:
        """Return what to multiply each stage's filters by."""
        kept = np.ones(len(self), dtype=bool) if kept is None else kept
        if len(kept) != len(self):
            raise InputError(f"the model has {len(self)} filters, `kept` has {len(kept)} entries")
        like = self.folded.readout
        return [torch.from_numpy(kept[self.stages == stage]).to(like) for stage in range(N_STAGES)]

    def _tiled(self, images: Tensor, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Run images a few at a time; on a CPU one a thread."""
        x = self.folded.layers.centre(images).contiguous(memory_format=torch.channels_last)
        on_cpu = x.device.type == "cpu"
        tiles = x.split(_CPU_IMAGES if on_cpu else _IMAGES)
        if on_cpu:
            return each_alone(lambda k: run(tiles[k]), len(tiles))
        return [run(tile) for tile in tiles]

    def _fill(self, stage: int) -> Tensor:
        return self.get_buffer(f"fill_{stage}")

    def _base(self, x: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
        """Return depthwise outputs and sums of layers 1 to 4, layer 4's map, and the response.

        In the order z1, y1, z2, y2, z3, y3, z4, y4, map 4, response; filters not kept are filled.
        """
        layers = self.folded.layers
        maps = F.relu(same_conv(x, layers.conv.weight, bias_of(layers.conv), STRIDES[0], 1))
        maps = _filled(maps, masks[0], self._fill(0))
        found = []
        for i in range(1, len(STRIDES)):
            z = _filled(layers.filtered(i, maps), masks[i], self._fill(i))
            y = layers.pointwise[i - 1](z)
            found += [z, y]
            maps = F.relu(y)
        return [*found, maps, self._read_out(maps, masks)]

    def _singles(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return the responses ``(n_filters, n)`` without each filter."""
        *sums, last, response = self._base(x, masks)
        out = response.repeat(len(self), 1)
        layers = self.folded.layers
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        constant = self._constant_maps(x)
        for stage in range(_LAST + 1):
            layer = max(stage, 1)
            z, y = sums[2 * (layer - 1)], sums[2 * layer - 1]
            mixing = layers.pointwise[layer - 1].weight[:, :, 0, 0]
            there = masks[stage] if stage else masks[0] * masks[1]
            own = torch.nonzero(there)[:, 0]
            at_once = max(1, self._values(x) // (y[0].numel() * len(x)))
            for part in own.split(at_once):
                left = constant[:, part] if stage == 0 else self._fill(layer)[part, None, None]
                lost = (z[:, part] - left)[..., None]  # (n, part, h, w, 1)
                weights = -mixing[:, part].T[None, :, None, None, :]
                rows_last = y.permute(0, 2, 3, 1)[:, None]  # channels last: twice as fast on a CPU
                ablated = torch.addcmul(rows_last, lost, weights).flatten(0, 1).permute(0, 3, 1, 2)
                found = self._onward(layer, ablated, masks)
                rows = (starts[stage] + part.cpu().numpy()).tolist()
                out[rows] = found.unflatten(0, (len(x), -1)).T
        products = (last * self.folded.readout).sum((2, 3)) - self._fill(N_STAGES - 1)
        out[starts[-2] :] -= (products * masks[-1]).T
        return out

    def _constant_maps(self, x: Tensor) -> Tensor:
        """Return what layer 1's kernels make of the constants that stand for layer 0's maps."""
        height, width = x.shape[2:]
        constant = self._fill(0)[None, :, None, None].expand(1, -1, height, width)
        return self.folded.layers.filtered(1, constant)

    def _onward(self, layer: int, y: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return the responses from what a layer rectifies."""
        layers = self.folded.layers
        maps = F.relu(y, inplace=True)
        for i in range(layer + 1, len(STRIDES)):
            z = _filled(layers.filtered(i, maps), masks[i], self._fill(i))
            maps = F.relu(layers.pointwise[i - 1](z), inplace=True)
        return self._read_out(maps, masks)

    def _read_out(self, maps: Tensor, masks: Sequence[Tensor]) -> Tensor:
        products = (maps * self.folded.readout).sum((2, 3))
        sums = _filled(products, masks[-1], self._fill(N_STAGES - 1))
        return sums.sum(1) + self.folded.readout_bias

    def _zeros(self) -> list[Tensor]:
        """Return what kernels of zeros leave: layer 0's offsets, rectified, and nothing else."""
        like = self.folded.readout
        left = F.relu(bias_of(self.folded.layers.conv)).detach()
        return [left, *(like.new_zeros(count) for count in self.counts[1:])]

    @torch.no_grad()
    def _means(self, images: Tensor) -> list[Tensor]:
        """Return each filter's mean over images and positions."""
        if len(images) < 1:
            raise InputError("means need one or more reference images, got none")
        layers = self.folded.layers
        sums = [images.new_zeros(count, dtype=torch.float64) for count in self.counts]
        for x in layers.centre(images).split(8):
            maps = F.relu(same_conv(x, layers.conv.weight, bias_of(layers.conv), STRIDES[0], 1))
            sums[0] += maps.double().mean((2, 3)).sum(0)
            for i in range(1, len(STRIDES)):
                z = layers.filtered(i, maps)
                sums[i] += z.double().mean((2, 3)).sum(0)
                maps = F.relu(layers.pointwise[i - 1](z))
            sums[-1] += (maps * self.folded.readout).double().sum((2, 3)).sum(0)
        return [(total / len(images)).to(self.folded.readout) for total in sums]

    def _values(self, x: Tensor) -> int:
        return _CPU_VALUES if x.device.type == "cpu" else _VALUES


def _filled(values: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """Return values ``(n, channels, ...)`` where the mask is 1, a channel's fill where it is 0."""
    if bool(mask.all()):
        return values
    shape = (1, -1, *([1] * (values.ndim - 2)))
    return values * mask.reshape(shape) + (fill * (1 - mask)).reshape(shape)
