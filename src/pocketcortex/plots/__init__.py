"""Figures of finished numbers: the only room that draws."""

from pocketcortex.plots.ablation import figure_ablation, plot_ablation
from pocketcortex.plots.causal import figure_causal, plot_effects
from pocketcortex.plots.circuit import CircuitNode, figure_circuit
from pocketcortex.plots.comparison import LayerComparison, figure_comparison, plot_by_layer
from pocketcortex.plots.compression import (
    plot_filters_by_group,
    plot_pareto,
    plot_score_by_filters,
)
from pocketcortex.plots.dissection import DotTuning, figure_dot_tuning, figure_tuning
from pocketcortex.plots.dots import plot_dot_curves
from pocketcortex.plots.elimination import figure_cumulative_ablation
from pocketcortex.plots.families import figure_families, plot_family_scores
from pocketcortex.plots.gallery import figure_gallery, figure_gallery_pairs
from pocketcortex.plots.loop import plot_learning_curves
from pocketcortex.plots.perturbation import figure_adversarial, figure_saliency
from pocketcortex.plots.render import RenderedFigure, render_figure
from pocketcortex.plots.scores import plot_r2_by_model, plot_r2_scatter
from pocketcortex.plots.size import count_text, plot_filters_per_layer, plot_parameters
from pocketcortex.plots.stimuli import figure_contact_sheet, figure_population_gallery
from pocketcortex.plots.style import MODEL_COLOURS, model_colours
from pocketcortex.plots.trace import figure_trace
from pocketcortex.plots.traced import TracedConvolution, TracedLayer, TracedReadout
from pocketcortex.plots.tuning import (
    TuningMap,
    plot_colour_tuning,
    plot_place_map,
    plot_tuning,
    plot_tuning_map,
)
from pocketcortex.plots.weights import CompactWeights, figure_weights
from pocketcortex.plots.zoo import (
    IN_SAMPLE,
    LayerCurves,
    Leaderboard,
    PropertyScatter,
    TrainedRandom,
    figure_zoo,
    plot_layer_curves,
    plot_leaderboard,
    plot_property_scatter,
    plot_trained_random,
)

__all__ = [
    "IN_SAMPLE",
    "MODEL_COLOURS",
    "CircuitNode",
    "CompactWeights",
    "DotTuning",
    "LayerComparison",
    "LayerCurves",
    "Leaderboard",
    "PropertyScatter",
    "RenderedFigure",
    "TracedConvolution",
    "TracedLayer",
    "TracedReadout",
    "TrainedRandom",
    "TuningMap",
    "count_text",
    "figure_ablation",
    "figure_adversarial",
    "figure_causal",
    "figure_circuit",
    "figure_comparison",
    "figure_contact_sheet",
    "figure_cumulative_ablation",
    "figure_dot_tuning",
    "figure_families",
    "figure_gallery",
    "figure_gallery_pairs",
    "figure_population_gallery",
    "figure_saliency",
    "figure_trace",
    "figure_tuning",
    "figure_weights",
    "figure_zoo",
    "model_colours",
    "plot_ablation",
    "plot_by_layer",
    "plot_colour_tuning",
    "plot_dot_curves",
    "plot_effects",
    "plot_family_scores",
    "plot_filters_by_group",
    "plot_filters_per_layer",
    "plot_layer_curves",
    "plot_leaderboard",
    "plot_learning_curves",
    "plot_parameters",
    "plot_pareto",
    "plot_place_map",
    "plot_property_scatter",
    "plot_r2_by_model",
    "plot_r2_scatter",
    "plot_score_by_filters",
    "plot_trained_random",
    "plot_tuning",
    "plot_tuning_map",
    "render_figure",
]
