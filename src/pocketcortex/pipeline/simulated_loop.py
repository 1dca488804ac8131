"""The closed loop on the in-silico cortex: what choosing images gains on drawing them at random."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pocketcortex.core import InputError, RunFolder, StimulusSet, provenance, read_array
from pocketcortex.data import InSilicoCortex, Neuron
from pocketcortex.metrics import pearson_r2
from pocketcortex.pipeline.loop_gain import gains, score_rows
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.simulated_lab import RidgeMembers, World, plain_bank, varied_bank
from pocketcortex.plots import plot_learning_curves, render_figure
from pocketcortex.stimuli import ChoiceConfig, choose_images

RANDOM = "random"
STRATEGIES = (RANDOM, "loop", "published loop", "diverse", "gaudy")
"""What chooses a session's images: ``loop`` a core set by disagreement of the images the members
disagree on most; ``published loop`` half of the session a core set by features among these, the
other half random; the others one arm alone."""

_DIVERSE_TOP = 2000  # random candidates of a diverse session
_TOP = 8  # candidates of high disagreement for each image to choose
_BATCH = 256


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
    animals share bank and test images, which may hold crops of one scene; the first session and the
    random draws are an animal's own.

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
        world = cache(lambda: _world(config, seed))  # made only if an animal is left to do
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
        n_images = config.n_first + config.n_images * np.arange(config.n_sessions + 1)
        score_rows(r2, STRATEGIES, n_images).to_parquet(folder.path / "scores.parquet", index=False)
        summary = gains(r2, STRATEGIES, reference=RANDOM, seed=seed)
        summary |= {"seed": seed, "n_images": n_images.tolist()}
        curves = {
            name: (np.array(e["r2"]), np.array(e["ci_low"]), np.array(e["ci_high"]))
            for name, e in summary["strategies"].items()
        }
        axes = plot_learning_curves(
            np.array(summary["n_images"]),
            curves,
            metric="r² with noise-free rates, mean of neurons",
        )
        (folder.path / "learning_curves.png").write_bytes(render_figure(axes).png)
        folder.write_json("summary.json", summary | {"provenance": provenance(seed)})
    return summary | {"figure": str(folder.path / "learning_curves.png")}


def _world(config: LoopConfig, seed: int) -> World:
    make = plain_bank if config.plain_bank else varied_bank
    images = make(config.n_bank + config.n_test, config.image_size, seed=seed)
    return World(images, config.n_test)


def _seed_of(folder: RunFolder) -> int:
    """Return the seed of an earlier call in this folder, or a new one."""
    try:
        return int(json.loads((folder.path / "config.json").read_text())["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return secrets.randbelow(2**31)


def _animal(
    world: World, config: LoopConfig, seed: int, animal: int
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
    if strategy == "published loop":
        half = n // 2
        return ChoiceConfig(half, n - half, n_top=_TOP * n, core="features")
    return ChoiceConfig(
        n_disagreement=n * (strategy == "loop"),
        n_random=n * (strategy == RANDOM),
        n_gaudy=n * (strategy == "gaudy"),
        n_diverse=n * (strategy == "diverse"),
        n_top=_DIVERSE_TOP if strategy == "diverse" else _TOP * n,
    )


def _strategy(
    world: World,
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
                predict_members=partial(_predict, world, learner), features=world.features,
            )  # fmt: skip
            new = chosen.stimuli
            shown = StimulusSet.concatenate([shown, new])
    return np.stack(scores)


def _predict(
    world: World, learner: RidgeMembers, stimuli: StimulusSet
) -> Float[np.ndarray, "n_members n_stimuli n_neurons"]:
    return learner.predict(world.features(stimuli))


def _rates(
    cortex: InSilicoCortex, stimuli: StimulusSet, neurons: Sequence[Neuron]
) -> Float[np.ndarray, "n_stimuli n_neurons"]:
    return np.concatenate([cortex.rates(batch, neurons) for batch in stimuli.batches(_BATCH)])
