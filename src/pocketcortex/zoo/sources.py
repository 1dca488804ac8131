"""Where networks come from: one source for each kind of reference."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pocketcortex.core import InputError
from pocketcortex.zoo.backbone import load_network
from pocketcortex.zoo.checkpoints import load_weights, read_tensors
from pocketcortex.zoo.preprocessing import RAW, TASKONOMY, Preprocessing
from pocketcortex.zoo.randomised import randomised, seeded
from pocketcortex.zoo.source import Source, given
from pocketcortex.zoo.taskonomy import TASKS, TaskonomyEncoder
from pocketcortex.zoo.timm_sources import HubSource, TimmSource
from pocketcortex.zoo.torchvision_source import TorchvisionSource
from pocketcortex.zoo.weights import WeightsFile


@dataclass(frozen=True)
class TaskonomySource(Source):
    """The encoder of a Taskonomy task."""

    task: str

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"no Taskonomy task {self.task!r}; there are {', '.join(TASKS)}")

    @property
    def file(self) -> WeightsFile:
        """The task's encoder; its address is told, not fetched from, as it comes with no hash."""
        name = f"{self.task}_encoder"
        folder = "https://github.com/alexsax/visual-prior/raw/networks/assets/pytorch"
        names = (f"{name}.safetensors", f"{name}.pth")
        return WeightsFile(names, f"{folder}/{name}.pth", downloadable=False)

    def trained(self, path: Path | None) -> nn.Module:
        """Return the encoder with a file's weights."""
        encoder = TaskonomyEncoder()
        load_weights(encoder, read_tensors(given(path)), given(path))
        return encoder

    def random(self, seed: int) -> nn.Module:
        """Return the encoder as PyTorch initialises its layers."""
        with seeded(seed):
            return TaskonomyEncoder()

    @property
    def preprocessing(self) -> Preprocessing:
        """256 x 256, levels from -1 to 1."""
        return TASKONOMY

    @property
    def published_preprocessing(self) -> Preprocessing:
        """256 x 256, levels from -1 to 1."""
        return TASKONOMY


@dataclass(frozen=True)
class BuilderSource(Source):
    """A network of your own, ``"file.py:builder"`` or ``"module:builder"``, normalising itself."""

    reference: str

    @property
    def file(self) -> None:
        """Return None: the builder brings its weights."""
        return

    def trained(self, path: Path | None) -> nn.Module:
        """Return what the builder builds, with a file's weights if one is given."""
        network = load_network(self.reference)
        if path is not None:
            load_weights(network, read_tensors(path), path)
        return network

    def random(self, seed: int) -> nn.Module:
        """Return what the builder builds with all parameters initialised anew."""
        network, kept = randomised(load_network(self.reference), seed)
        if kept:
            names = ", ".join(kept[:5]) + (", ..." if len(kept) > 5 else "")
            raise InputError(
                f"network {self.reference!r} has {len(kept)} parameters that no reset_parameters "
                f"initialises: {names}; give the modules that hold them one, or write a builder "
                "of the untrained network"
            )
        return network

    @property
    def preprocessing(self) -> Preprocessing:
        """Nothing: raw images go in."""
        return RAW

    @property
    def published_preprocessing(self) -> Preprocessing:
        """224 x 224 without crop; normalised by the network itself."""
        return Preprocessing(size=(224, 224), mean=None, std=None)


def find_source(reference: str, name: str = "") -> Source:
    """Return the source that a reference such as ``"timm:resnet50"`` names.

    Parameters
    ----------
    reference
        As `NetworkSpec.source`.
    name
        The network's own name, under which a trunk's weights are looked for.

    Raises
    ------
    InputError
        If the reference is of no known kind, or its library has no such network.
    """
    scheme, _, rest = reference.partition(":")
    makers: dict[str, Callable[[], Source]] = {
        "torchvision": lambda: TorchvisionSource(rest),
        "trunk": lambda: TorchvisionSource(rest, trunk=name or rest),
        "timm": lambda: TimmSource(rest),
        "hf": lambda: HubSource(rest),
        "taskonomy": lambda: TaskonomySource(rest),
    }
    if not rest:
        raise InputError(
            f"network {reference!r} is of no known kind; it must be a name that 'pocketcortex zoo "
            f"list' shows, one of {', '.join(f'{s}:NAME' for s in makers)}, 'file.py:builder' or "
            "'module:builder'"
        )
    return makers.get(scheme, lambda: BuilderSource(reference))()
