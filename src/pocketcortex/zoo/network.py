"""A network of the zoo: what it is, and the module that takes raw images."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.zoo.preprocessing import RAW, Preprocess, Preprocessing

PRETRAINED = "pretrained"
"""The weights that a network's source publishes."""

_RANDOM = re.compile(r"random:(\d+)")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is, before it is built.

    Attributes
    ----------
    name
        How tables call it; the same for all of a zoo is an error of whoever collects it.
    source
        Where its architecture comes from: ``"torchvision:NAME"``, ``"timm:NAME.TAG"``,
        ``"hf:ORG/NAME"``, ``"trunk:NAME"`` (torchvision's without its classifier),
        ``"taskonomy:TASK"``, ``"file.py:builder"`` or ``"module:builder"``. Networks made by hand
        may say anything.
    weights
        ``"pretrained"``, ``"random:SEED"``, or the path of a file.
    task
        What it was trained to do: ``"classification"``, ``"self-supervised/simclr"``,
        ``"taskonomy/normal"``, ``"none"``; empty if not known.
    data
        What it was trained on; empty if not known.
    family
        ``"convolutional"``, ``"transformer"`` or ``"mlp-mixer"``; empty if not known.
    architecture
        Such as ``"ResNet"``; empty if not known.
    published_parameters, published_layers
        As counted for the published benchmark, None where that is not known.
    note
        What differs from the network of the published benchmark.

    Raises
    ------
    InputError
        If the name, source or weights are empty, or random weights have no whole seed.
    """

    name: str
    source: str
    weights: str = PRETRAINED
    task: str = ""
    data: str = ""
    family: str = ""
    architecture: str = ""
    published_parameters: int | None = None
    published_layers: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "source", "weights"):
            if not getattr(self, field):
                raise InputError(f"a network needs a {field}, got an empty one")
        if self.weights.startswith("random") and self.seed is None:
            raise InputError(
                f"random weights are 'random:SEED', such as random:0, not {self.weights!r}"
            )

    @property
    def seed(self) -> int | None:
        """Seed of random weights, None for trained ones."""
        match = _RANDOM.fullmatch(self.weights)
        return int(match.group(1)) if match else None

    def random(self, seed: int) -> "NetworkSpec":
        """Return the untrained twin: same architecture and preprocessing, weights drawn by seed."""
        base = self.name.partition("@random:")[0]
        return dataclasses.replace(
            self,
            name=f"{base}@random:{seed}",
            weights=f"random:{seed}",
            task="none",
            data="none",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        return dataclasses.asdict(self)


class Network(nn.Module):
    """A network that takes raw images (0..255), with what is known of it.

    Anybody's module can be one: ``Network(module, NetworkSpec("mine", "my lab"))``. Layers have
    the module's own names after ``network.``, as in ``network.layer1.0.conv2``.

    Parameters
    ----------
    network
        Any module. Put into evaluation mode, gradients of its parameters off; activations that
        would overwrite their input get memory of their own, so that hooks see every layer's output.
    spec
        What it is.
    preprocessing
        What is done to raw images before it. `RAW` for modules that normalise for themselves.
    """

    def __init__(
        self, network: nn.Module, spec: NetworkSpec, preprocessing: Preprocessing = RAW
    ) -> None:
        super().__init__()
        self.spec = spec
        self.preprocess = Preprocess(preprocessing)
        self.network = network
        self.eval().requires_grad_(False)
        saved = network.state_dict()
        buffers = network.named_buffers(remove_duplicate=False)
        self._unsaved = _digest({name: b for name, b in buffers if name not in saved})
        for module in network.modules():
            if getattr(module, "inplace", False) is True:
                setattr(module, "inplace", False)  # noqa: B010 - modules know no such attribute

    def forward(self, images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"]) -> object:
        """Return what the module makes of raw images (0..255), on their device."""
        return self.network(self.preprocess(images))

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to raw images."""
        return self.preprocess.preprocessing

    @property
    def n_parameters(self) -> int:
        """Number of parameters, shared ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def key(self) -> str:
        """SHA-256 of parameters, buffers, preprocessing and the architecture as printed.

        Neither the network's name nor where its weights lie counts. Buffers that the network does
        not save count as they were when this was made, since some networks fill them as they run.
        Read from the weights at each call: about a second for a gigabyte.
        """
        parts = (_ADDRESS.sub("", str(self)), self._unsaved, _digest(self.state_dict()))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()
