"""One causal test session: all stimuli that test a set of models, with their roles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64, UInt8

from pocketcortex.core import InputError, StimulusSet, in_brief, read_array
from pocketcortex.metrics import StimulusRoles
from pocketcortex.models import CompactModel
from pocketcortex.stimuli import (
    adversarial,
    random_perturbation,
    randomly_smoothed,
    search_bank,
    smooth_minus,
    synthesize,
)


@dataclass(frozen=True)
class CausalCounts:
    """How many stimuli of each role one session shows; 0 leaves a role out.

    Attributes
    ----------
    n_random
        Random natural images, shown for all models; 2 or more.
    n_natural
        Maximizing natural images of each model, and as many minimizing ones.
    n_synthesized
        Synthesized maximizing images of each model.
    n_synthesis_steps
        Steps of each synthesis.
    n_adversarial
        Random images changed for each model, to raise its response, to lower it, and at random by
        as much as to raise it; at most `n_random`. With 5 no single neuron's p can be below 0.06.
    budget
        Root mean square size of those changes in levels (of 255).
    n_smoothed
        Maximizing natural images of each model smoothed where it lowers its response most, and at
        random; at most `n_natural`.
    n_patches
        Patches smoothed in an image.

    Raises
    ------
    InputError
        If a number is below its least or above its most.
    """

    n_random: int = 200
    n_natural: int = 10
    n_synthesized: int = 10
    n_synthesis_steps: int = 1000
    n_adversarial: int = 10
    budget: float = 4.0
    n_smoothed: int = 10
    n_patches: int = 25

    def __post_init__(self) -> None:
        least = {"n_random": 2, "n_synthesis_steps": 1, "n_patches": 1}
        for field in fields(self):
            value = getattr(self, field.name)
            if value < least.get(field.name, 0):
                raise InputError(
                    f"{field.name} must be at least {least.get(field.name, 0)}; got {value}"
                )
        for made, of in (("n_adversarial", "n_random"), ("n_smoothed", "n_natural")):
            if getattr(self, made) > getattr(self, of):
                raise InputError(
                    f"{made} = {getattr(self, made)} images are made from {of} = "
                    f"{getattr(self, of)}; raise {of} or lower {made}"
                )

    def n_stimuli(self, n_models: int) -> int:
        """Return the number of stimuli of a session for that many models."""
        own = 2 * self.n_natural + self.n_synthesized
        return self.n_random + n_models * (own + 3 * self.n_adversarial + 2 * self.n_smoothed)


@dataclass(frozen=True, eq=False)
class CausalSession:
    """The stimuli of one causal test session, each with its role.

    Attributes
    ----------
    stimuli
        The images, named by role, model and number.
    roles
        The role of each; targets are places in the list of models.
    bank_positions
        Where in the bank each image is; -1 for images made here.
    """

    stimuli: StimulusSet
    roles: StimulusRoles
    bank_positions: Int64[np.ndarray, " n_stimuli"]

    def save(self, folder: Path) -> None:
        """Write ``images.npy`` and ``roles.parquet`` into a folder that exists."""
        np.save(folder / "images.npy", self.stimuli.images())
        table = self.roles.to_table()
        table["name"] = list(self.stimuli.names)
        table["bank_position"] = self.bank_positions
        table["n_targets"] = self.roles.n_targets
        table.to_parquet(folder / "roles.parquet", index=False)

    @classmethod
    def load(cls, folder: Path) -> "CausalSession":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If a file is missing, damaged, or not of a causal session.
        """
        try:
            table = pd.read_parquet(folder / "roles.parquet")
            images = read_array(folder / "images.npy")
            roles = StimulusRoles.from_table(table, n_targets=int(table["n_targets"].iloc[0]))
            stimuli = StimulusSet.from_array(images, table["name"].tolist())
            return cls(stimuli, roles, table["bank_position"].to_numpy(np.int64))
        except InputError:
            raise
        except Exception as error:  # a damaged parquet file raises almost anything
            raise InputError(
                f"{folder} does not hold a causal session ({in_brief(error)}); expected "
                "roles.parquet and images.npy as CausalSession.save writes them"
            ) from error


def make_causal_session(
    models: Sequence[CompactModel],
    bank: StimulusSet,
    *,
    counts: CausalCounts | None = None,
    seed: int,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> CausalSession:
    """Return all stimuli of one causal test session for these models, with their roles.

    First the random images are drawn from the bank, so that nothing but chance decides which they
    are; maximizing and minimizing images are searched in the rest of the bank, so no image has both
    roles. Adversarial images, of either direction and random (``perturbed``), start from the first
    of the random images, the same for all models, and images are smoothed that drive their model
    most among natural ones: random images leave little to lower. Smoothed patches have the size
    relative to the image that they have by default in images of 112 pixels.

    An image that is among the best of two models comes twice, once for each.

    Parameters
    ----------
    models
        Compact models for images of one size. Model k is target k.
    bank
        Natural images of that size, none of them among those that neurons are matched by.
    counts
        How many of each role; by default as in `CausalCounts`.
    seed
        Decides everything random, 0 or more.
    device
        Where to compute.
    advance
        Called with the number of stimuli just made, of `CausalCounts.n_stimuli` in all.

    Raises
    ------
    InputError
        If there is no model, the bank has too few different images or another size than the
        models, `seed` is negative, or as the functions of `stimuli` raise it.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 2 and Ext. Data 4: the roles. From which images
    adversarial and smoothed ones are made is not stated there, and is our choice, as are the
    numbers.
    """
    counts = CausalCounts() if counts is None else counts
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    if not models:
        raise InputError("a causal session needs at least one model to test, got none")
    if len(bank) <= counts.n_random + 2 * counts.n_natural:
        raise InputError(
            f"the bank has {len(bank)} images, too few for {counts.n_random} random ones and "
            f"{counts.n_natural} maximizing and minimizing ones among the rest"
        )
    order = np.random.default_rng([seed, 0]).permutation(len(bank))
    random, rest = order[: counts.n_random], np.sort(order[counts.n_random :])
    parts = _Parts(len(models), advance)
    parts.add_random(bank.read(random), random)
    if counts.n_natural:
        found = search_bank(models, bank.take(rest), counts.n_natural, device=device)
        for role, best in (("natural_max", found.strongest), ("natural_min", found.weakest)):
            if (best.positions < 0).any():
                raise InputError(
                    f"the bank has too few different images: a model has {best.n_found.min()} of "
                    f"role {role}, not {counts.n_natural}; use a larger bank"
                )
            positions = rest[best.positions.T]  # (n_models, n)
            images = np.stack([bank.read(own) for own in positions])
            parts.add(role, images, positions=positions)
    if counts.n_synthesized:
        made = synthesize(
            models, n_starts=counts.n_synthesized, n_steps=counts.n_synthesis_steps, seed=seed,
            device=device,
        )  # fmt: skip
        parts.add("synthesized_max", made.images)
    if counts.n_adversarial:
        _add_adversarial(parts, models, counts, seed, device)
    if counts.n_smoothed:
        _add_smoothed(parts, models, counts, seed, device)
    return parts.session()


class _Parts:
    """The stimuli made so far, role by role."""

    def __init__(self, n_models: int, advance: Callable[[int], None]) -> None:
        self.n_models = n_models
        self.advance = advance
        self.n = 0
        self.images: list[np.ndarray] = []
        self.tables: list[pd.DataFrame] = []
        self.rows: dict[str, np.ndarray] = {}  # of each role, (n_models, n); random ones alike
        self.made: dict[str, np.ndarray] = {}

    def add_random(
        self, images: UInt8[np.ndarray, "n 3 h w"], positions: Int64[np.ndarray, " n"]
    ) -> None:
        """Add random images, shown for all models."""
        n = len(images)
        table = {"role": "random", "target": -1, "base": -1, "position": positions}
        names = [f"random_{k:04d}" for k in range(n)]
        self.rows["random"] = np.broadcast_to(np.arange(n), (self.n_models, n))
        self.made["random"] = np.broadcast_to(images, (self.n_models, *images.shape))
        self._append(images, pd.DataFrame(table | {"name": names}))

    def add(
        self,
        role: str,
        images: UInt8[np.ndarray, "n_models n 3 h w"],
        *,
        positions: Int64[np.ndarray, "n_models n"] | None = None,
        bases: Int64[np.ndarray, "n_models n"] | None = None,
    ) -> None:
        """Add images of one role, some for each model."""
        shape = images.shape[:2]
        none = np.full(shape, -1)
        model, number = (index.ravel() for index in np.indices(shape))
        table = {
            "role": role,
            "target": model,
            "base": (none if bases is None else bases).ravel(),
            "position": (none if positions is None else positions).ravel(),
            "name": [f"{role}_{k:04d}_{i:02d}" for k, i in zip(model, number, strict=True)],
        }
        self.rows[role] = self.n + np.arange(model.size).reshape(shape)
        self.made[role] = images
        self._append(images.reshape(-1, *images.shape[2:]), pd.DataFrame(table))

    def session(self) -> CausalSession:
        """Return everything added, in order."""
        table = pd.concat(self.tables, ignore_index=True)
        stimuli = StimulusSet.from_array(np.concatenate(self.images), table["name"].tolist())
        roles = StimulusRoles.from_table(table, n_targets=self.n_models)
        return CausalSession(stimuli, roles, table["position"].to_numpy(np.int64))

    def _append(self, images: np.ndarray, table: pd.DataFrame) -> None:
        self.images.append(images)
        self.tables.append(table)
        self.n += len(images)
        self.advance(len(images))


def _add_adversarial(
    parts: _Parts,
    models: Sequence[CompactModel],
    counts: CausalCounts,
    seed: int,
    device: str | torch.device,
) -> None:
    """Add adversarial images of both directions and randomly perturbed ones."""
    base = np.ascontiguousarray(parts.made["random"][:, : counts.n_adversarial])
    rows = parts.rows["random"][:, : counts.n_adversarial]
    raised, lowered = (
        adversarial(models, base, direction=direction, budget=counts.budget, device=device)
        for direction in ("raise", "lower")
    )
    control = random_perturbation(
        models, raised, n_draws=1, rng=np.random.default_rng([seed, 1]), device=device
    )
    parts.add("adversarial+", raised.images, bases=rows)
    parts.add("adversarial-", lowered.images, bases=rows)
    parts.add("perturbed", control.images[0], bases=rows)


def _add_smoothed(
    parts: _Parts,
    models: Sequence[CompactModel],
    counts: CausalCounts,
    seed: int,
    device: str | torch.device,
) -> None:
    """Add maximizing natural images smoothed on purpose and at random."""
    base = parts.made["natural_max"][:, : counts.n_smoothed]
    rows = parts.rows["natural_max"][:, : counts.n_smoothed]
    patches = counts.n_patches
    lowered = smooth_minus(models, base, n_patches=patches, device=device)
    control = randomly_smoothed(
        models, base, n_draws=1, rng=np.random.default_rng([seed, 2]), n_patches=patches,
        device=device,
    )  # fmt: skip
    parts.add("smooth-", lowered.images, bases=rows)
    parts.add("smoothed_randomly", control.images[0], bases=rows)
