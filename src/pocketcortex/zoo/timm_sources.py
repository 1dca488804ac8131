"""Networks of timm, by name and from folders of the Hugging Face Hub."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from pocketcortex.core import InputError, parse_json
from pocketcortex.zoo._torchvision import import_timm
from pocketcortex.zoo.checkpoints import read_tensors
from pocketcortex.zoo.preprocessing import PUBLISHED, Preprocessing
from pocketcortex.zoo.randomised import seeded
from pocketcortex.zoo.source import Source, given
from pocketcortex.zoo.weights import SUFFIXES, WeightsFile, cached_on_hub, weights_folder

_HUB_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TimmSource(Source):
    """Any network of timm, ``NAME`` or ``NAME.TAG``."""

    model: str

    def __post_init__(self) -> None:
        timm = import_timm()
        name, _, tag = self.model.partition(".")
        if not timm.is_model(name):
            close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:10])
            raise InputError(
                f"timm {timm.__version__} has no network {name!r}"
                + (f"; it has {close}, ..." if close else "")
            )
        tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{name}.*")]
        if tag and tag not in tags:
            raise InputError(f"timm's {name} has no weights {tag!r}; it has {', '.join(tags)}")

    @property
    def file(self) -> WeightsFile:
        """The weights of its tag, from the Hub or where they were published before."""
        config = self._config
        whole = ".".join(part for part in (config.architecture, config.tag) if part)
        names = [f"{whole}{suffix}" for suffix in SUFFIXES[:2]]
        if config.url:
            names.append(config.url.rpartition("/")[2])
        hub = (
            (config.hf_hub_id, config.hf_hub_filename or _HUB_WEIGHTS) if config.hf_hub_id else None
        )
        address = config.url or (f"https://huggingface.co/{config.hf_hub_id}" if hub else "")
        return WeightsFile(tuple(names), address, hub)

    def trained(self, path: Path | None) -> nn.Module:
        """Return the network with a file's weights, read by timm."""
        overlay = {
            "file": str(path),
            "source": None,
            "custom_load": Path(str(path)).suffix == ".npz",
        }
        return _read_by_timm(
            path,
            lambda: import_timm().create_model(
                self.model, pretrained=True, pretrained_cfg_overlay=overlay
            ),
        )

    def random(self, seed: int) -> nn.Module:
        """Return the network as timm initialises it."""
        with seeded(seed):
            network: nn.Module = import_timm().create_model(self.model, pretrained=False)
        return network

    @property
    def preprocessing(self) -> Preprocessing:
        """What timm says belongs to the weights."""
        return _timm_preprocessing(self.model, self._config.to_dict())

    @property
    def published_preprocessing(self) -> Preprocessing:
        """224 x 224 without crop, ImageNet's normalisation."""
        _, height, width = self._config.input_size
        if self._config.fixed_input_size and (height, width) != (224, 224):
            raise InputError(
                f"network {self.model!r} takes {height} x {width} pixels only, so that it cannot "
                "be given the published 224 x 224; use its own preprocessing"
            )
        return PUBLISHED

    @property
    def _config(self) -> Any:
        return import_timm().get_pretrained_cfg(self.model)


@dataclass(frozen=True)
class HubSource(Source):
    """A network that timm reads from the Hugging Face Hub, ``ORG/NAME``.

    Two files are looked for, in a folder ``ORG/NAME`` of the folder that ``POCKETCORTEX_WEIGHTS``
    names and in the Hub's cache: ``config.json``, which names an architecture of timm, and
    ``model.safetensors``.
    """

    repository: str

    @property
    def file(self) -> WeightsFile:
        """The folder's weights."""
        return WeightsFile(
            (f"{self.repository}/{_HUB_WEIGHTS}",),
            f"https://huggingface.co/{self.repository}",
            (self.repository, _HUB_WEIGHTS),
        )

    def require(self, network: str, *, download: bool) -> Path:
        """Return the file of the weights; its folder has the configuration."""
        if download and (self._folder() is None or self.file.find() is None):
            self._download(network)
        self._configured()
        return self.file.require(network)

    def _download(self, network: str) -> None:
        import_timm()
        from huggingface_hub import hf_hub_download

        try:
            for name in ("config.json", _HUB_WEIGHTS):
                hf_hub_download(self.repository, name)
        except OSError as error:
            raise InputError(f"cannot fetch network {network!r}: {error}") from error

    def trained(self, path: Path | None) -> nn.Module:
        """Return the network that a folder's configuration names, with a file's weights."""
        overlay = {"file": str(path), "source": None}
        reference = f"local-dir:{self._configured()}"
        return _read_by_timm(
            path,
            lambda: import_timm().create_model(
                reference, pretrained=True, pretrained_cfg_overlay=overlay
            ),
        )

    def random(self, seed: int) -> nn.Module:
        """Return the network as timm initialises it; its configuration must be here."""
        with seeded(seed):
            network: nn.Module = import_timm().create_model(f"local-dir:{self._configured()}")
        return network

    @property
    def preprocessing(self) -> Preprocessing:
        """What the configuration says."""
        content = parse_json((self._configured() / "config.json").read_bytes())
        return _timm_preprocessing(self.repository, content.get("pretrained_cfg", content))

    @property
    def published_preprocessing(self) -> Preprocessing:
        """224 x 224 without crop, ImageNet's normalisation."""
        return PUBLISHED

    def _folder(self) -> Path | None:
        folder = weights_folder()
        if folder is not None and (folder / self.repository / "config.json").is_file():
            return folder / self.repository
        cached = cached_on_hub(self.repository, "config.json")
        return None if cached is None else cached.parent

    def _configured(self) -> Path:
        folder = self._folder()
        if folder is None:
            raise InputError(
                f"network 'hf:{self.repository}' is not here: its config.json and {_HUB_WEIGHTS} "
                f"belong into the folder {self.repository} of the weights folder; "
                f"{self.file.describe()}"
            )
        content = parse_json((folder / "config.json").read_bytes())
        if not isinstance(content, dict) or "architecture" not in content:
            raise InputError(
                f"{folder / 'config.json'} names no architecture of timm; write a builder of your "
                "own and name the network 'file.py:builder'"
            )
        return folder


def _read_by_timm(path: Path | None, create: Callable[[], nn.Module]) -> nn.Module:
    """Return what timm makes of a file, its errors in our words; timm reads tensors only."""
    if not given(path).is_file():
        raise InputError(f"there is no weights file {path}")
    try:
        return create()
    except pickle.UnpicklingError:
        read_tensors(given(path))  # says why pickled objects are not read
        raise
    except (RuntimeError, KeyError, ValueError, AttributeError, OSError, SafetensorError) as error:
        words = " ".join(str(error).split())
        raise InputError(f"{path} does not fit the network: {words[:300]}") from error


def _timm_preprocessing(model: str, config: dict[str, Any]) -> Preprocessing:
    how = import_timm().data.resolve_data_config(pretrained_cfg=config)
    _, height, width = how["input_size"]
    whole = how["crop_pct"] == 1
    if how["crop_mode"] not in ("center", "squash") or (how["crop_mode"] == "squash" and not whole):
        raise InputError(
            f"network {model!r} wants images cropped the way timm calls {how['crop_mode']!r}, "
            "which is not done here; use the published preprocessing"
        )
    squashed = how["crop_mode"] == "squash"
    return Preprocessing(
        size=(height, width),
        short_side=None if squashed else int(max(height, width) / how["crop_pct"]),
        interpolation=how["interpolation"],
        mean=tuple(how["mean"]),
        std=tuple(how["std"]),
    )
