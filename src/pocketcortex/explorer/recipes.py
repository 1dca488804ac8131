"""Python that makes again what a page shows."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from pocketcortex.explorer.natural import N_IMAGES, NaturalImages
from pocketcortex.explorer.neurons import Collection, Neuron
from pocketcortex.explorer.study import BUDGET, SEED, Study

CROSSED = (
    "from pathlib import Path\nimport torch\nfrom pocketcortex.core import decode_image\n"
    "image = decode_image(Path('PICTURE.png').read_bytes(), 'PICTURE.png', "
    "size=first.image_size[0])\n"
    "with torch.inference_mode():\n"
    "    responses = [float(one(torch.from_numpy(image)[None])) for one in (first, second)]\n"
)
"""What two models, ``first`` and ``second``, answer to one image."""


def url(name: str, rest: str) -> str:
    """Return the address of a neuron's file below the root."""
    return f"neuron/{quote(name, safe='')}/{rest}"


def load(neuron: Neuron) -> str:
    """Return Python that reads a neuron's model as ``model``."""
    if neuron.path.is_dir():
        return (
            "from pocketcortex.models import CompactModel\n"
            f"model = CompactModel.load({str(neuron.path)!r})\n"
        )
    return (
        "from pocketcortex.models import import_compact_model\n"
        f"model = import_compact_model({str(neuron.path)!r})\n"
    )


def population(collection: Collection, natural: NaturalImages, given: Mapping[str, str]) -> str:
    """Return Python that tells what the population page sorts by."""
    more, names = "".join(f", {name}={value!r}" for name, value in given.items()), "Explorer"
    if natural.path is not None or natural.n != N_IMAGES:
        where = f"Path({str(natural.path)!r})" if natural.path is not None else "None"
        more += f", natural=NaturalImages({where}, {natural.n})"
        names += ", NaturalImages"
    return (
        ("from pathlib import Path\n" if "Path(" in more else "")
        + f"from pocketcortex.explorer import {names}\n"
        f"rows = Explorer({str(collection.path)!r}{more}).population()['neurons']\n"
    )


def neuron(study: Study) -> dict[str, str | None]:
    """Return Python for every panel of a neuron's page, by panel."""
    read = load(study.neuron)
    picture = "PICTURE.png"
    shown = (
        read
        + "from pathlib import Path\nimport torch\nfrom pocketcortex.core import decode_image\n"
        f"image = decode_image(Path({picture!r}).read_bytes(), {picture!r}, "
        "size=model.image_size[0])\n"
    )
    return {
        "response": shown + "with torch.inference_mode():\n"
        "    response = float(model(torch.from_numpy(image)[None]))\n",
        "ablation": shown + "from pocketcortex.models import Ablations\nimport numpy as np\n"
        "ablations = Ablations(model)\nkept = np.ones(len(ablations), dtype=bool)\n"
        "for stage, number in FILTERS:\n    kept[ablations.filter(stage, number)] = False\n"
        "response = float(ablations.responses(torch.from_numpy(image)[None], kept))\n",
        "trace": shown + "from pocketcortex.dissect import trace\nstages = trace(model, image)\n",
        "saliency": shown + "from pocketcortex.stimuli import smoothing_saliency\n"
        "saliency = smoothing_saliency([model], image[None, None])\n",
        "synthesis": read + "from pocketcortex.stimuli import synthesize\n"
        "made = synthesize([model], n_starts=1, n_steps=STEPS, seed=SEED, minimize=MINIMIZE)\n"
        "image, response = made.images[0, 0], made.responses[0, 0]\n",
        "looks": looks(study),
        "r2": r2(study),
        "load": read,
        "crossed": CROSSED,
    }


def r2(study: Study) -> str | None:
    """Return Python that scores a published model on its session's second half; else None."""
    if study.held_out is None:
        return None
    neuron = study.neuron
    return (
        load(neuron) + "import numpy as np\nimport torch\n"
        "from pocketcortex.data import read_v4\nfrom pocketcortex.metrics import pearson_r2\n"
        f"session = read_v4({str(study.held_out.path)!r})[{neuron.session!r}]\n"
        "half = np.arange(session.n_stimuli // 2, session.n_stimuli)\n"
        "images = torch.from_numpy(session.require_stimuli().read(half))\n"
        "with torch.inference_mode():\n"
        "    responses = torch.cat([model(some) for some in images.split(16)]).numpy()\n"
        f"r2 = pearson_r2(session.mean_responses[half][:, [{neuron.neuron}]], responses[:, None])\n"
    )


def looks(study: Study) -> str:
    """Return Python that finds the preferred and least preferred images."""
    if study.run is not None and study.target is not None:
        return (
            "from pathlib import Path\n"
            "from pocketcortex.pipeline.causal import CausalSession\n"
            f"shown = CausalSession.load(Path({_run_of(study)!r}) / 'stimuli')\n"
            f"rows = shown.roles.rows('synthesized_max', {study.target})\n"
            "preferred = shown.stimuli.read(rows[:1])[0]\n"
        )
    return (
        load(study.neuron) + study.natural.python
        + "import torch\nfrom pocketcortex.stimuli import synthesize\n"
        "with torch.inference_mode():\n"
        "    responses = model(torch.from_numpy(natural)).numpy()\n"
        "natural_max, natural_min = natural[responses.argmax()], natural[responses.argmin()]\n"
        f"steps = dict(n_starts=1, n_steps={study.n_steps}, seed={SEED})\n"
        "made = synthesize([model], **steps)\n"
        "least = synthesize([model], **steps, minimize=True)\n"
        "synthesized_max, synthesized_min = made.images[0, 0], least.images[0, 0]\n"
    )  # fmt: skip


def tuning(study: Study) -> str:
    """Return Python that measures the tuning curves."""
    field = study.stored("field") or {}
    centre = (field.get("x_px"), field.get("y_px"))
    return (
        load(study.neuron) + "import numpy as np\nfrom pocketcortex.dissect import tune\n"
        f"tuning = tune(model, {centre}, rng=np.random.default_rng(0))\n"
        "size = tuning.dot_size                                  # by tuning.radii_px\n"
        "number = tuning.dot_number.mean(axis=1)                 # by tuning.numbers\n"
        "frequency = tuning.grating.mean(axis=2).max(axis=0).argmax()\n"
        "orientation = tuning.grating[:, frequency].mean(axis=1)  # by tuning.orientations_deg\n"
        "direction = tuning.contour.max(axis=0).argmax()\n"
        "curvature = tuning.contour[:, direction]                # by tuning.curvatures_per_px\n"
        "hue = tuning.hue                                        # by tuning.hues_deg\n"
    )


def adversarial(study: Study) -> str:
    """Return Python that makes the adversarial images."""
    if study.run is not None and study.target is not None:
        return (
            looks(study).replace("synthesized_max", "adversarial+").replace("preferred", "raised")
        )
    return (
        load(study.neuron) + study.natural.python
        + "from pocketcortex.stimuli import adversarial\nbase = natural[None, :1]\n"
        f"raised = adversarial([model], base, direction='raise', budget={BUDGET})\n"
        f"lowered = adversarial([model], base, direction='lower', budget={BUDGET})\n"
    )  # fmt: skip


def compare(first: Study, second: Study) -> str:
    """Return Python that shows two models one image."""
    return (
        load(first.neuron).replace("model =", "first =")
        + load(second.neuron).replace("model =", "second =")
        + CROSSED
    )


def _run_of(study: Study) -> str:
    return str(Path(study.neuron.path).parent.parent)
