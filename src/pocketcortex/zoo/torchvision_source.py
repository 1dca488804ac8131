"""Classifiers of torchvision, and their trunks with weights of other training."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pocketcortex.core import InputError
from pocketcortex.zoo._torchvision import import_torchvision
from pocketcortex.zoo.checkpoints import load_weights, read_tensors
from pocketcortex.zoo.preprocessing import PUBLISHED, Preprocessing
from pocketcortex.zoo.randomised import seeded
from pocketcortex.zoo.source import Source, given
from pocketcortex.zoo.weights import SUFFIXES, WeightsFile

_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class TorchvisionSource(Source):
    """A classifier of torchvision; without its last layer and its weights if it is a trunk."""

    architecture: str
    trunk: str = ""
    """Name under which a trunk's own weights are looked for; empty for the classifier."""

    def __post_init__(self) -> None:
        known = import_torchvision().models.list_models(import_torchvision().models)
        if self.architecture not in known:
            raise InputError(
                f"torchvision has no classifier {self.architecture!r}; it has {', '.join(known)}"
            )

    @property
    def file(self) -> WeightsFile:
        """Torchvision's first ImageNet weights, or a checkpoint under the trunk's name."""
        if self.trunk:
            return WeightsFile(tuple(self.trunk + suffix for suffix in SUFFIXES))
        address: str = self._published.url
        return WeightsFile((address.rpartition("/")[2],), address)

    def trained(self, path: Path | None) -> nn.Module:
        """Return the network with a file's weights."""
        tensors = read_tensors(given(path))
        network = self._made()
        # Old DenseNet files say norm.1 where modules are called norm1.
        renamed = {_DENSE.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}
        load_weights(network, renamed, given(path))
        return network

    def random(self, seed: int) -> nn.Module:
        """Return the network as torchvision initialises it."""
        with seeded(seed):
            return self._made()

    def _made(self) -> nn.Module:
        # Auxiliary classifiers serve training alone; Google's networks undo ImageNet's
        # normalisation, whatever their weights, as their published weights need it.
        options: dict[str, Any] = {}
        if self.architecture in ("googlenet", "inception_v3"):
            options = {"aux_logits": False, "transform_input": True, "init_weights": True}
        models = import_torchvision().models
        network: nn.Module = models.get_model(self.architecture, weights=None, **options)
        if self.trunk:
            last = [name for name, _ in network.named_children()][-1]
            setattr(network, last, nn.Identity())
        return network

    @property
    def preprocessing(self) -> Preprocessing:
        """What torchvision's weights were scored with."""
        how = self._published.transforms()
        return Preprocessing(
            size=(how.crop_size[0], how.crop_size[0]),
            short_side=how.resize_size[0],
            interpolation=how.interpolation.value,
            mean=tuple(how.mean),
            std=tuple(how.std),
        )

    @property
    def published_preprocessing(self) -> Preprocessing:
        """224 x 224 without crop, ImageNet's normalisation."""
        return PUBLISHED

    @property
    def _published(self) -> Any:
        weights = import_torchvision().models.get_model_weights(self.architecture)
        return next(iter(weights))  # the first are the oldest, those of the benchmark
