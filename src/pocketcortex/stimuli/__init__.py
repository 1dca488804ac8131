"""Stimuli: images that drive or silence a model neuron, and images made gaudy."""

from pocketcortex.stimuli.gaudy import gaudy
from pocketcortex.stimuli.synthesize import strongest, synthesize, synthesize_all

__all__ = ["gaudy", "strongest", "synthesize", "synthesize_all"]
