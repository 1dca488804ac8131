"""One model explained: what it prefers, the circuit that makes it so, and how sure that is."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8

from pocketcortex.core import InputError
from pocketcortex.dissect.circuit import STAGES, Circuit, CircuitFilter, find_circuit
from pocketcortex.dissect.families import NONE
from pocketcortex.dissect.probes import FAMILIES, probes
from pocketcortex.dissect.tuning import Tuning, tune
from pocketcortex.models import CompactModel, PairedStack

_QUANTILES = (1.0, 0.97, 0.9, 0.75, 0.5, 0.25, 0.0)
_N_TOLD = 4


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one model does, and how.

    Attributes
    ----------
    name
        What the model is called.
    preference
        Its row of `Preferences.table`.
    tuning
        Its tuning.
    circuit
        The smallest set of filters found that keeps its selectivity.
    stimuli
        The drawn stimuli that the circuit was sought with, the preferred one first.
    probes
        One row a stimulus: family, shape and parameters.
    dots
        Its row of `dot_search`, if asked.
    """

    name: str
    preference: pd.Series
    tuning: Tuning
    circuit: Circuit
    stimuli: UInt8[np.ndarray, "n 3 h w"]
    probes: pd.DataFrame
    dots: pd.Series | None = None

    @property
    def text(self) -> str:
        """The explanation in sentences, written from the numbers alone."""
        parts = (
            self._preference(), self._dots(), self._tuning(), self._circuit(), self._roles(),
            self._doubts(),
        )  # fmt: skip
        return " ".join(part for part in parts if part)

    def detects(self, one: CircuitFilter) -> str:
        """Return in words which stimulus drives the map that a filter reads most."""
        row = self.probes.iloc[one.prefers]
        return probe_text(row)

    def _preference(self) -> str:
        row = self.preference
        if row["family"] == NONE:
            return f"{self.name} prefers none of the families: {row['reason']}."
        others = {name: row[f"score_{name}"] for name in FAMILIES if name != row["family"]}
        second = max(others, key=lambda name: others[name])
        return (
            f"{self.name} prefers {_WITH_ARTICLE[row['family']]} ({probe_text(row)}, in "
            f"{row['axis']}), {row['sd_above_mean']:.1f} standard deviations above its mean "
            f"response to images of the bank; the strongest other family, {second}, reaches "
            f"{100 * others[second] / max(row['score_' + row['family']], 1e-12):.0f} % of that. "
            f"{100 * row['confidence']:.0f} % of resamples of the probes give the same family."
        )

    def _dots(self) -> str:
        row = self.dots
        if row is None or not row["is_detector"]:
            return ""
        return (
            f"It is a dot detector: a {row['foreground']} dot of radius {row['radius_px']:.1f} px "
            f"on grey drives it {row['sd_above_mean']:.1f} standard deviations above its mean "
            f"response to images of the bank, and the largest dots give "
            f"{100 * (1 - row['selectivity']):.0f} % of that."
        )

    def _tuning(self) -> str:
        index = self.tuning.indices
        said = [
            f"its best dot has a radius of {index['preferred_radius_px']:.1f} pixels"
            + (
                f" and the largest dot gives {100 * (1 - index['size_selectivity']):z.0f} % of that"
                if np.isfinite(index["size_selectivity"]) else ""
            )
        ]  # fmt: skip
        if np.isfinite(index["number_gain"]):
            said.append(
                f"{self.tuning.numbers[-1]} dots give {index['number_gain']:.1f} times what one "
                "gives"
            )
        if np.isfinite(index["orientation_selectivity"]):
            said.append(
                f"its orientation selectivity is {index['orientation_selectivity']:.2f} and its "
                f"phase invariance {index['phase_invariance']:.2f}"
            )
        if np.isfinite(index["colour_selectivity"]):
            said.append(f"its colour selectivity is {index['colour_selectivity']:.2f}")
        return f"Tuning: {'; '.join(said)}."

    def _circuit(self) -> str:
        circuit = self.circuit
        counts = [sum(f.stage == stage for f in circuit.filters) for stage in range(len(STAGES))]
        return (
            f"{len(circuit.filters)} of its {circuit.n_filters} filters "
            f"({', '.join(f'{n} of {name}' for n, name in zip(counts, STAGES, strict=True))}) keep "
            f"{100 * circuit.kept_r2:.0f} % of the variance of its responses to drawn stimuli."
        )

    def _roles(self) -> str:
        said = []
        for role in ("excitatory", "inhibitory"):
            own = [f for f in self.circuit.filters if f.role == role]
            if not own:
                continue
            strongest = sorted(own, key=lambda f: -abs(f.effect))[:_N_TOLD]
            named = "; ".join(
                f"{STAGES[f.stage]} filter {f.number} ({f.kernel}; driven most by "
                f"{self.detects(f)}; {f.effect:+.1f} sd)" for f in strongest
            )  # fmt: skip
            said.append(f"{len(own)} are {role}, most of all {named}.")
        return " ".join(said)

    def _doubts(self) -> str:
        circuit = self.circuit
        return (
            f"The same search with each half of the stimuli keeps sets that overlap by "
            f"{100 * circuit.overlap:.0f} % (Jaccard index), and on images of the bank, which it "
            f"has not seen, the circuit keeps {100 * circuit.kept_r2_natural:.0f} % of the "
            "variance."
        )


_WITH_ARTICLE = {
    "dot": "a dot", "edge": "an edge", "curve": "a curve", "texture": "a texture",
    "colour": "a plain colour",
}  # fmt: skip


def probe_text(row: pd.Series) -> str:
    """Return a probe in words, from its row of a table of probes."""
    family, shape = row.get("shown", row["family"]), row["shape"]
    front = f", {row['foreground']} on {row['background']}" if "foreground" in row else ""
    if shape in ("disc", "ringed disc", "plain"):
        return f"{shape} of radius {row['radius_px']:.1f} px{front}"
    if shape == "grating":
        return (
            f"grating at {row['orientation_deg']:.0f}° with {row['cycles_per_image']:.0f} cycles "
            "per canvas"
        )
    bend = row["curvature_per_px"]
    curved = "straight" if bend == 0 else f"radius {1 / bend:.1f} px"
    return f"{family} ({shape}, {curved}, {row['direction_deg']:.0f}°{front})"


def explain(
    model: CompactModel,
    preference: pd.Series,
    natural: UInt8[np.ndarray, "n_natural 3 h w"],
    *,
    name: str,
    rng: np.random.Generator,
    keep_r2: float = 0.9,
    dots: pd.Series | None = None,
    device: str | torch.device = "cpu",
) -> Explanation:
    """Return one model explained: its tuning, and the circuit behind its preference.

    The circuit is sought with drawn stimuli of all families in the model's axis of colours, in
    the middle of its receptive field: for each family the one that drives it most and others down
    to the one that does so least.

    Parameters
    ----------
    model
        The compact model.
    preference
        Its row of `Preferences.table`.
    natural
        Natural images, for means and as a test of the circuit; 16 or so.
    name
        What to call the model.
    rng
        Source of the places of dots in number.
    keep_r2
        As for `find_circuit`.
    dots
        Its row of `dot_search`, to tell of; optional.
    device
        Where to compute.

    Raises
    ------
    InputError
        As for `tune` and `find_circuit`.
    """
    size = model.image_size[0]
    axis, at = str(preference["axis"]), (int(preference["x_px"]), int(preference["y_px"]))
    bank = probes(size, axis)
    shown = bank.at(*at)
    stack = PairedStack([model]).to(device)
    answers = stack.responses(torch.from_numpy(shown)[None].to(device))[0].double().cpu().numpy()
    chosen = _spread(answers, bank.table["family"], str(preference.get("preferred", FAMILIES[0])))
    stimuli = np.ascontiguousarray(shown[chosen])
    tuning = tune(
        model, (float(at[0]), float(at[1])), rng=rng, axis=axis,
        device=device,
    )  # fmt: skip
    circuit = find_circuit(model, stimuli, natural, keep_r2=keep_r2, device=device)
    table = bank.table.iloc[chosen].reset_index(drop=True)
    return Explanation(name, preference, tuning, circuit, stimuli, table, dots)


def _spread(answers: np.ndarray, families: pd.Series, preferred: str) -> list[int]:
    """Return stimuli from the strongest to the weakest of each family, the preferred one's first.

    Raises
    ------
    InputError
        If there is no such family.
    """
    if preferred not in FAMILIES:
        raise InputError(f"family {preferred!r} must be one of {', '.join(FAMILIES)}")
    chosen: list[int] = []
    for family in (preferred, *(name for name in FAMILIES if name != preferred)):
        own = np.flatnonzero(families == family)
        ranked = own[np.argsort(answers[own], kind="stable")]
        places = np.round(np.array(_QUANTILES) * (len(own) - 1)).astype(int)
        chosen += ranked[np.unique(places)[::-1]].tolist()  # few have fewer than quantiles
    return chosen
