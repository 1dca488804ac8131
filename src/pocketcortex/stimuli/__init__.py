"""Stimuli: images that drive or silence a model neuron."""

from pocketcortex.stimuli.synthesize import strongest, synthesize, synthesize_all

__all__ = ["strongest", "synthesize", "synthesize_all"]
