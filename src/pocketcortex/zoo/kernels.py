"""Kernels over stimuli of all layers of a network: what regression, RDMs and CKA are made of."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from pocketcortex.core import (
    InputError,
    explained_writes,
    in_brief,
    map_array,
    parse_json,
    sync,
    write_json,
)
from pocketcortex.core.runs import hash_file

FORMAT, VERSION = "pocketcortex-kernels", 1
ARRAYS = ("centred", "standardized", "row_means", "row_squares")
_MANIFEST = "kernels.json"


@dataclass(frozen=True, eq=False, repr=False)
class NetworkKernels:
    r"""Inner products of stimuli in the features of each layer, in float64.

    Attributes
    ----------
    layers
        Names, in the order in which the network computes them.
    n_features
        Features (units) of each layer.
    centred
        :math:`K_{ij} = \sum_f (x_{if} - \bar x_f)(x_{jf} - \bar x_f)`, means over all stimuli.
    standardized
        The same with each feature divided by its standard deviation over all stimuli (ddof 0);
        features that do not vary count as 0.
    row_means, row_squares
        Each stimulus's mean over the layer's units, and its sum of squared deviations from it.
    stimuli
        Fingerprint of the stimuli, in whose order rows and columns are.
    duplicates
        Outputs that are equal to a layer's bit for bit, each with that layer.
    skipped
        Outputs that are not features of the stimuli, each with the reason.
    reasons
        Layers that cannot be used, each with the reason; their numbers are NaN.
    """

    layers: tuple[str, ...]
    n_features: Int[np.ndarray, " n_layers"]
    centred: Float64[np.ndarray, "n_layers n_stimuli n_stimuli"]
    standardized: Float64[np.ndarray, "n_layers n_stimuli n_stimuli"]
    row_means: Float64[np.ndarray, "n_layers n_stimuli"]
    row_squares: Float64[np.ndarray, "n_layers n_stimuli"]
    stimuli: str = ""
    duplicates: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        unusable = f", {len(self.reasons)} unusable" if self.reasons else ""
        return f"NetworkKernels({len(self)} layers{unusable}, {self.n_stimuli} stimuli)"

    @property
    def n_stimuli(self) -> int:
        """Number of stimuli."""
        return int(self.centred.shape[1])

    def rdms(
        self, stimuli: Int[np.ndarray, " n_some"] | None = None
    ) -> Float64[np.ndarray, "n_layers n_pairs"]:
        r"""Return 1 - Pearson's r between the patterns of every two stimuli over a layer's units.

        From the kernel's squared distances :math:`d_{ij}`, the stimuli's means :math:`a_i` over the
        :math:`p` units and their sums of squared deviations :math:`s_i`,

        .. math::
            1 - r_{ij} = \frac{d_{ij} - p (a_i - a_j)^2 - (\sqrt{s_i} - \sqrt{s_j})^2}
                              {2 \sqrt{s_i s_j}}

        which keeps its digits where all patterns are much alike.

        Parameters
        ----------
        stimuli
            Places of some stimuli, by default all in their order.

        Returns
        -------
        Float64[np.ndarray, "n_layers n_pairs"]
            Upper triangles, row by row. NaN for a layer of one unit, for a stimulus to which all
            units answer alike, and for unusable layers.
        """
        some = np.arange(self.n_stimuli) if stimuli is None else stimuli
        first, second = (some[place] for place in np.triu_indices(len(some), k=1))
        out = np.empty((len(self), len(first)))
        for k, kernel in enumerate(self.centred):
            own = kernel.diagonal()
            mean, squares, p = self.row_means[k], self.row_squares[k], int(self.n_features[k])
            flat = squares <= 1e-12 * (p * mean**2 + squares)
            size = np.sqrt(np.where(flat | (p < 2), np.nan, np.maximum(squares, 0)))
            distance = own[first] + own[second] - 2 * kernel[first, second]
            distance -= p * (mean[first] - mean[second]) ** 2
            distance -= (size[first] - size[second]) ** 2
            out[k] = distance / (2 * size[first] * size[second])
        return out

    def save(self, folder: str | Path) -> None:
        """Write the kernels to a folder of `.npy` files, its manifest last; it must not exist yet.

        Raises
        ------
        InputError
            If there is such a folder or file, or its parent is missing.
        PocketcortexError
            If the disk is full, read-only or at fault.
        """
        final = Path(folder)
        if final.exists() or not final.parent.is_dir():
            raise InputError(f"kernels go to a new folder in an existing one; got {final}")
        partial = final.with_name(final.name + ".partial")
        with explained_writes("kernels", final.parent):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name in ARRAYS:
                np.save(partial / f"{name}.npy", getattr(self, name))
            self.write_manifest(partial)
            os.replace(partial, final)

    def write_manifest(self, folder: Path) -> None:
        """Write what is not an array, and the arrays' hashes; without it a folder is unfinished."""
        for name in ARRAYS:
            sync(folder / f"{name}.npy")
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "layers": list(self.layers),
            "n_features": self.n_features.tolist(),
            "stimuli": self.stimuli,
            "duplicates": dict(self.duplicates),
            "skipped": dict(self.skipped),
            "reasons": dict(self.reasons),
        }
        hashes = {name: hash_file(folder / f"{name}.npy") for name in ARRAYS}
        manifest["sha256"] = hashes | {_MANIFEST: _digest_of(manifest)}
        write_json(folder / _MANIFEST, manifest)

    @classmethod
    def load(cls, folder: str | Path) -> "NetworkKernels":
        """Return the kernels of a folder, mapped into memory read-only.

        Raises
        ------
        InputError
            If the folder holds no kernels, unfinished or altered ones, or those of another version.
        """
        path = Path(folder)
        try:
            manifest = parse_json((path / _MANIFEST).read_text())
            found = (manifest.get("format"), manifest.get("version"))
            hashes = manifest.pop("sha256")
            altered = [n for n in ARRAYS if hashes[n] != hash_file(path / f"{n}.npy")]
            altered += [] if hashes[_MANIFEST] == _digest_of(manifest) else [_MANIFEST]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} holds no finished kernels ({type(error).__name__}: {in_brief(error)}); "
                "compute anew"
            ) from error
        if found != (FORMAT, VERSION):
            raise InputError(
                f"{path} holds {str(found)[:100]}, expected {(FORMAT, VERSION)}; compute anew"
            )
        if altered:
            raise InputError(f"{path}: {altered[0]} was cut short or altered; compute anew")
        arrays = {name: map_array(path / f"{name}.npy") for name in ARRAYS}
        shape = (len(manifest["layers"]), *arrays["centred"].shape[1:])
        if any(a.shape != shape[: a.ndim] or a.dtype != np.float64 for a in arrays.values()):
            raise InputError(f"{path} holds arrays of other shapes than its manifest says")
        return cls(
            layers=tuple(manifest["layers"]),
            n_features=np.array(manifest["n_features"], dtype=np.int64),
            **arrays,
            stimuli=manifest["stimuli"],
            duplicates=manifest["duplicates"],
            skipped=manifest["skipped"],
            reasons=manifest["reasons"],
        )


def _digest_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
