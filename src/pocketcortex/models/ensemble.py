"""The teacher: networks that turn backbone features into an embedding shared by all neurons."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.models.compact import same_padding

BATCH_NORM_EPS = 1e-3


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
        Residual blocks.
    stride
        Stride of the separable convolution before the blocks.
    """

    in_channels: int = 1024
    width: int = 512
    bottleneck: int = 256
    n_blocks: int = 4
    stride: int = 2

    def as_dict(self) -> dict[str, int]:
        """Return the fields as JSON values."""
        return asdict(self)


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

    A pointwise reduction with batch norm and ReLU, a strided separable convolution, then
    residual blocks with nothing after the addition, so the embedding is signed.

    Parameters
    ----------
    shape
        Sizes of the network.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Deep ensemble model".
    """

    def __init__(self, shape: EnsembleShape) -> None:
        super().__init__()
        self.shape = shape
        self.reduce = nn.Sequential(
            nn.Conv2d(shape.in_channels, shape.width, 1),
            nn.BatchNorm2d(shape.width, BATCH_NORM_EPS),
            nn.ReLU(),
        )
        self.pool = _separable(shape.width, shape.width, shape.stride, padding=0)
        self.blocks = nn.Sequential(
            *(_Block(shape.width, shape.bottleneck) for _ in range(shape.n_blocks))
        )

    def forward(
        self, features: Float[Tensor, "n channels rows columns"]
    ) -> Float[Tensor, "n width rows2 columns2"]:
        """Return the embedding of backbone features."""
        reduced = self.reduce(features)
        rows, columns = (same_padding(n, self.shape.stride, kernel=3) for n in reduced.shape[2:])
        embedding: Tensor = self.blocks(self.pool(F.pad(reduced, (*columns, *rows))))
        return embedding


class FactorizedReadout(nn.Module):
    """Responses of one session's neurons: channel mixing, then a spatial map, for each neuron.

    ``r_n = sum_ij S_nij (sum_k M_nk X_kij + a_n) + b_n``

    Parameters
    ----------
    width, rows, columns
        Size of the embedding.
    n_neurons
        Neurons of the session.
    scale
        Standard deviation of the initial weights. Small, not zero: with both factors zero
        neither would have a gradient.
    generator
        Source of the initial weights.
    """

    def __init__(
        self,
        width: int,
        rows: int,
        columns: int,
        n_neurons: int,
        *,
        scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.mixing = nn.Parameter(scale * torch.randn(n_neurons, width, generator=generator))
        self.mixing_bias = nn.Parameter(torch.zeros(n_neurons))
        self.spatial = nn.Parameter(
            scale * torch.randn(n_neurons, rows, columns, generator=generator)
        )
        self.bias = nn.Parameter(torch.zeros(n_neurons))

    def forward(
        self, embedding: Float[Tensor, "n width rows columns"]
    ) -> Float[Tensor, "n n_neurons"]:
        """Return the responses to embedded images."""
        mixed = nn.functional.conv2d(embedding, self.mixing[:, :, None, None], self.mixing_bias)
        return torch.einsum("nkij,kij->nk", mixed, self.spatial) + self.bias


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
