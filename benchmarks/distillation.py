"""Distilling a population: stacked against one neuron at a time, on a trunk against from scratch.

What is timed apart runs in a fresh process, so that neither the allocator's settings nor what one
way leaves in memory disturbs the other.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.stack import PlainModel
from pocketcortex.core import StimulusSet, keep_freed_memory
from pocketcortex.data import read_bank, read_v4
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import (
    CompactModel,
    CompactStack,
    EnsembleMember,
    EnsembleModel,
    EnsembleShape,
    import_shared_model,
    published_shared_models,
)
from pocketcortex.pipeline.bank import Bank, label
from pocketcortex.pipeline.teacher import MappedTeacher
from pocketcortex.training import (
    Distillation,
    distill_students,
    new_students,
    students_on_trunk,
)
from pocketcortex.training.optimize import ADAM_EPS, epoch_batches
from pocketcortex.training.schedule import seeded
from pocketcortex.zoo import Backbone, FeatureStore, load_network

SIZE, BATCH = 112, 64
NETWORK, LAYERS, N_MEMBERS = "resnet50v2", ("stage3.3", "stage2"), 25
SHAPE = EnsembleShape(1024 + 512, 256, n_blocks=0, stride=0)
GRID = 7 * 7
GAIN = 1.3
"""Standard deviation of the random maps; the teacher's answers then vary by about 1."""
PUBLISHED = Distillation(n_epochs=1, learning_rate=1e-4, batch_size=BATCH, schedule="constant")
N_PROBED = 64


@dataclass(frozen=True)
class Work:
    """How much is distilled; `n_alone` and `n_plain` students are timed the other ways."""

    n_filters: int
    n_images: int
    n_students: int = 16
    n_alone: int = 2
    n_plain: int = 2


@dataclass(frozen=True)
class Trained:
    """What one way took, and what came out: responses of the first students, in training mode."""

    seconds_labels: float
    seconds_training: float
    answers: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @property
    def seconds(self) -> float:
        """Teacher and training."""
        return self.seconds_labels + self.seconds_training


STUDENTS, WIDE = Work(25, 512), Work(100, 128, n_alone=1, n_plain=1)


def bench_stacked_students(
    folder: Path, seed: int, works: tuple[Work, Work] = (STUDENTS, WIDE)
) -> dict[str, Any]:
    """Time distilling 16 students end to end, with decoding and the teacher, three ways.

    Ours decodes and labels each image once for all students (`pipeline.bank.label`), then trains
    them together, as `pocketcortex run` does. One at a time is the same code for each student. The
    plain loop is the authors' manner in PyTorch: one network of ordinary modules, images decoded
    and the teacher asked for every batch. All start from the same weights and see the same batches
    of 64 at the published rate. The teacher is ResNet50v2 at 112 pixels with 25 members of one 1x1
    convolution of width 256, weights and maps to the neurons random: speed does not depend on them.
    Time ends with the last step; the batch-norm statistics that ours takes anew afterwards, over
    1,024 images whatever the bank, are not counted.
    """
    rows = [_compare(folder, seed, work) for work in works]
    main, wide = rows
    return {
        "what": _what(works[0]),
        "ours": f"`label`, `distill_students` ({main['seconds_labels']:.1f} s of it the teacher)",
        "peer": "one-neuron PyTorch loop, float32, teacher asked for every batch (timed on "
        f"{works[0].n_plain} students, scaled); ours one student at a time (timed on "
        f"{works[0].n_alone}, scaled): {main['alone_seconds']:.1f} s, {main['alone_ratio']:.1f}×; "
        f"{works[1].n_students} students of {works[1].n_filters} filters, {works[1].n_images} "
        f"images: {wide['seconds']:.1f} s, one at a time {wide['alone_ratio']:.1f}×, plain "
        f"{wide['ratio']:.1f}×; the loop",
        **main,
        "difference_is": "largest |prediction of a student trained with the others - that of it "
        "trained alone| / the teacher's sd",
        "wide": wide,
    }


def _what(work: Work) -> str:
    return (
        f"distilling {work.n_students} students of {work.n_filters} filters a layer from "
        f"{work.n_images:,} crops of photographs: decoding, teacher (ResNet50v2 + {N_MEMBERS} "
        "members), training"
    )


def _compare(folder: Path, seed: int, work: Work) -> dict[str, Any]:
    everyone = [list(range(work.n_students))]
    alone = [[k] for k in range(work.n_alone)]
    ours = _apart(partial(_distil, folder, seed, work, everyone))
    single = _apart(partial(_distil, folder, seed, work, alone))
    peer = _apart(partial(_plain_loop, folder, seed, work, ours.mean, ours.sd))
    alone_seconds = single.seconds * work.n_students / work.n_alone
    peer_seconds = peer.seconds * work.n_students / work.n_plain
    return {
        "seconds": ours.seconds,
        "seconds_labels": ours.seconds_labels,
        "alone_seconds": alone_seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / ours.seconds,
        "alone_ratio": alone_seconds / ours.seconds,
        "difference": _largest(ours.answers, single.answers),
        "difference_from_plain": _largest(ours.answers, peer.answers),
    }


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    n = min(one.shape[1], other.shape[1])
    return float(np.abs(one[:, :n] - other[:, :n]).max())


def _apart(work: Callable[[], Any]) -> Any:
    """Call in a fresh process, whose threads wait as those of the command line do."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work).result()


def _distil(folder: Path, seed: int, work: Work, groups: Sequence[Sequence[int]]) -> Trained:
    """Label and train each group of students in turn."""
    keep_freed_memory()
    students = _students(seed, work)
    backbone, ensemble = _teacher(folder, seed, work)
    warm_up = _photos(folder, work).take(slice(0, BATCH))
    few = np.random.default_rng(seed).normal(size=(BATCH, 1))
    _label(warm_up, backbone, ensemble)
    distill_students(students[:1], warm_up, few, PUBLISHED, seed=seed)
    labelling = training = 0.0
    answers, moments = [], []
    for group in groups:
        started = time.perf_counter()
        own = EnsembleModel(
            list(ensemble.members), ensemble.weights[..., group], ensemble.intercepts[:, group]
        )
        photos = _photos(folder, work)
        responses = _label(photos, backbone, own.eval())
        labelled = time.perf_counter()
        steps: list[float] = []
        found = distill_students(
            [students[k] for k in group], photos, responses, PUBLISHED,
            seed=seed, advance=lambda _, steps=steps: steps.append(time.perf_counter()),
        )  # fmt: skip
        labelling += labelled - started
        training += steps[-1] - labelled
        mean, sd = responses.mean(0, dtype=np.float64), responses.std(0, dtype=np.float64)
        probed = _probed(found.models, folder, work)
        answers.append((probed - mean) / sd)
        moments.append((mean, sd))
    means, sds = (np.concatenate(part) for part in zip(*moments, strict=True))
    return Trained(labelling, training, np.concatenate(answers, axis=1), means, sds)


def _label(stimuli: StimulusSet, backbone: Backbone, ensemble: EnsembleModel) -> np.ndarray:
    with tempfile.TemporaryDirectory() as name:
        store, bank = FeatureStore(Path(name) / "features"), Bank((stimuli,), 0)
        label(bank, backbone, store, None, [MappedTeacher(ensemble)], Path(name))
        responses: np.ndarray = np.load(Path(name) / "teacher.npy")
    return responses


def _plain_loop(folder: Path, seed: int, work: Work, mean: np.ndarray, sd: np.ndarray) -> Trained:
    """Train the first students one by one as one would write it."""
    teacher = _PlainTeacher(folder, seed, work)
    photos = _photos(folder, work)
    plain = [_z_scored(m, a, s) for m, a, s in zip(_students(seed, work), mean, sd, strict=True)]
    batches = list(epoch_batches(len(photos), BATCH, seed, 0))
    warm_up = _z_scored(_students(seed, work)[0], mean[0], sd[0])
    _fit_plain(warm_up, photos, batches[:1], lambda x: teacher(x)[:, 0])
    started = time.perf_counter()
    for k in range(work.n_plain):
        _fit_plain(plain[k], photos, batches, lambda x, k=k: (teacher(x)[:, k] - mean[k]) / sd[k])
    seconds = time.perf_counter() - started
    return Trained(0.0, seconds, _probed(plain[: work.n_plain], folder, work), mean, sd)


def _fit_plain(
    model: PlainModel,
    photos: StimulusSet,
    batches: Sequence[np.ndarray],
    teacher: Callable[[Tensor], Tensor],
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=PUBLISHED.learning_rate, eps=ADAM_EPS)
    for index in batches:
        images = torch.from_numpy(photos.read(index)).float()
        with torch.no_grad():
            targets = teacher(images)
        optimizer.zero_grad()
        F.mse_loss(model(images), targets).backward()
        optimizer.step()


def _z_scored(model: CompactModel, mean: float, sd: float) -> PlainModel:
    """Return the plain model whose responses are a student's in units of the teacher's."""
    plain = PlainModel(model)
    with torch.no_grad():
        plain.readout.weight.div_(sd)
        plain.readout.bias.sub_(mean).div_(sd)
    return plain.train()


class _PlainTeacher(nn.Module):
    """The same teacher, run as its parts are written: maps in rows, members one by one."""

    def __init__(self, folder: Path, seed: int, work: Work) -> None:
        super().__init__()
        backbone, self.ensemble = _teacher(folder, seed, work)
        self.network = backbone.network.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        """Return all neurons' responses to raw images."""
        net = self.network
        x = net.bn1(net.conv1(net.bn0(net.preprocess(images))))
        early = net.stage2(net.stage1(net.maxpool(net.relu(x))))
        late = net.stage3[:4](early)
        features = torch.cat([late, F.adaptive_avg_pool2d(early, late.shape[2:])], dim=1)
        answers: Tensor = self.ensemble(features)
        return answers


def _teacher(folder: Path, seed: int, work: Work) -> tuple[Backbone, EnsembleModel]:
    network = load_network(f"{folder}/weights/backbones.py:{NETWORK}")
    n_features = SHAPE.width * GRID

    def ensemble() -> EnsembleModel:
        members = [EnsembleMember(SHAPE) for _ in range(N_MEMBERS)]
        weights = GAIN * torch.randn(N_MEMBERS, n_features, work.n_students)
        return EnsembleModel(members, weights, torch.zeros(N_MEMBERS, work.n_students)).eval()

    return Backbone(network, LAYERS, input_size=SIZE), seeded(seed, ensemble)


def _photos(folder: Path, work: Work) -> StimulusSet:
    path = folder / "banks" / "photos" / "photos.zip"
    return read_bank(path, SIZE, crops=2).take(slice(0, work.n_images))


def _students(seed: int, work: Work) -> list[CompactModel]:
    return new_students(work.n_students, [work.n_filters] * 5, (SIZE, SIZE), seed=seed)


def _probed(models: Sequence[nn.Module], folder: Path, work: Work) -> np.ndarray:
    """Return responses to the first images by the batch's own statistics, (n, n_models)."""
    images = torch.from_numpy(_photos(folder, work).read(slice(0, N_PROBED))).float()
    with torch.no_grad():
        return torch.stack([m.train()(images) for m in models], dim=1).double().numpy()


N_TRUNK_NEURONS, LATE, TRUNK_FILTERS, TEACHER_FILTERS = 8, (16, 16), 50, 200
N_MONITOR = 256
FRESH_BUDGETS, TRUNK_BUDGETS = (256, 512), (32, 64, 128, 256, 512)
TRUNK_TRAINING = Distillation(3, learning_rate=2e-3, readout_rate=0.3, batch_size=8, smoothing=0.0)
"""Of ten tried with 512 images and two neurons, one that served both kinds of students well."""


@dataclass(frozen=True)
class Point:
    """Score and training time after a number of images."""

    n_images: float
    r2: float
    seconds: float


def bench_shared_trunk(
    folder: Path,
    seed: int,
    fresh_budgets: Sequence[int] = FRESH_BUDGETS,
    trunk_budgets: Sequence[int] = TRUNK_BUDGETS,
    n_monitor: int = N_MONITOR,
) -> dict[str, Any]:
    """Count the images that students on a shared trunk, and from scratch, need for the same r².

    The teacher is the published shared model of 200 filters, its answers for 8 neurons; images are
    V4 stimuli and crops of photographs. On a trunk, the first three layers are those of the
    published shared model of 50 filters, run once an image and left as they are; from scratch the
    students have as many filters and train all layers. Both are distilled anew for each number of
    images, in three passes with one cycle of the learning rate, and scored on images kept aside:
    mean over neurons of the squared correlation with the teacher. Compared is where each reaches
    the lower of the two final scores, between two numbers of images by the logarithm. The trunk was
    trained before, on 12 million images, by the ensemble that this teacher learnt from too: what it
    cost is not counted. Seconds are those of training, to its last step.
    """
    keep_freed_memory()
    shared = published_shared_models(folder / "v4")["from_ensemble_model"]
    trunk = import_shared_model(shared[TRUNK_FILTERS]).layers
    teacher = import_shared_model(shared[TEACHER_FILTERS])
    neurons = np.random.default_rng(seed).choice(len(teacher.bias), N_TRUNK_NEURONS, replace=False)
    pool = _pool(folder, seed, max(*fresh_budgets, *trunk_budgets) + n_monitor)
    with torch.inference_mode():
        parts = [teacher(torch.from_numpy(x))[:, neurons] for x in pool.batches(16)]
    responses = torch.cat(parts).double().numpy()
    monitor, trained = np.split(np.arange(len(pool)), [n_monitor])
    kept, truth = torch.from_numpy(pool.read(monitor)), responses[monitor]

    def curve(students: list[CompactModel], n_shared: int, budgets: Sequence[int]) -> list[Point]:
        points = []
        for budget in budgets:
            index = trained[:budget]
            steps = [time.perf_counter()]
            found = distill_students(
                students, pool.take(index), responses[index], TRUNK_TRAINING, seed=seed,
                n_shared=n_shared, advance=lambda _, s=steps: s.append(time.perf_counter()),
            )  # fmt: skip
            predicted = CompactStack(found.models).predict(kept).double().numpy()
            r2 = float(pearson_r2(truth, predicted).mean())
            points.append(Point(budget, r2, steps[-1] - steps[0]))
        return points

    filters = (*trunk.filters[:3], *LATE)
    fresh = new_students(N_TRUNK_NEURONS, filters, (SIZE, SIZE), seed=seed)
    grown = students_on_trunk(trunk, N_TRUNK_NEURONS, LATE, seed=seed)
    for students, n_shared in ((grown, 3), (fresh, 0)):  # first calls load libraries
        curve(students, n_shared, trunk_budgets[:1])
    with_trunk, from_scratch = curve(grown, 3, trunk_budgets), curve(fresh, 0, fresh_budgets)
    target = min(with_trunk[-1].r2, from_scratch[-1].r2)
    ours, peer = reached(with_trunk, target), reached(from_scratch, target)
    least = "at most " if ours is with_trunk[0] else ""
    return {
        "what": f"distilling {N_TRUNK_NEURONS} students to a mean r² of {target:.3f} with the "
        f"teacher, filters {list(filters)}",
        "ours": f"`students_on_trunk`, {least}{ours.n_images:,.0f} images",
        "peer": f"`new_students`, {peer.n_images:,.0f} images, "
        f"{peer.n_images / ours.n_images:.1f}× as many",
        "seconds": ours.seconds,
        "peer_seconds": peer.seconds,
        "ratio": peer.seconds / ours.seconds,
        "image_ratio": peer.n_images / ours.n_images,
        "difference": abs(ours.r2 - peer.r2),
        "difference_is": "of the two r² compared, both read between two numbers of images",
        "target_r2": target,
        "neurons": neurons.tolist(),
        "with_trunk": [vars(point) for point in with_trunk],
        "from_scratch": [vars(point) for point in from_scratch],
    }


def reached(points: Sequence[Point], target: float) -> Point:
    """Return where a curve first reaches a score, between two points by the logarithm of images.

    The first point where that has it already: the true number of images may then be smaller.
    """
    after = next(k for k, point in enumerate(points) if point.r2 >= target)
    if after == 0:
        return points[0]
    a, b = points[after - 1], points[after]
    part = (target - a.r2) / (b.r2 - a.r2)
    n_images = a.n_images * (b.n_images / a.n_images) ** part
    seconds = a.seconds + (b.seconds - a.seconds) * (n_images - a.n_images) / (
        b.n_images - a.n_images
    )
    return Point(n_images, target, seconds)


def _pool(folder: Path, seed: int, n: int) -> StimulusSet:
    """Return images of V4 sessions and crops of photographs, half and half, in random order."""
    sessions = read_v4(folder / "v4")
    shown = StimulusSet.concatenate([sessions[s].require_stimuli() for s in ("190923", "201025")])
    photos = read_bank(folder / "banks" / "photos" / "photos.zip", SIZE, crops=2)
    rng = np.random.default_rng(seed)
    parts = [s.take(rng.permutation(len(s))[: -(-n // 2)]) for s in (shown, photos)]
    pool = StimulusSet.concatenate(parts)
    return pool.take(rng.permutation(len(pool))[:n])
