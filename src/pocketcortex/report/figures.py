"""The report's figures: each with a name, a title and a caption that says what it shows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pocketcortex import plots
from pocketcortex.report.content import ReportContent
from pocketcortex.report.tables import metric_label


@dataclass(frozen=True)
class ReportFigure:
    """A rendered figure and what is written below it.

    Attributes
    ----------
    name
        File name without ending.
    section
        Which part of the report it belongs to: "accuracy", "size", "stimuli", "circuits",
        "weights" or "zoo".
    title, caption
        What is shown; how it was computed, and n.
    rendered
        The figure's bytes.
    """

    name: str
    section: str
    title: str
    caption: str
    rendered: plots.RenderedFigure


def report_figures(content: ReportContent) -> tuple[ReportFigure, ...]:
    """Return all figures that the content has numbers for, in reading order."""
    return (
        *_accuracy(content),
        *_size(content),
        *_stimuli(content),
        *_tests(content),
        *_circuits(content),
        *_weights(content),
        *_zoo(content),
    )


def _accuracy(content: ReportContent) -> Iterator[ReportFigure]:
    for metric, of_metric in content.scores.groupby("metric", sort=False):
        name, label = str(metric), metric_label(str(metric))
        models = [str(model) for model in of_metric["model"].unique()]
        wide = of_metric.pivot(index=["session", "neuron"], columns="model", values="value")
        scores = {model: wide[model].to_numpy(np.float64) for model in models}
        stimuli = _stimuli_text(of_metric)
        if "teacher" in scores and "compact" in scores:
            axes = plots.plot_r2_scatter(
                scores["teacher"], scores["compact"], x_label=f"teacher, {label}",
                y_label=f"compact, {label}",
            )  # fmt: skip
            n = int((~np.isnan(scores["teacher"]) & ~np.isnan(scores["compact"])).sum())
            yield ReportFigure(
                f"{name}_scatter", "accuracy", f"Compact models against their teacher: {label}",
                f"Each point is one neuron (n = {n} of {len(wide)}): {label} of the teacher and "
                f"of the compact model distilled from it, on {stimuli}. Dashed: equal "
                "scores. Triangles: medians over the neurons shown. "
                + _left_out(of_metric, ["teacher", "compact"]),
                plots.render_figure(axes),
            )  # fmt: skip
        intervals = content.median_ci.get(name, {})
        band = (
            "Bands: the median's interval, as computed under Methods. "
            if any(model in intervals for model in models)
            else ""
        )
        axes = plots.plot_r2_by_model(scores, metric=label, median_ci=intervals)
        yield ReportFigure(
            f"{name}_by_model", "accuracy", f"Every neuron under every model: {label}",
            f"Each of {len(wide)} neurons' {label} on {stimuli}. Points: neurons, "
            "shifted sideways only so that all can be seen; thin lines join the same neuron. "
            f"Thick bars: medians over the neurons that have a score. {band}"
            + _left_out(of_metric, models),
            plots.render_figure(axes),
        )  # fmt: skip


def _size(content: ReportContent) -> Iterator[ReportFigure]:
    scored = content.scores[content.scores["value"].notna()]["metric"]
    if content.sizes is not None and len(scored):
        metric = str(scored.iloc[-1])  # the noise-corrected one, if there is one
        yield ReportFigure(
            "pareto", "size", f"{metric_label(metric)} against the number of parameters",
            f"Every neuron (n = {_n_scored(content.scores, metric)}) under every model that has a "
            "size of its own for each neuron, and the models of all neurons together at their one "
            "size. Large markers: medians, with the median's interval. Parameters as in the figure "
            "below, on a logarithmic axis.",
            plots.render_figure(
                plots.plot_pareto(
                    _sized(content, content.sizes, metric), metric=metric_label(metric),
                    median_ci=content.median_ci.get(metric),
                )
            ),
        )  # fmt: skip
    if content.parameters:
        yield ReportFigure(
            "parameters", "size", "Parameters",
            "Number of stored parameters on a logarithmic axis, the networks and layers below a "
            "readout included; for models of single neurons, that of the median model. "
            "A dash: not known. In colour: how many times fewer than the teacher has.",
            plots.render_figure(plots.plot_parameters(content.parameters)),
        )  # fmt: skip
    if content.filters is not None:
        yield ReportFigure(
            "filters_per_layer", "size", "Filters per layer",
            f"Each point is one compact model (n = {len(content.filters)}). Stages are counted "
            "as in the literature: the kernels of layer 0, the depthwise kernels of layers 1 to 4 "
            "(one for each map that enters the layer, so layers 0 and 1 agree), and the spatial "
            "readouts. Bars and figures: medians over models.",
            plots.render_figure(plots.plot_filters_per_layer(content.filters)),
        )  # fmt: skip


def _sized(
    content: ReportContent, sizes: pd.DataFrame, metric: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each model's parameters and scores, neuron by neuron."""
    rows = content.scores[content.scores["metric"] == metric]
    rows = rows.merge(sizes, how="left", on=["session", "neuron", "model"])
    of_all = rows["model"].map(content.parameters)
    rows["n_parameters"] = rows["n_parameters"].fillna(of_all)
    rows = rows[rows["n_parameters"].notna()]
    return {
        str(model): (part["n_parameters"].to_numpy(np.float64), part["value"].to_numpy(np.float64))
        for model, part in rows.groupby("model", sort=False)
    }


def _stimuli(content: ReportContent) -> Iterator[ReportFigure]:
    galleries, labels = list(content.galleries.items()), list(content.neuron_labels)
    notes = content.gallery_notes
    if len(galleries) == 2 and galleries[0][1].shape == galleries[1][1].shape and labels:
        (first, left), (second, right) = galleries
        told = " ".join(notes[name] for name in (first, second) if name in notes)
        yield ReportFigure(
            "stimuli", "stimuli", f"Preferred stimuli: {first} and {second}",
            f"For each of {len(labels)} neurons, left: {first}; right: {second}. Pixels are "
            f"shown as the model saw them. {told}",
            plots.render_figure(
                plots.figure_gallery_pairs(left, right, labels, labels=(first, second))
            ),
        )  # fmt: skip
        return
    for k, (name, images) in enumerate(galleries):
        if len(images):
            yield ReportFigure(
                f"stimuli_{k}", "stimuli", f"Preferred stimuli: {name}",
                f"One image for each of {len(images)} neurons. Pixels are shown as the model saw "
                f"them. {notes.get(name, '')}",
                plots.render_figure(plots.figure_gallery(images, labels)),
            )  # fmt: skip


def _tests(content: ReportContent) -> Iterator[ReportFigure]:
    notes = content.stimuli_notes
    if content.groups is not None and content.galleries:
        order, labels = content.groups
        name, images = next(iter(content.galleries.items()))
        yield ReportFigure(
            "population", "stimuli", f"The population by what it prefers: {name}",
            f"The {name} image of each of {len(images)} neurons, grouped without labels made by "
            "hand: average-linkage clustering of one minus the squared correlation between the "
            "compact models' responses; the number of groups has the largest mean silhouette. "
            f"{notes.get('groups', '')}",
            plots.render_figure(plots.figure_population_gallery(images, order, labels)),
        )  # fmt: skip
    if content.adversarial is not None:
        yield ReportFigure(
            "adversarial", "stimuli", "Adversarial images",
            "Random images of the bank changed a little, to lower (left) and to raise (right) a "
            f"compact model's response (n = {len(content.adversarial['labels'])} models, one image "
            f"each). {notes.get('adversarial', '')}",
            plots.render_figure(plots.figure_adversarial(**content.adversarial)),
        )  # fmt: skip
    if content.smoothed is not None:
        yield ReportFigure(
            "smoothed", "stimuli", "What drives a neuron within its preferred image",
            f"For each neuron (n = {len(content.smoothed['labels'])} shown) its strongest bank "
            "image, how smoothing a patch there changes the response of its compact model, the "
            "image with the patches smoothed that lower it most, and with random ones. "
            f"{notes.get('smoothed', '')}",
            plots.render_figure(plots.figure_saliency(**content.smoothed)),
        )  # fmt: skip
    if content.causal is not None:
        effects, population = content.causal
        yield ReportFigure(
            "causal", "stimuli", "Causal test: the neurons' own responses to these stimuli",
            "Change of each neuron's mean response, against random images of the bank and "
            "against the images that stimuli were made from; bars: mean over neurons and its "
            f"standard error (n = {_from_to(population['n_neurons'])} neurons a bar). "
            f"{notes.get('causal', '')}",
            plots.render_figure(plots.figure_causal(effects, population)),
        )  # fmt: skip


def _weights(content: ReportContent) -> Iterator[ReportFigure]:
    weights = content.weights
    if weights is not None:
        yield ReportFigure(
            "weights", "weights", f"All weights of one compact model: {weights.name}",
            "Layer 0: every kernel over red, green and blue, scaled by its own largest weight "
            "about mid grey (zero). Layers 1 to 4: depthwise kernels, then the pointwise weights "
            "that mix them, one row an output, one column a kernel, in the kernels' order. "
            "Readout: one weight a filter and position. Red excites, blue inhibits, white is "
            "zero; colours of one panel reach to the largest absolute weight, written above it. "
            "Biases and batch normalisation are not shown (n = 1 model).",
            plots.render_figure(plots.figure_weights(weights)),
        )  # fmt: skip


def _zoo(content: ReportContent) -> Iterator[ReportFigure]:
    for shown in content.zoo:
        yield ReportFigure(
            shown.name, "zoo", f"Networks ranked: {shown.name}",
            f"Left: scores of {len(shown.board.models)} networks under the honest protocol, with "
            "95 % intervals; dashed: noise ceiling, where it is known. Above: each layer by "
            "itself, on images it was not fitted to (RSA: on all images), dashed the mean of "
            "random twins; trained networks (blue, with intervals) beside every random twin "
            "(grey). Below: scores against properties, one point a network; ρ: Spearman's, with "
            "its interval over networks, where there are five or more.",
            plots.render_figure(
                plots.figure_zoo(shown.board, shown.curves, shown.pairs, shown.scatters)
            ),
        )  # fmt: skip


def _circuits(content: ReportContent) -> Iterator[ReportFigure]:
    if content.families is not None:
        yield ReportFigure(
            "families", "circuits", "Which family of drawn stimuli each model prefers",
            "Each compact model (n = "
            f"{sum(len(names) for names in content.families['names'].values())} shown) "
            "saw dots, edges, curves, textures and plain colours in its "
            "receptive field, in white and black and in the hue that drives it most. Below each "
            "stimulus: confidence (share of resamples of the stimuli that give the same family) "
            "times margin to the next family times response in standard deviations above bank "
            "images. Models that none drives by four, or without a receptive field, are left out.",
            plots.render_figure(plots.figure_families(**content.families)),
        )  # fmt: skip
    if content.family_scores is not None:
        known = np.nan_to_num(content.family_scores)
        yield ReportFigure(
            "family_scores", "circuits", "Every model's response to the best of each family",
            f"{len(known)} compact models; above grey, relative to the best of all families.",
            plots.render_figure(plots.plot_family_scores(known, list(content.family_names))),
        )  # fmt: skip
    if content.circuit is not None:
        yield ReportFigure(
            "circuit", "circuits", f"The circuit of {content.circuit['title']}",
            "The most convincing model: the smallest set of its filters, found greedily, that "
            "keeps 90 % of the variance of its responses to drawn stimuli when all other filters "
            "are replaced by their means. The text is written from the numbers.",
            plots.render_figure(plots.figure_circuit(**content.circuit)),
        )  # fmt: skip


def _stimuli_text(scores: pd.DataFrame) -> str:
    counts = sorted({int(n) for n in scores["n_stimuli"].dropna()})
    if not counts:
        return "stimuli of unknown number"
    least, most = counts[0], counts[-1]
    return f"{most:,} stimuli" if least == most else f"{least:,} to {most:,} stimuli"


def _n_scored(scores: pd.DataFrame, metric: str) -> int:
    """Return how many neurons have a score by a metric under some model."""
    known = scores[(scores["metric"] == metric) & scores["value"].notna()]
    return len(known[["session", "neuron"]].drop_duplicates())


def _from_to(counts: pd.Series) -> str:
    """Return a range of counts, one number if they are all the same."""
    least, most = int(counts.min()), int(counts.max())
    return f"{least}" if least == most else f"{least} to {most}"


def _left_out(scores: pd.DataFrame, models: list[str]) -> str:
    """Return a sentence on the missing scores of these models and their reasons."""
    missing = scores[scores["model"].isin(models) & scores["value"].isna()]
    if missing.empty:
        return ""
    affected: dict[tuple[str, int], list[str]] = {}
    for (reason, model), rows in missing.groupby(["reason", "model"], sort=False):
        affected.setdefault((str(reason), len(rows)), []).append(str(model))
    told = "; ".join(
        f"{n} neuron{'s' * (n != 1)} under {', '.join(names)} ({reason})"
        for (reason, n), names in affected.items()
    )
    return f"Not shown, having no score: {told}."
