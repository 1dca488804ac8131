"""Who does the stages that can be split: this process, or a scheduler's workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pocketcortex.pipeline import compression
from pocketcortex.pipeline.stages import Stages
from pocketcortex.pipeline.tasks import drop_tasks


@runtime_checkable
class Work(Protocol):
    """Fills the folders of stages from those of finished ones."""

    def teacher(self, folder: Path) -> None:
        """Train the members."""

    def mapping(self, folder: Path, teacher: Path) -> None:
        """Map the teacher to the test sessions' neurons."""

    def labels(self, folder: Path, teacher: Path, mapping: Path) -> None:
        """Write the teacher's responses to the bank."""

    def students(self, folder: Path, labels: Path) -> None:
        """Distil the teacher."""

    def pruned(self, folder: Path, labels: Path, of_students: Path) -> None:
        """Prune each neuron's student."""

    def compact(self, folder: Path, labels: Path, of_pruned: Path) -> None:
        """Train the pruned models further."""

    def shared_models(
        self, folder: Path, labels: Path, sizes: Sequence[int], n_images: int | None = None
    ) -> None:
        """Train and score shared models of several sizes."""


@dataclass(frozen=True)
class InProcess:
    """All of it in this process; things that can step together do.

    Tasks that workers left in a stage's folder are taken away: they were cut otherwise.
    """

    stages: Stages

    def teacher(self, folder: Path) -> None:
        """Train the members."""
        if len(self.stages.member_groups()) == 1:  # several are tasks here too
            drop_tasks(folder)
        self.stages.teacher(folder)

    def mapping(self, folder: Path, teacher: Path) -> None:
        """Map the teacher to the test sessions' neurons."""
        drop_tasks(folder)
        self.stages.mapping(folder, teacher)

    def labels(self, folder: Path, teacher: Path, mapping: Path) -> None:
        """Write the teacher's responses to the bank."""
        drop_tasks(folder)
        self.stages.labels(folder, teacher, mapping)

    def students(self, folder: Path, labels: Path) -> None:
        """Distil the teacher."""
        drop_tasks(folder)
        compression.students(self.stages, folder, labels)

    def pruned(self, folder: Path, labels: Path, of_students: Path) -> None:
        """Prune each neuron's student."""
        drop_tasks(folder)
        compression.pruned(self.stages, folder, labels, of_students)

    def compact(self, folder: Path, labels: Path, of_pruned: Path) -> None:
        """Train the pruned models further."""
        drop_tasks(folder)
        compression.compact(self.stages, folder, labels, of_pruned)

    def shared_models(
        self, folder: Path, labels: Path, sizes: Sequence[int], n_images: int | None = None
    ) -> None:
        """Train and score shared models of several sizes."""
        drop_tasks(folder)
        compression.shared_models(self.stages, folder, labels, sizes, n_images)
