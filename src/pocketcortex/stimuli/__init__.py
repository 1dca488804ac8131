"""Stimuli: drawn, found in a bank, synthesized; images that drive or silence a model neuron."""

from pocketcortex.stimuli.adversarial import (
    ADVERSARIAL_BUDGET,
    AdversarialImages,
    Direction,
    PerturbationNorm,
    RandomPerturbations,
    adversarial,
    random_perturbation,
)
from pocketcortex.stimuli.catalogue import catalogue
from pocketcortex.stimuli.choose import Arm, Choice, ChoiceConfig, choose_images
from pocketcortex.stimuli.contours import contours
from pocketcortex.stimuli.diverse import most_diverse
from pocketcortex.stimuli.dots import DOT_RADIUS_PX, dots_at, dots_in_number, dots_of_size
from pocketcortex.stimuli.drawing import Drawn
from pocketcortex.stimuli.gaudy import gaudy
from pocketcortex.stimuli.natural import NaturalConstraint
from pocketcortex.stimuli.patterns import bars, curves, edges, gratings, plain_colours, white_noise
from pocketcortex.stimuli.search import MIN_DISTANCE, BankSearch, Found, search_bank, thumbnails
from pocketcortex.stimuli.smoothing import (
    SmoothedImages,
    SmoothingSaliency,
    randomly_smoothed,
    salient_patches,
    smooth_minus,
    smoothing_saliency,
)
from pocketcortex.stimuli.spread import core_set, disagreement
from pocketcortex.stimuli.steps import SynthesisStep, synthesis_steps
from pocketcortex.stimuli.synthesize import Synthesized, synthesize

__all__ = [
    "ADVERSARIAL_BUDGET",
    "DOT_RADIUS_PX",
    "MIN_DISTANCE",
    "AdversarialImages",
    "Arm",
    "BankSearch",
    "Choice",
    "ChoiceConfig",
    "Direction",
    "Drawn",
    "Found",
    "NaturalConstraint",
    "PerturbationNorm",
    "RandomPerturbations",
    "SmoothedImages",
    "SmoothingSaliency",
    "SynthesisStep",
    "Synthesized",
    "adversarial",
    "bars",
    "catalogue",
    "choose_images",
    "contours",
    "core_set",
    "curves",
    "disagreement",
    "dots_at",
    "dots_in_number",
    "dots_of_size",
    "edges",
    "gaudy",
    "gratings",
    "most_diverse",
    "plain_colours",
    "random_perturbation",
    "randomly_smoothed",
    "salient_patches",
    "search_bank",
    "smooth_minus",
    "smoothing_saliency",
    "synthesis_steps",
    "synthesize",
    "thumbnails",
    "white_noise",
]
