"""A compact model as a folder for the Hugging Face Hub, with its model card."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import safetensors.torch
from pydantic import BaseModel, ConfigDict, StringConstraints

from pocketcortex.core import InputError
from pocketcortex.models.accounting import model_size
from pocketcortex.models.compact import CompactModel

_FILES = ("config.json", "model.safetensors", "README.md")


class ModelCard(BaseModel):
    """What a model's page on the Hub says beside what the model itself tells.

    Attributes
    ----------
    license
        Identifier of the licence the weights are given under, such as ``"cc-by-4.0"``.
    neuron
        Which neuron it is: animal, area, session, index.
    training
        How it was trained: setting to value.
    scores
        How well it predicts: measure and images to value; NaN is what could not be computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    license: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    neuron: str = "Not stated."
    training: Mapping[str, str | int | float] = {}
    scores: Mapping[str, int | float] = {}


def hub_files(model: CompactModel, name: str, card: ModelCard) -> dict[str, bytes]:
    """Return the files of a model's repository on the Hub, by name.

    ``config.json`` and ``model.safetensors`` are what `CompactModel.load` reads; ``README.md`` is
    the model card.

    Parameters
    ----------
    model
        One neuron's model.
    name
        Title of the card.
    card
        What it says of the neuron, training, scores and licence.
    """
    config = {
        "model_type": "pocketcortex-compact",
        "filters": model.filters,
        "image_size": model.image_size,
    }
    weights = {key: tensor.contiguous().cpu() for key, tensor in model.state_dict().items()}
    return {
        "config.json": (json.dumps(config, indent=1) + "\n").encode(),
        "model.safetensors": safetensors.torch.save(weights),
        "README.md": _card_text(model, name, card).encode(),
    }


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a folder that `export_model` wrote for the Hub, and return the address of the commit.

    Makes the repository if it is missing, and signs in with the token that ``hf auth login``
    stored. No test runs it against the Hub.

    Parameters
    ----------
    folder
        The exported folder.
    repo_id
        ``"owner/name"`` on the Hub.
    private
        Whether a new repository is seen by its owner only.

    Raises
    ------
    InputError
        If the folder is no such export, or huggingface_hub is not installed.
    """
    missing = [name for name in _FILES if not (Path(folder) / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} has no {', '.join(missing)}; write it by export_model(model, folder, 'hub')"
        )
    with export_extra():
        from huggingface_hub import HfApi
    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    return str(api.upload_folder(folder_path=folder, repo_id=repo_id))


@contextmanager
def export_extra() -> Iterator[None]:
    """Say how to install what is missing, where a library of the extra "export" is imported."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"this needs a library that is not installed ({error.name or error}); "
            "run: pip install 'pocketcortex[export]'"
        ) from error


def _card_text(model: CompactModel, name: str, card: ModelCard) -> str:
    size = model_size(model)
    height, width = model.image_size
    return f"""---
license: {json.dumps(card.license)}
library_name: pocketcortex
tags: [neuroscience, visual-cortex, neural-encoding, compact-model]
---

# {name}

A compact deep network that predicts the responses of one neuron of visual cortex to images: five
small convolutional layers and a spatial readout, distilled from a larger model and pruned.

**Neuron.** {card.neuron}

## Use

```python
import torch
from pocketcortex.models import CompactModel

model = CompactModel.load(".")  # this folder, such as huggingface_hub.snapshot_download gives it
images = torch.randint(0, 256, (4, 3, {height}, {width}), dtype=torch.uint8)  # levels 0..255
with torch.inference_mode():
    print(model(images))  # one response an image
```

## Size

{
        _table(
            {
                "parameters": f"{size.parameters.total:,}",
                "of these, kernels and biases": f"{size.parameters.convolution:,}",
                "of these, batch norm": f"{size.parameters.batch_norm:,}",
                "of these, spatial readout": f"{size.parameters.readout:,}",
                "filters in each layer": ", ".join(map(str, size.filters)),
                "filters as the paper counts them": f"{size.n_filters:,}",
                "multiply-adds for an image": f"{size.macs:,}",
                "weights file, bytes": f"{size.n_bytes:,}",
            }
        )
    }

## Training

{_table(card.training) if card.training else "Not stated."}

## Scores

{_table(card.scores) if card.scores else "Not stated."}

## Limits

- It answers for one neuron, to a still image of {height} x {width} pixels shown where and as large
  as the images were when the neuron was recorded.
- It gives the mean response in one time window, without the neuron's variability, in the units it
  was trained in: z-scored responses may be negative.
- It is known to predict only images like those it was trained and scored on. What is seen inside
  it is a hypothesis about the neuron, to be tested on the neuron.

## Citation

The method, and the architecture:

```bibtex
@article{{cowley2023compact,
  title = {{Compact deep neural network models of visual cortex}},
  author = {{Cowley, Benjamin R. and Stan, Patricia L. and Pillow, Jonathan W. and
            Smith, Matthew A.}},
  journal = {{bioRxiv}},
  year = {{2023}},
  doi = {{10.1101/2023.11.22.568315}}
}}
```
"""


def _table(rows: Mapping[str, str | int | float]) -> str:
    lines = ["| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(lines)


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return "not known" if math.isnan(value) else f"{value:.4g}"
    return " ".join(str(value).replace("|", "\\|").split())
