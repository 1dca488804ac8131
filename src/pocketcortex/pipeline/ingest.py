"""The closed loop, its second half: a recorded session checked, kept and scored."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pocketcortex.core import InputError, Session, read_array, read_arrays
from pocketcortex.data import read_npz, read_recordings
from pocketcortex.metrics import bootstrap_median_ci, noise_corrected_r2, pearson_r2
from pocketcortex.models import EnsembleMember
from pocketcortex.pipeline.chain import opened_teachers
from pocketcortex.pipeline.progress import say
from pocketcortex.pipeline.proposals import Proposal, read_proposal
from pocketcortex.pipeline.scores import NOISE_CORRECTED, R2
from pocketcortex.pipeline.stages import Stages
from pocketcortex.pipeline.teacher import MappedTeacher, map_teacher
from pocketcortex.training import SessionFeatures

SAME, MAPPED = "same neurons", "cross-validated map"
_MIN_IMAGES = 10
"""Images an arm, or a session that needs a map, must have to be scored."""


def ingest(
    proposal: str | Path,
    responses: str | Path,
    recordings: str | Path,
    *,
    session: str,
    role: str = "train",
    animal: str | None = None,
    bin_ms: float | None = None,
    run: str | Path | None = None,
    same_as: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Take the recorded responses to a proposal in as one more session of some recordings.

    Images and responses are checked against each other, ``SESSION.npz`` is written into
    `recordings`, as `pocketcortex.data.read_recordings` reads it, and beside it
    ``SESSION.images.csv`` with each image's arm. `fit_ensemble` over the same recordings then
    trains with it. What went in before is recognised and left as it is.

    Parameters
    ----------
    proposal
        Folder that `propose` wrote.
    responses
        ``.npy``: ``(n_images, n_repeats, n_neurons)``, images in the manifest's order, NaN where a
        repeat was not shown. ``.npz``: the same as ``responses``, and the file name of each row as
        ``names`` where the order is another.
    recordings
        A folder of ``.npz`` sessions; made if missing.
    session
        Name of the new session.
    role, animal, bin_ms
        As for `pocketcortex.core.Session`.
    run
        Folder of the teacher that is to predict the session as it is, before it is trained again;
        None for none.
    same_as
        Test session of the run whose neurons these are again, in its order: then its map predicts
        them, and nothing of the new session is fitted. None: maps from the members' embeddings are
        fitted to the new session's neurons, and predict images that they did not see.
    seed
        Of the bootstrap.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    What went in, the neurons that cannot be used with the reason, and, with `run`, the median r²
    of each arm: ``before_retraining``.

    Raises
    ------
    InputError
        If images are missing or changed, responses do not fit them, no neuron can be used, the
        recordings have another session of that name or images of another size.
    """
    shown = read_proposal(proposal)
    if not session or any(sign in session for sign in "/\\\x00") or session.startswith("."):
        raise InputError(f"session {session!r} cannot be a file's name; use letters and numbers")
    counts = _in_order(Path(responses), shown)
    new = Session(session, counts, shown.stimuli, animal=animal, role=role, bin_ms=bin_ms)
    unusable = _unusable(new, shown)
    target = Path(recordings) / f"{session}.npz"
    result: dict[str, Any] = {
        "session": session,
        "file": str(target),
        "n_images": new.n_stimuli,
        "n_neurons": new.n_neurons,
        "n_repeats": new.n_repeats,
        "arms": shown.summary(proposal)["arms"],
        "unusable_neurons": {str(k): why for k, why in unusable.items()},
        "before_retraining": None,
    }
    if run is not None:
        with opened_teachers(run, device=device) as (stages, teachers, _digest):
            result["before_retraining"] = _predicted(
                stages, teachers, new, sorted(unusable), shown, same_as, seed
            )
    _keep(new, shown, target)
    return result


def _in_order(path: Path, shown: Proposal) -> Float[np.ndarray, "n_images n_repeats n_neurons"]:
    """Return recorded responses in the order of the manifest."""
    files = [str(name) for name in shown.images["file"]]
    names = files
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        if "responses" not in arrays:
            raise InputError(
                f"{path} holds no array `responses`, but {', '.join(arrays) or 'nothing'}"
            )
        found = arrays["responses"]
        if "names" in arrays:
            names = [str(name) for name in arrays["names"].ravel()]
    elif path.suffix == ".npy":
        found = read_array(path)
    else:
        raise InputError(f"responses must be a .npy or .npz file; got {path}")
    if found.ndim != 3 or found.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: responses must be numbers (n_images, n_repeats, n_neurons); got "
            f"{found.dtype} of shape {found.shape}"
        )
    if len(found) != len(names):
        turned = " (the last axis is that long: turn the axes round)"
        hint = turned if found.shape[2] == len(names) else ""
        raise InputError(
            f"{path}: {len(found)} rows of responses for {len(names)} images{hint}; give one row "
            "for each image shown"
        )
    if sorted(names) != sorted(files):
        unknown = sorted(set(names) - set(files))
        missing = sorted(set(files) - set(names))
        raise InputError(
            f"{path}: names must be the manifest's {len(files)} files, each once; unknown: "
            f"{unknown[:3]}, missing: {missing[:3]}, given: {len(names)}"
        )
    place = {name: k for k, name in enumerate(names)}
    return np.asarray(found[[place[name] for name in files]], dtype=np.float64)


def _unusable(new: Session, shown: Proposal) -> dict[int, str]:
    """Return neurons that cannot be used, with the reason; refuse a session of these alone."""
    silent = np.isnan(new.responses).all(axis=(1, 2))
    if silent.any():
        first = shown.images["file"].iloc[int(silent.argmax())]
        raise InputError(
            f"session {new.id}: {int(silent.sum())} images have no response of any neuron, such "
            f"as {first}; record them, or propose again"
        )
    missing = np.isnan(new.mean_responses).sum(axis=0)
    reasons = {int(k): f"no response to {missing[k]} images" for k in np.flatnonzero(missing)}
    reasons |= new.unusable_neurons()
    if len(reasons) == new.n_neurons:
        raise InputError(f"no neuron of session {new.id} can be used: {reasons}")
    return dict(sorted(reasons.items()))


def _keep(new: Session, shown: Proposal, target: Path) -> None:
    """Write the session among its recordings, unless it is there."""
    folder = target.parent
    if folder.is_dir() and any(folder.iterdir()) and not any(folder.glob("*.npz")):
        raise InputError(
            f"{folder} is not empty and holds no .npz session; give a folder of such sessions, or "
            "a new one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    table = shown.images.assign(session=new.id)
    if target.exists():
        if not _equal(read_npz(target), new):
            raise InputError(f"{target} holds another session of that name; choose another name")
        say(f"{target} was taken in before")
    else:
        if any(folder.glob("*.npz")):
            _refuse_misfit(new, read_recordings(folder).values())
        new.save(target)
    table.to_csv(target.with_suffix(".images.csv"), index=False)


def _refuse_misfit(new: Session, others: Iterable[Session]) -> None:
    size = new.require_stimuli().image_size
    for other in others:
        if other.id == new.id:
            raise InputError(f"the recordings have a session {new.id} already; choose another name")
        if other.stimuli is not None and other.stimuli.image_size != size:
            raise InputError(
                f"session {other.id} has images of {other.stimuli.image_size}, {new.id} of "
                f"{size}; keep sessions of one size in one folder"
            )


def _equal(one: Session, other: Session) -> bool:
    facts = ("id", "animal", "role", "bin_ms", "has_repeats")
    return (
        all(getattr(one, name) == getattr(other, name) for name in facts)
        and np.array_equal(one.responses, other.responses, equal_nan=True)
        and one.require_stimuli().names == other.require_stimuli().names
        and one.require_stimuli().digests == other.require_stimuli().digests
    )


def _predicted(
    stages: Stages,
    teachers: Sequence[MappedTeacher],
    new: Session,
    unusable: Sequence[int],
    shown: Proposal,
    same_as: str | None,
    seed: int,
) -> dict[str, Any]:
    """Return how well the teacher, not trained with the session, predicts it, arm by arm."""
    stimuli = new.require_stimuli()
    features = np.asarray(stages.store.features(stages.backbone, stimuli))
    prior = None if stages.prior is None else stages.prior(stimuli)
    if same_as is None:
        neurons = np.setdiff1d(np.arange(new.n_neurons), unusable)
        if new.n_stimuli < _MIN_IMAGES:
            raise InputError(f"a map needs {_MIN_IMAGES} images; session {new.id} has fewer")
        session = SessionFeatures(new.id, features, new.mean_responses[:, neurons])
        members = [m for m in teachers[0].ensemble.members if isinstance(m, EnsembleMember)]
        _, predicted = map_teacher(members, session, prior)
    else:
        names = [test.fit.id for test in stages.inputs.tests]
        if same_as not in names:
            raise InputError(f"same_as must be a test session, {', '.join(names)}; got {same_as}")
        test = stages.inputs.tests[names.index(same_as)]
        if test.fit.n_neurons != new.n_neurons:
            raise InputError(
                f"session {same_as} has {test.fit.n_neurons} neurons, {new.id} {new.n_neurons}; "
                "give the same neurons in the same order, or no same_as"
            )
        kept = ~np.isin(test.usable, unusable)
        neurons = test.usable[kept]
        predicted = teachers[names.index(same_as)].predict(features, prior)[:, kept]
    metric, values = _score(new, neurons, predicted)
    arms = shown.images["arm"].to_numpy()
    scores = {"all": _summary(values, len(arms), seed)}
    for arm in dict.fromkeys(arms):
        here = np.flatnonzero(arms == arm)
        if len(here) < _MIN_IMAGES:
            of_arm = _summary(np.empty(0), len(here), seed)
        else:
            of_arm = _summary(_score(new.take(here), neurons, predicted[here])[1], len(here), seed)
        scores[str(arm)] = of_arm
    return {"predicted_by": MAPPED if same_as is None else SAME, "metric": metric, "arms": scores}


def _score(
    session: Session, neurons: np.ndarray, predicted: np.ndarray
) -> tuple[str, Float[np.ndarray, " n_neurons"]]:
    """Return each neuron's r², corrected for noise where there are repeats."""
    seen = session.select_neurons(neurons.tolist())
    predicted = predicted.astype(np.float64)
    if (np.isfinite(seen.responses).sum(axis=1) >= 2).any():
        return NOISE_CORRECTED, noise_corrected_r2(seen.responses, predicted)
    return R2, pearson_r2(seen.mean_responses, predicted)


def _summary(values: np.ndarray, n_images: int, seed: int) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    out: dict[str, Any] = {"n_images": n_images, "n_neurons": len(known), "median": None}
    out["ci"] = [None, None]
    if len(known):
        interval = bootstrap_median_ci(known, rng=np.random.default_rng(seed))
        out |= {"median": float(np.median(known)), "ci": list(interval)}
    return out
