"""Figures of finished numbers: the only room that draws."""

from pocketcortex.plots.causal import figure_causal, plot_effects
from pocketcortex.plots.compression import (
    plot_filters_by_group,
    plot_pareto,
    plot_score_by_filters,
)
from pocketcortex.plots.gallery import figure_gallery, figure_gallery_pairs
from pocketcortex.plots.loop import plot_learning_curves
from pocketcortex.plots.perturbation import figure_adversarial, figure_saliency
from pocketcortex.plots.render import RenderedFigure, render_figure
from pocketcortex.plots.scores import plot_r2_by_model, plot_r2_scatter
from pocketcortex.plots.size import count_text, plot_filters_per_layer, plot_parameters
from pocketcortex.plots.stimuli import figure_contact_sheet, figure_population_gallery
from pocketcortex.plots.style import MODEL_COLOURS, model_colours
from pocketcortex.plots.weights import CompactWeights, figure_weights

__all__ = [
    "MODEL_COLOURS",
    "CompactWeights",
    "RenderedFigure",
    "count_text",
    "figure_adversarial",
    "figure_causal",
    "figure_contact_sheet",
    "figure_gallery",
    "figure_gallery_pairs",
    "figure_population_gallery",
    "figure_saliency",
    "figure_weights",
    "model_colours",
    "plot_effects",
    "plot_filters_by_group",
    "plot_filters_per_layer",
    "plot_learning_curves",
    "plot_parameters",
    "plot_pareto",
    "plot_r2_by_model",
    "plot_r2_scatter",
    "plot_score_by_filters",
    "render_figure",
]
