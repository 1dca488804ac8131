"""Who does the stages that can be split: this process, or a scheduler's workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pocketcortex.pipeline import compression
from pocketcortex.pipeline.stages import Stages


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
    """All of it in this process; things that can step together do."""

    stages: Stages

    def teacher(self, folder: Path) -> None:
        """Train the members."""
        self.stages.teacher(folder)

    def mapping(self, folder: Path, teacher: Path) -> None:
        """Map the teacher to the test sessions' neurons."""
        self.stages.mapping(folder, teacher)

    def labels(self, folder: Path, teacher: Path, mapping: Path) -> None:
        """Write the teacher's responses to the bank."""
        self.stages.labels(folder, teacher, mapping)

    def students(self, folder: Path, labels: Path) -> None:
        """Distil the teacher."""
        compression.students(self.stages, folder, labels)

    def pruned(self, folder: Path, labels: Path, of_students: Path) -> None:
        """Prune each neuron's student."""
        compression.pruned(self.stages, folder, labels, of_students)

    def compact(self, folder: Path, labels: Path, of_pruned: Path) -> None:
        """Train the pruned models further."""
        compression.compact(self.stages, folder, labels, of_pruned)

    def shared_models(
        self, folder: Path, labels: Path, sizes: Sequence[int], n_images: int | None = None
    ) -> None:
        """Train and score shared models of several sizes."""
        compression.shared_models(self.stages, folder, labels, sizes, n_images)
