"""What every kind of source of networks can say and do."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import nn

from pocketcortex.core import InputError
from pocketcortex.zoo.preprocessing import Preprocessing
from pocketcortex.zoo.weights import WeightsFile


class Source(ABC):
    """One architecture of one library, with the weights that belong to it."""

    @property
    @abstractmethod
    def file(self) -> WeightsFile | None:
        """File of its published weights; None if it brings its own."""

    @abstractmethod
    def trained(self, path: Path | None) -> nn.Module:
        """Return the network with a file's weights, or with those it brings."""

    @abstractmethod
    def random(self, seed: int) -> nn.Module:
        """Return the network as its library initialises it, drawn by seed."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """What belongs to its published weights; random weights get the same."""

    @property
    @abstractmethod
    def published_preprocessing(self) -> Preprocessing:
        """What the published benchmark gave such a network."""

    def find(self) -> Path | None:
        """Return the file of its published weights if it is on this machine."""
        return None if self.file is None else self.file.find()

    def require(self, network: str, *, download: bool) -> Path | None:
        """Return the file of its published weights; `WeightsFile.require` says how."""
        return None if self.file is None else self.file.require(network, download=download)


def given(path: Path | None) -> Path:
    """Return the path of weights without which a network cannot be had."""
    if path is None:
        raise InputError("this network needs the path of a weights file")
    return path
