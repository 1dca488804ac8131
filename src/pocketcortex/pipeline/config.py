"""What a run does: one TOML file, checked whole before anything starts."""

import difflib
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from pocketcortex.core import InputError, in_brief
from pocketcortex.pipeline.causal import CausalCounts

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class InSilicoConfig(_Table):
    """A simulated animal in place of recordings."""

    n_sessions: Annotated[int, Field(ge=3)] = 6
    """Recording sessions; the last two validate and test."""
    n_neurons: Count = 20
    """Neurons of each."""
    n_stimuli: Annotated[int, Field(ge=20)] = 800
    """Images of each."""
    image_size: Annotated[int, Field(ge=32)] = 64
    """Side of an image in pixels."""
    n_repeats: Count = 8
    """Presentations of each image."""
    area: Literal["V1", "V4", "IT"] = "V4"
    """Which circuits its neurons have; see `pocketcortex.data.Neuron`."""


class RecordingsConfig(_Table):
    """Where sessions come from and what each is for."""

    path: Annotated[str, Field(min_length=1)] | None = None
    """Folder of a V4 release, or a folder of ``.npz`` sessions."""
    insilico: InSilicoConfig | None = None
    """A simulated animal instead; its table is below."""
    train: tuple[str, ...] = ()
    """Sessions the ensemble is trained on; none for those whose role is ``train``."""
    validation: str | None = None
    """Session that stops the training early; None for the one whose role is ``validation``."""
    test: tuple[str, ...] = ()
    """Sessions whose neurons are modelled, one name or a list: the first half is fitted, the second
    half only scored. None for the one whose role is ``test``."""
    n_neurons: dict[str, Count] = Field(default_factory=dict)
    """Test session to how many of its neurons are modelled, the first ones; all if not named."""
    skip_synthesized: bool = False
    """Leave images 601 to 900 of the V4 release's sessions of September 2019 out of training."""
    published_models: str | None = None
    """Folder of a release with published models, to score beside."""

    @pydantic.field_validator("test", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value or ()

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> "RecordingsConfig":
        if (self.path is None) == (self.insilico is None):
            raise ValueError("name either recordings.path or recordings.insilico, not both")
        return self


class BackboneConfig(_Table):
    """The task-driven network."""

    network: str = "pocketcortex.zoo:filter_bank"
    """``file.py:builder`` or ``module:builder``; your own code, run as such."""
    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("maps",)
    """Averaged to the smallest grid among them and stacked."""
    input_size: Count | None = None
    """Side in pixels that images are resized to; None for as they are."""


class TeacherConfig(_Table):
    """The ensemble."""

    n_members: Count = 25
    """Networks of the ensemble."""
    group: Count | None = None
    """Members trained as one network, which choose their best epoch together; with `--scheduler`
    each group is a task. None for all in one."""
    width: Count = 512
    """Channels of a member's embedding of an image."""
    bottleneck: Count = 256
    """Channels inside a residual block."""
    n_blocks: Annotated[int, Field(ge=0)] = 4
    """Residual blocks; 0 for none."""
    stride: Annotated[int, Field(ge=0)] = 2
    """0 leaves out the separable convolution before the blocks."""
    schedule: Literal["joint", "published"] = "joint"
    """Batches of all sessions in random order, or session after session, as published."""
    n_epochs: Count = 5
    """Passes over the training images at most; the validation session chooses the best."""
    batch_size: Count | None = None
    """Images of a training step; None for the schedule's own."""
    learning_rate: Positive | None = None
    """Its largest; None for the schedule's own."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of AdamW; not used by the published schedule."""
    readout_scale: Positive | None = None
    """Standard deviation of a fresh readout's weights; None for the schedule's own."""
    prior: str | None = None
    """A published shared model (``.keras``), mapped to the neurons too and added to the ensemble's
    answer, by weights that predict best out of sample within the fitted half."""


class BankConfig(_Table):
    """Images to distil with beside those of the sessions."""

    path: Annotated[str, Field(min_length=1)]
    """Folder, zip, tar (or a folder of tar shards) or ``.npy`` array."""
    n_images: Count | None = None
    """At most so many of its images, the first by name; None for all."""
    crops: Annotated[int, Field(ge=0)] = 0
    """Random crops of each image; 0 for one, the centre square."""


class StudentsConfig(_Table):
    """Distillation, and the images for it."""

    kind: Literal["shared", "separate"] = "shared"
    """One network for all neurons, of which each takes a copy, or a network a neuron (published).
    """
    filters: tuple[Count, Count, Count, Count, Count] = (100, 100, 100, 100, 100)
    """Filters of the five layers."""
    n_epochs: Count = 4
    """Passes over the images."""
    learning_rate: Positive = 2e-3
    """Its largest."""
    readout_rate: Positive = 1.0
    """The readouts' learning rate as a multiple of the layers'."""
    batch_size: Count = 32
    """Images of a step."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    """Learning rate: up and down once over the steps, or the same throughout."""
    smoothing: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation in pixels of the Gaussian that smooths kernels and readouts."""
    mixing_l1: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean absolute mixing weight in the loss of a shared network."""
    patience: Count | None = None
    """Separate students: epochs without gain on the monitored images before one stops."""
    start: str | None = None
    """A published shared model (``.keras``) whose layers the shared network starts from."""
    banks: tuple[BankConfig, ...] = ()
    dead_leaves: Annotated[int, Field(ge=0)] = 0
    """Images of the endless dead-leaves bank."""
    n_monitor: Annotated[int, Field(ge=2)] = 500
    """Images kept aside, to follow the agreement with the teacher."""

    @pydantic.model_validator(mode="after")
    def _of_one_kind(self) -> "StudentsConfig":
        if self.kind == "separate" and (self.start is not None or self.mixing_l1):
            raise ValueError("start and mixing_l1 are for kind = shared")
        if self.kind == "shared" and self.patience is not None:
            raise ValueError("patience is for kind = separate")
        return self


class CompactConfig(_Table):
    """Pruning and retraining."""

    method: Literal["joint", "greedy", "published"] = "joint"
    """Filters of all layers against each other, by what they do to the response; or layer by layer
    by the next layer's variance, with refit or as published. See `pocketcortex.compress`."""
    n_fixed: Annotated[int, Field(ge=0, le=3)] = 0
    """First layers that stay those of the shared network: run once an image for all neurons while
    the others are trained further. With 3, only each neuron's late layers are its own."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    """What pruning keeps: the share of the squared correlation with the teacher (joint), or of that
    in the last layer and of the next layer's variance in the others."""
    min_filters: Count = 3
    """Filters that each layer keeps at least."""
    n_pruning_images: Count = 600
    """Images to judge filters by."""
    n_epochs: Count = 1
    """Passes of the retraining."""
    n_images: Count | None = None
    """Images of a retraining epoch; None for all that the students saw."""
    learning_rate: Positive = 2e-4
    """Of the retraining."""
    batch_size: Count = 8
    """Images of a step."""
    smoothing: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation in pixels of the Gaussian that smooths kernels and readouts."""
    patience: Count | None = None
    """Epochs without gain on the monitored images before a neuron's retraining stops."""

    @pydantic.model_validator(mode="after")
    def _fixed_when_joint(self) -> "CompactConfig":
        if self.n_fixed and self.method != "joint":
            raise ValueError("n_fixed is for method = joint")
        return self


class StimuliConfig(_Table):
    """Stimuli that test the models; see `pocketcortex.pipeline.CausalCounts`."""

    n_candidates: Count = 2000
    """Images of the distillation bank, drawn by seed, that natural ones are taken from."""
    n_random: Annotated[int, Field(ge=2)] = 100
    """Images drawn at random, for all neurons."""
    n_natural: Count = 4
    """Strongest, and as many weakest, images of a neuron."""
    n_synthesized: Count = 4
    """Images synthesized for a neuron."""
    n_synthesis_steps: Count = 200
    """Steps of gradient ascent."""
    n_adversarial: Annotated[int, Field(ge=0)] = 4
    """Random images changed a little to raise a neuron's response, and to lower it."""
    budget: Positive = 4.0
    """Root mean square size of those changes, in levels (of 255)."""
    n_smoothed: Annotated[int, Field(ge=0)] = 2
    """Strongest images smoothed where it lowers the response most."""
    n_patches: Count = 25
    """Patches smoothed in each."""

    @property
    def counts(self) -> CausalCounts:
        """How many stimuli of each role."""
        return CausalCounts(**self.model_dump(exclude={"n_candidates"}))

    @pydantic.model_validator(mode="after")
    def _possible(self) -> "StimuliConfig":
        try:
            _ = self.counts
        except InputError as error:
            raise ValueError(str(error)) from error
        if self.n_candidates <= self.n_random + 2 * self.n_natural:
            raise ValueError("n_candidates must exceed n_random + 2 n_natural")
        return self


class RunConfig(_Table):
    """A whole run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """None draws one, which is printed and stored."""
    recordings: RecordingsConfig
    """Required; the only table that is."""
    backbone: BackboneConfig = BackboneConfig()
    teacher: TeacherConfig = TeacherConfig()
    students: StudentsConfig = StudentsConfig()
    compact: CompactConfig = CompactConfig()
    stimuli: StimuliConfig = StimuliConfig()

    @pydantic.model_validator(mode="after")
    def _fixed_when_shared(self) -> "RunConfig":
        if self.compact.n_fixed and self.students.kind != "shared":
            raise ValueError("compact.n_fixed needs students.kind = shared")
        return self


def read_config(path: str | Path) -> RunConfig:
    """Return the run that a TOML file describes.

    ``${NAME}`` in a string stands for the environment variable NAME. Relative paths are relative
    to the working directory.

    Raises
    ------
    InputError
        If the file is missing or not TOML, a variable is not set, a key is unknown, or a value is
        out of range.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {in_brief(error)}") from error
    try:
        return RunConfig.model_validate(_expanded(table, path))
    except pydantic.ValidationError as error:
        raise InputError(f"{path}: {first_fault(error, RunConfig)}") from error


def first_fault(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    """Return in a line what is wrong first with a file that was read as a model.

    A setting that does not exist is named with the one that was likely meant.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    got = repr(first["input"]) if first["loc"] else "the whole file"
    told = first["msg"]
    if first["type"] == "extra_forbidden":
        known = _settings_beside(model, first["loc"])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        told = (
            f"no such setting; did you mean {close[0]}?"
            if close
            else (f"no such setting; there are {', '.join(sorted(known))}")
        )
    where = where if len(where) < 100 else f"{where[:100]} ..."
    return f"{where}: {told[:300]} (got {got if len(got) < 200 else f'{got[:200]} ...'})"


def _settings_beside(model: Any, place: Sequence[str | int]) -> list[str]:
    """Return the names of all settings of the table in which a setting stands."""
    if len(place) == 1 and isinstance(model, type) and issubclass(model, pydantic.BaseModel):
        return list(model.model_fields)
    if isinstance(model, type) and issubclass(model, pydantic.BaseModel):
        field = model.model_fields.get(str(place[0]))
        return _settings_beside(field.annotation, place[1:]) if field else []
    rest = place[1:] if isinstance(place[0], int) else place
    return next((n for one in get_args(model) if (n := _settings_beside(one, rest))), [])


def _expanded(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(entry, path) for key, entry in value.items()}
    if isinstance(value, list):
        return [_expanded(entry, path) for entry in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            name = name[:100]
            raise InputError(f"{path} uses ${{{name}}}, which is not set; export {name}=FOLDER")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", variable, value)


def demo_config() -> RunConfig:
    """Return the run of `pocketcortex demo`: an in-silico animal, minutes on two cores."""
    simulated = InSilicoConfig(n_sessions=5, n_neurons=20, n_stimuli=2000)
    return RunConfig(
        seed=7,
        recordings=RecordingsConfig(insilico=simulated),
        teacher=TeacherConfig(n_members=3, width=96, bottleneck=48, n_blocks=1, n_epochs=8),
        students=StudentsConfig(filters=(24, 24, 32, 32, 32), n_epochs=8, dead_leaves=4000),
        compact=CompactConfig(n_images=4000, learning_rate=1e-3),
        stimuli=StimuliConfig(
            n_random=200, n_natural=8, n_adversarial=8, n_smoothed=8, n_patches=15
        ),
    )
