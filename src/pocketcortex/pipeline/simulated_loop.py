"""The closed loop on the in-silico cortex: what choosing images gains on drawing them at random."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from pocketcortex.core import InputError, RunFolder, StimulusSet, provenance, read_array
from pocketcortex.data import InSilicoCortex, Neuron, dead_leaves, dead_leaves_bank
from pocketcortex.mapping import RidgeFit, fit_ridge_loo, predict_ridge, ridge_coefficients
from pocketcortex.metrics import pearson_r2
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.plots import plot_learning_curves, render_figure
from pocketcortex.stimuli import ChoiceConfig, choose_images
from pocketcortex.zoo import Backbone, filter_bank

LEVEL = 0.9
"""Of all intervals."""

RANDOM = "random"
STRATEGIES = (RANDOM, "loop", "published loop", "diverse", "gaudy")
"""What chooses a session's images: ``loop`` a core set by disagreement of the images the members
disagree on most; ``published loop`` half of the session a core set by features among these, the
other half random; the others one arm alone."""

_N_RESAMPLES = 2000
_ZOOM = 3  # side of a scene in images; a crop shows between 1 and 1 / 3 of it
_CROPS = 4  # of a scene
_LEAST_CONTRAST = 0.08
_TOP = 8  # candidates of high disagreement for each image to choose
_SHARE = 2 / 3  # of the images, that a member is fitted to
_BATCH = 256
_SCALE_FLOOR = 1e-3


@dataclass(frozen=True)
class LoopConfig:
    """Size of the experiment.

    Attributes
    ----------
    n_animals
        Animals, each with neurons and a first session of its own.
    n_neurons
        Neurons of an animal, recorded in all sessions.
    n_sessions
        Sessions whose images are chosen, after the first.
    n_first
        Random images of the first session, the same for all strategies.
    n_images
        Images of each later session.
    n_repeats
        Repeats of every image.
    n_members
        Learners that may disagree.
    n_bank
        Images to choose from.
    n_test
        Images, of the same kind and drawn at random, that no session shows.
    image_size
        Height and width in pixels.
    plain_bank
        Dead leaves as they are, in place of crops of varying contrast: few are dull, so that there
        is less to gain.

    Raises
    ------
    InputError
        If a number is too small, or the bank for the sessions.
    """

    n_animals: int = 16
    n_neurons: int = 25
    n_sessions: int = 4
    n_first: int = 60
    n_images: int = 100
    n_repeats: int = 2
    n_members: int = 6
    n_bank: int = 4400
    n_test: int = 600
    image_size: int = 32
    plain_bank: bool = False

    def __post_init__(self) -> None:
        least = {"n_animals": 2, "n_members": 2, "n_first": 10, "n_test": 10, "image_size": 32}
        for name, value in asdict(self).items():
            if name != "plain_bank" and value < least.get(name, 1):
                raise InputError(f"{name} must be {least.get(name, 1)} or more; got {value}")
        needed = self.n_first + self.n_sessions * self.n_images
        if self.n_bank < 2 * needed:
            raise InputError(
                f"n_bank = {self.n_bank} leaves little to choose from for {needed} images to show; "
                f"let it be {2 * needed} or more"
            )


def simulate_loop(
    config: LoopConfig | None = None, *, out: str | Path, seed: int | None = None
) -> dict[str, Any]:
    """Run the closed loop on simulated animals and return how much it gains on random images.

    For each animal and strategy the same neurons are recorded in one first session of random
    images and then in sessions of chosen ones. After each session the learner is fitted to all
    that was recorded, and its mean over members is scored on images it was never shown, by r²
    with the neurons' noise-free rates. The learner is an ensemble of ridge regressions from the
    filter bank's features, standardized over the bank, each fitted to a random two thirds of
    the images, its penalty chosen by leaving images out.

    The bank is made to vary as photographs do: crops of dead-leaves scenes from wide to close,
    with contrast factors log-uniform between 0.08 and 1, so that many images are dull. All
    animals share bank and test images; the first session and the random draws are an animal's own.

    Each animal is a stage of the folder, so a killed call goes on.

    Parameters
    ----------
    config
        Size of the experiment; None for the defaults.
    out
        Folder for ``scores.parquet`` (animal, strategy, session, n_images, neuron, r2),
        ``summary.json`` and ``learning_curves.png``.
    seed
        Decides bank, animals and noise, 0 or more; None for that of the folder's earlier call, or
        a new one.

    Returns
    -------
    The content of ``summary.json``: for each strategy the mean r² over neurons after each session,
    its gain on random images (paired, neuron by neuron), both with 90 % bootstrap intervals over
    animals and neurons within animals, and whether the intervals of the two means are apart.

    Raises
    ------
    InputError
        If the configuration or the seed is out of range.
    """
    config = config or LoopConfig()
    if seed is not None and seed < 0:
        raise InputError(f"seed must be 0 or more; got {seed}")
    folder = RunFolder(out)
    with folder.locked():
        seed = _seed_of(folder) if seed is None else seed
        folder.write_json("config.json", asdict(config) | {"seed": seed})
        world = cache(lambda: _World(config, seed))  # made only if an animal is left to do
        settings = {n: v for n, v in asdict(config).items() if n != "n_animals"} | {"seed": seed}
        tables = []
        with progress_bar("animals", config.n_animals) as advance:
            for animal in range(config.n_animals):

                def work(stage: Path, animal: int = animal) -> None:
                    np.save(stage / "r2.npy", _animal(world(), config, seed, animal))

                name = f"animal_{animal:03d}"
                path, _skipped = folder.stage(name, settings | {"animal": animal}, work)
                tables.append(read_array(path / "r2.npy"))
                advance(1)
        r2 = np.stack(tables)  # (animals, strategies, sessions, neurons)
        summary = summarize(r2, config, seed)
        _table(r2, config).to_parquet(folder.path / "scores.parquet", index=False)
        curves = {
            name: tuple(np.array(entry[part]) for part in ("r2", "ci_low", "ci_high"))
            for name, entry in summary["strategies"].items()
        }
        axes = plot_learning_curves(
            np.array(summary["n_images"]),
            curves,
            metric="r² with noise-free rates, mean of neurons",
        )
        (folder.path / "learning_curves.png").write_bytes(render_figure(axes).png)
        folder.write_json("summary.json", summary | {"provenance": provenance(seed)})
    return summary | {"figure": str(folder.path / "learning_curves.png")}


def _seed_of(folder: RunFolder) -> int:
    """Return the seed of an earlier call in this folder, or a new one."""
    try:
        return int(json.loads((folder.path / "config.json").read_text())["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return secrets.randbelow(2**31)


def varied_bank(n: int, size: int, *, seed: int) -> StimulusSet:
    """Return `n` images as unlike one another as photographs: near and far, vivid and dull."""
    scenes = dead_leaves_bank(-(-n // _CROPS), size * _ZOOM, seed)
    images = scenes.crops(_CROPS, size, seed=seed).take(np.arange(n)).images().astype(np.float64)
    rng = np.random.default_rng([seed, 0])
    contrast = np.exp(rng.uniform(np.log(_LEAST_CONTRAST), 0.0, n))[:, None, None, None]
    mean = images.mean(axis=(2, 3), keepdims=True)
    dulled = (mean + contrast * (images - mean)).round().clip(0, 255).astype(np.uint8)
    order = rng.permutation(n)  # crops of one scene lie apart
    return StimulusSet.from_array(dulled[order])


def _plain_bank(n: int, size: int, seed: int) -> StimulusSet:
    return StimulusSet.from_array(dead_leaves(n, size=size, seed=seed))


class _World:
    """The bank and the test images, with their features, standardized over the bank."""

    def __init__(self, config: LoopConfig, seed: int) -> None:
        n, size = config.n_bank + config.n_test, config.image_size
        plain = config.plain_bank
        images = _plain_bank(n, size, seed) if plain else varied_bank(n, size, seed=seed)
        self.test = images.take(slice(0, config.n_test))
        self.bank = images.take(slice(config.n_test, None))
        self.backbone = Backbone(filter_bank(), "maps")
        raw = self._raw(self.bank)
        self.mean = raw.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.scale = raw.std(axis=0, dtype=np.float64).astype(np.float32) + _SCALE_FLOOR
        self.rows = (raw - self.mean) / self.scale
        self.place = {digest: k for k, digest in enumerate(self.bank.digests)}
        self.test_rows = (self._raw(self.test) - self.mean) / self.scale

    def features(self, stimuli: StimulusSet) -> Float[np.ndarray, "n_stimuli n_features"]:
        """Return features of images, looked up where they are the bank's."""
        places = [self.place.get(digest) for digest in stimuli.digests]
        if None not in places:
            return np.asarray(self.rows[places])
        return (self._raw(stimuli) - self.mean) / self.scale

    def _raw(self, stimuli: StimulusSet) -> Float[np.ndarray, "n_stimuli n_features"]:
        parts = [
            self.backbone(torch.from_numpy(images)).flatten(1).numpy()
            for images in stimuli.batches(_BATCH)
        ]
        return np.concatenate(parts)


class RidgeMembers:
    """Ridge regressions from features to responses, each fitted to two thirds of the images.

    Parameters
    ----------
    features, responses
        Of the images recorded; responses are z-scored for the fit, and so are predictions.
    n_members
        How many.
    rng
        Draws the samples.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "n_stimuli n_features"],
        responses: Float[np.ndarray, "n_stimuli n_neurons"],
        n_members: int,
        rng: np.random.Generator,
    ) -> None:
        sd = responses.std(axis=0)
        targets = (responses - responses.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
        self._maps: list[tuple[np.ndarray, RidgeFit]] = []
        for _ in range(n_members):
            drawn = np.sort(rng.permutation(len(features))[: round(_SHARE * len(features))])
            fit = fit_ridge_loo(features[drawn], targets[drawn])
            self._maps.append((ridge_coefficients(features[drawn], fit), fit))

    def predict(
        self, features: Float[np.ndarray, "n_stimuli n_features"]
    ) -> Float[np.ndarray, "n_members n_stimuli n_neurons"]:
        """Return each member's predictions, in standard deviations of the recorded responses."""
        return np.stack([predict_ridge(features, w, fit) for w, fit in self._maps])


def _animal(
    world: _World, config: LoopConfig, seed: int, animal: int
) -> Float[np.ndarray, "n_strategies n_sessions n_neurons"]:
    """Return r² of one animal's neurons under every strategy, after the first session and on."""
    rng = np.random.default_rng([seed, 1, animal])
    cortex = InSilicoCortex(int(rng.integers(2**31)), config.image_size)
    neurons = cortex.sample_neurons(config.n_neurons, rng=rng)
    first = np.sort(rng.choice(len(world.bank), config.n_first, replace=False))
    truth = _rates(cortex, world.test, neurons)
    return np.stack([
        _strategy(
            world, config, cortex, neurons, world.bank.take(first), truth,
            choice_of(strategy, config.n_images), [seed, 2, animal],
        )
        for strategy in STRATEGIES
    ])  # fmt: skip


def choice_of(strategy: str, n: int) -> ChoiceConfig:
    """Return how a strategy chooses `n` images.

    Raises
    ------
    InputError
        If there is no such strategy.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
    counts = {"n_disagreement": 0, "n_random": 0, "n_gaudy": 0, "n_diverse": 0}
    if strategy == "published loop":
        counts |= {"n_disagreement": n // 2, "n_random": n - n // 2}
        return ChoiceConfig(**counts, n_top=_TOP * n, core="features")
    arm = "disagreement" if strategy == "loop" else strategy
    counts[f"n_{arm}"] = n
    return ChoiceConfig(**counts, n_top=2000 if arm == "diverse" else _TOP * n)


def _strategy(
    world: _World,
    config: LoopConfig,
    cortex: InSilicoCortex,
    neurons: Sequence[Neuron],
    first: StimulusSet,
    truth: Float[np.ndarray, "n_test n_neurons"],
    choice: ChoiceConfig,
    seeds: list[int],
) -> Float[np.ndarray, "n_sessions n_neurons"]:
    """Record, learn, choose, record, ...; return r² of every neuron after each session."""
    shown, new = first, first
    features: list[np.ndarray] = []
    responses: list[np.ndarray] = []
    scores = []
    for session in range(config.n_sessions + 1):
        rng = np.random.default_rng([*seeds, session])
        recorded = cortex.record(new, neurons, n_repeats=config.n_repeats, rng=rng, id=str(session))
        features.append(world.features(new))
        responses.append(recorded.mean_responses)
        learner = RidgeMembers(
            np.concatenate(features), np.concatenate(responses), config.n_members, rng
        )
        scores.append(pearson_r2(truth, learner.predict(world.test_rows).mean(axis=0)))
        if session < config.n_sessions:
            chosen = choose_images(
                world.bank, choice, seed=int(rng.integers(2**31)), shown=shown,
                predict_members=lambda s, own=learner: own.predict(world.features(s)),
                features=world.features,
            )  # fmt: skip
            new = chosen.stimuli
            shown = StimulusSet.concatenate([shown, new])
    return np.stack(scores)


def summarize(
    r2: Float[np.ndarray, "n_animals n_strategies n_sessions n_neurons"],
    config: LoopConfig,
    seed: int,
) -> dict[str, Any]:
    """Return means, gains on random images and intervals as a JSON object.

    A neuron without a score under any strategy after any session (a constant prediction) is left
    out of all.
    """
    known = np.isfinite(r2).all(axis=(1, 2))  # (animals, neurons)
    random = r2[:, STRATEGIES.index(RANDOM)]
    n_images = config.n_first + config.n_images * np.arange(config.n_sessions + 1)
    strategies: dict[str, Any] = {}
    for k, name in enumerate(STRATEGIES):
        rng = np.random.default_rng([seed, 3])  # the same resamples for all
        mean, low, high = animal_ci(r2[:, k], known, rng)
        rng = np.random.default_rng([seed, 3])
        gain, gain_low, gain_high = animal_ci(r2[:, k] - random, known, rng)
        strategies[name] = {
            "r2": mean.tolist(), "ci_low": low.tolist(), "ci_high": high.tolist(),
            "gain": gain.tolist(), "gain_ci_low": gain_low.tolist(),
            "gain_ci_high": gain_high.tolist(),
        }  # fmt: skip
    reference = strategies[RANDOM]
    for entry in strategies.values():
        entry["apart_from_random"] = [
            low > other for low, other in zip(entry["ci_low"], reference["ci_high"], strict=True)
        ]
    return {
        "seed": seed,
        "level": LEVEL,
        "n_animals": config.n_animals,
        "n_neurons": int(known.sum()),
        "n_left_out": int((~known).sum()),
        "n_images": n_images.tolist(),
        "strategies": strategies,
        "best": max(strategies, key=lambda name: strategies[name]["r2"][-1]),
    }


def animal_ci(
    values: Float[np.ndarray, "n_animals n_sessions n_neurons"],
    known: Bool[np.ndarray, "n_animals n_neurons"],
    rng: np.random.Generator,
) -> tuple[
    Float[np.ndarray, " n_sessions"],
    Float[np.ndarray, " n_sessions"],
    Float[np.ndarray, " n_sessions"],
]:
    """Return the mean over all known neurons and its 90 % percentile interval.

    Animals are resampled, and within each the neurons: what other animals with other neurons
    would give. The bank and the test images stay the same.
    """
    weights = known.astype(np.float64)
    mean = np.einsum("asn,an->s", np.where(known[:, None], values, 0.0), weights) / weights.sum()
    n_animals, n_neurons = known.shape
    resampled = []
    for _ in range(_N_RESAMPLES):
        animals = rng.integers(n_animals, size=n_animals)
        neurons = rng.integers(n_neurons, size=(n_animals, n_neurons))
        drawn = values[animals[:, None], :, neurons]  # (animals, neurons, sessions)
        kept = known[animals[:, None], neurons]
        resampled.append(drawn[kept].mean(axis=0))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return mean, low, high


def _table(r2: np.ndarray, config: LoopConfig) -> pd.DataFrame:
    axes = [range(n) for n in r2.shape]
    index = pd.MultiIndex.from_product(axes, names=["animal", "strategy", "session", "neuron"])
    table = pd.DataFrame({"r2": r2.ravel()}, index=index).reset_index()
    table["strategy"] = [STRATEGIES[k] for k in table["strategy"]]
    table["n_images"] = config.n_first + config.n_images * table["session"]
    return table


def _rates(
    cortex: InSilicoCortex, stimuli: StimulusSet, neurons: Sequence[Neuron]
) -> Float[np.ndarray, "n_stimuli n_neurons"]:
    return np.concatenate([cortex.rates(batch, neurons) for batch in stimuli.batches(_BATCH)])
