"""The teacher: networks that turn backbone features into an embedding shared by all neurons."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models.compact import same_padding

BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.1


@dataclass(frozen=True)
class EnsembleShape:
    """Architecture of one ensemble member; the defaults are the published ones.

    Attributes
    ----------
    in_channels
        Channels of the backbone's features.
    width
        Channels of the embedding.
    bottleneck
        Channels inside a residual block.
    n_blocks
        Residual blocks; 0 for none.
    stride
        Stride of the separable convolution before the blocks; 0 leaves that convolution out, so
        the embedding keeps the features' grid. With neither blocks nor this convolution the
        embedding ends in a ReLU and is not signed.

    Raises
    ------
    InputError
        If a number of channels is below 1, or a number of blocks or a stride below 0.
    """

    in_channels: int = 1024
    width: int = 512
    bottleneck: int = 256
    n_blocks: int = 4
    stride: int = 2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("n_blocks", "stride") else 1
            if value < least:
                raise InputError(f"{name} of an ensemble member must be {least} or more: {value}")

    def as_dict(self) -> dict[str, int]:
        """Return the fields as JSON values."""
        return asdict(self)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the rows and columns of the embedding of features with these."""
        step = max(self.stride, 1)
        return -(-rows // step), -(-columns // step)


def _separable(inputs: int, outputs: int, stride: int = 1, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
    )


class _Block(nn.Module):
    """Two separable convolutions and a pointwise one, added to their input; signed output."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _separable(width, bottleneck),
            nn.BatchNorm2d(bottleneck, BATCH_NORM_EPS),
            nn.ReLU(),
            _separable(bottleneck, bottleneck),
            nn.BatchNorm2d(bottleneck, BATCH_NORM_EPS),
            nn.ReLU(),
            nn.Conv2d(bottleneck, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        return x + y


class EnsembleMember(nn.Module):
    """Map backbone features to an embedding at half their resolution (with the default stride).

    Each channel is divided by its scale; then a pointwise reduction with batch norm and ReLU, a
    strided separable convolution, and residual blocks with nothing after the addition, so the
    embedding is signed.

    Parameters
    ----------
    shape
        Sizes of the network.

    Attributes
    ----------
    feature_scale
        What features are divided by, ``(in_channels,)``, in their unit; ones until trained. Layers
        of one backbone differ in scale by far more than channels of one layer.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Deep ensemble model". The scale is ours.
    """

    feature_scale: Tensor

    def __init__(self, shape: EnsembleShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("feature_scale", torch.ones(shape.in_channels))
        self.reduce = nn.Sequential(
            nn.Conv2d(shape.in_channels, shape.width, 1),
            nn.BatchNorm2d(shape.width, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM),
            nn.ReLU(),
        )
        self.pool = (
            _separable(shape.width, shape.width, shape.stride, padding=0)
            if shape.stride
            else nn.Sequential()
        )
        self.blocks = nn.Sequential(
            *(_Block(shape.width, shape.bottleneck) for _ in range(shape.n_blocks))
        )

    def forward(
        self, features: Float[Tensor, "n channels rows columns"]
    ) -> Float[Tensor, "n width rows2 columns2"]:
        """Return the embedding of backbone features."""
        reduced = self.reduce(features / self.feature_scale[:, None, None])
        embedding: Tensor = self.blocks(self.pool(_same_pad(reduced, self.shape.stride)))
        return embedding


def _same_pad(x: Tensor, stride: int) -> Tensor:
    """Return maps padded as Keras does for a 3x3 kernel at this stride, as they are at 0."""
    if not stride:
        return x
    rows, columns = (same_padding(n, stride, kernel=3) for n in x.shape[2:])
    return F.pad(x, (*columns, *rows))


class EnsembleStack(nn.Module):
    """Members of one shape run as one network.

    Every tensor of a member is kept once, with a leading axis over members. The reduction is one
    matrix product to all members' channels, depthwise convolutions and batch norms act on all
    members' channels side by side, and pointwise convolutions are batched products over members.
    Outputs and gradients equal those of the members run one by one, so an elementwise optimiser of
    a sum of the members' losses trains each as it would be trained alone. Biases right before a
    batch norm get no gradient: it is 0 but for rounding, which Adam would blow up to full steps.

    On one core (AVX-512) a training step of a stack of 8 takes 0.84 to 1.09 of the time of 8 stacks
    of one, for widths of 96 to 512 at batch 32: maps of 7 x 7 are small enough for the cache either
    way, so the stack is never cut. What it saves is reading the features for each member.

    Parameters
    ----------
    members
        Members of one shape; their weights are copied.

    Raises
    ------
    InputError
        If there is no member or their shapes differ.
    """

    def __init__(self, members: Sequence[EnsembleMember]) -> None:
        super().__init__()
        if len({member.shape for member in members}) != 1:
            raise InputError(f"a stack needs members of one shape, got {len(members)} members")
        self.shape = members[0].shape
        self.n_members = len(members)
        for name, _ in members[0].named_parameters():
            together = torch.stack([m.get_parameter(name).detach() for m in members])
            self.register_parameter(_stacked(name), nn.Parameter(together))
        for name, _ in members[0].named_buffers():
            self.register_buffer(_stacked(name), torch.stack([m.get_buffer(name) for m in members]))
        self.train(members[0].training)

    def forward(
        self, features: Float[Tensor, "n channels rows columns"]
    ) -> Float[Tensor, "n_members n width rows2 columns2"]:
        """Return every member's embedding of backbone features, differentiably."""
        n, _, rows, columns = features.shape
        weight = self._tensor("reduce.0.weight")[..., 0, 0]  # (members, width, channels)
        weight = weight / self._tensor("feature_scale")[:, None]
        flat = features.permute(0, 2, 3, 1).reshape(n * rows * columns, -1)
        bias = self._tensor("reduce.0.bias").detach().flatten()
        x = F.linear(flat, weight.flatten(0, 1), bias)
        x = x.view(n, rows, columns, -1).permute(0, 3, 1, 2)  # (n, members * width, rows, columns)
        x = self._norm_relu("reduce.1", x)
        if self.shape.stride:
            padded = _same_pad(x, self.shape.stride)
            x = self._pointwise("pool.1", self._depthwise("pool.0", padded, self.shape.stride, 0))
        for block in range(self.shape.n_blocks):
            name = f"blocks.{block}.branch"
            y = x
            for separable, norm in ((0, 1), (3, 4)):
                y = self._depthwise(f"{name}.{separable}.0", y)
                y = self._pointwise(f"{name}.{separable}.1", y, normed=True)
                y = self._norm_relu(f"{name}.{norm}", y)
            x = x + self._pointwise(f"{name}.6", y)
        n, _, rows, columns = x.shape
        apart = x.permute(0, 2, 3, 1).view(n, rows, columns, self.n_members, -1)
        return apart.permute(3, 0, 4, 1, 2)

    def members(self) -> list[EnsembleMember]:
        """Return each member with its own copy of its weights, where the stack is."""
        apart = []
        for k in range(self.n_members):
            with torch.device("meta"):
                member = EnsembleMember(self.shape)
            state = {name: self._tensor(name)[k].detach().clone() for name in member.state_dict()}
            member.load_state_dict(state, assign=True)
            apart.append(member.train(self.training))
        return apart

    def _tensor(self, name: str) -> Tensor:
        tensor: Tensor = getattr(self, _stacked(name))
        return tensor

    def _norm_relu(self, name: str, x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            self._tensor(f"{name}.{part}").flatten()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        if self.training:
            self._tensor(f"{name}.num_batches_tracked").add_(1)
        normed = F.batch_norm(
            x, mean, variance, weight, bias, self.training, BATCH_NORM_MOMENTUM, BATCH_NORM_EPS
        )
        return F.relu(normed, inplace=True)

    def _depthwise(self, name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        kernels = self._tensor(f"{name}.weight").flatten(0, 1)
        return F.conv2d(x, kernels, None, stride, padding, groups=len(kernels))

    def _pointwise(self, name: str, x: Tensor, *, normed: bool = False) -> Tensor:
        """Apply each member's pointwise weights to its own channels."""
        n, _, rows, columns = x.shape
        weight, bias = self._tensor(f"{name}.weight")[..., 0, 0], self._tensor(f"{name}.bias")
        bias = bias.detach() if normed else bias
        apart = x.permute(0, 2, 3, 1).reshape(n * rows * columns, self.n_members, -1)
        y = torch.baddbmm(bias[:, None], apart.transpose(0, 1), weight.transpose(1, 2))
        return y.transpose(0, 1).reshape(n, rows, columns, -1).permute(0, 3, 1, 2)


def _stacked(name: str) -> str:
    """Return the attribute that holds a member's tensor; a module's own names have no dots."""
    return name.replace(".", "_")


class FactorizedReadout(nn.Module):
    """Responses of one session's neurons: channel mixing, then a spatial map, for each neuron.

    ``r_n = sum_ij S_nij (sum_k M_nk X_kij + a_n) + b_n``, with weights of their own for each of
    the ensemble's members.

    Parameters
    ----------
    width, rows, columns
        Size of the embedding.
    n_neurons
        Neurons of the session.
    scale
        Standard deviation of the initial weights. Small, not zero: with both factors zero
        neither would have a gradient.
    generators
        Source of the initial weights, one for each member.
    """

    def __init__(
        self,
        width: int,
        rows: int,
        columns: int,
        n_neurons: int,
        *,
        scale: float,
        generators: Sequence[torch.Generator],
    ) -> None:
        super().__init__()
        n_members = len(generators)
        self.mixing = nn.Parameter(torch.empty(n_members, n_neurons, width))
        self.mixing_bias = nn.Parameter(torch.empty(n_members, n_neurons))
        self.spatial = nn.Parameter(torch.empty(n_members, n_neurons, rows, columns))
        self.bias = nn.Parameter(torch.empty(n_members, n_neurons))
        self.reset(scale, generators)

    def reset(self, scale: float, generators: Sequence[torch.Generator]) -> None:
        """Draw new weights in place, as at the start; biases are 0."""
        with torch.no_grad():
            for weights in (self.mixing, self.spatial):
                shape = weights.shape[1:]
                drawn = [torch.randn(shape, generator=generator) for generator in generators]
                weights.copy_(scale * torch.stack(drawn))
            self.mixing_bias.zero_()
            self.bias.zero_()

    def forward(
        self, embedding: Float[Tensor, "n_members n width rows columns"]
    ) -> Float[Tensor, "n_members n n_neurons"]:
        """Return the responses to images that each member has embedded."""
        n_members, n = embedding.shape[:2]
        places = embedding.permute(0, 1, 3, 4, 2).flatten(1, 3)  # (members, n * rows * columns, k)
        mixed = torch.baddbmm(self.mixing_bias[:, None], places, self.mixing.transpose(1, 2))
        mixed = mixed.view(n_members, n, -1, mixed.shape[-1])
        maps = self.spatial.flatten(2).transpose(1, 2)[:, None]  # (members, 1, places, neurons)
        return (mixed * maps).sum(2) + self.bias[:, None]


class EnsembleModel(nn.Module):
    """Several members, each with a linear map from its embedding to the same neurons.

    Parameters
    ----------
    members
        Trained members of one shape.
    weights
        ``(n_members, width * rows * columns, n_neurons)``, channels first.
    intercepts
        ``(n_members, n_neurons)``.
    """

    weights: Tensor
    intercepts: Tensor

    def __init__(
        self,
        members: Sequence[EnsembleMember],
        weights: Float[Tensor, "n_members n_features n_neurons"],
        intercepts: Float[Tensor, "n_members n_neurons"],
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights)
        self.register_buffer("intercepts", intercepts)

    def forward(
        self, features: Float[Tensor, "n channels rows columns"]
    ) -> Float[Tensor, "n n_neurons"]:
        """Return the mean of the members' predictions for backbone features."""
        return self.predict_members(features).mean(0)

    def predict_members(
        self, features: Float[Tensor, "n channels rows columns"]
    ) -> Float[Tensor, "n_members n n_neurons"]:
        """Return every member's prediction; their spread is the ensemble's uncertainty."""
        answers = [
            member(features).flatten(1) @ weight + intercept
            for member, weight, intercept in zip(
                self.members, self.weights, self.intercepts, strict=True
            )
        ]
        return torch.stack(answers)

    @property
    def n_parameters(self) -> int:
        """Numbers in the members and their maps, the backbone not counted."""
        return sum(t.numel() for t in self.state_dict().values() if t.is_floating_point())
