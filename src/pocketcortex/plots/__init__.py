"""Figures of finished numbers: the only room that draws."""

from pocketcortex.plots.compression import (
    plot_filters_by_group,
    plot_pareto,
    plot_score_by_filters,
)
from pocketcortex.plots.gallery import figure_gallery, figure_gallery_pairs
from pocketcortex.plots.render import RenderedFigure, render_figure
from pocketcortex.plots.scores import plot_r2_by_model, plot_r2_scatter
from pocketcortex.plots.size import count_text, plot_filters_per_layer, plot_parameters
from pocketcortex.plots.style import MODEL_COLOURS, model_colours
from pocketcortex.plots.weights import CompactWeights, figure_weights

__all__ = [
    "MODEL_COLOURS",
    "CompactWeights",
    "RenderedFigure",
    "count_text",
    "figure_gallery",
    "figure_gallery_pairs",
    "figure_weights",
    "model_colours",
    "plot_filters_by_group",
    "plot_filters_per_layer",
    "plot_parameters",
    "plot_pareto",
    "plot_r2_by_model",
    "plot_r2_scatter",
    "plot_score_by_filters",
    "render_figure",
]
