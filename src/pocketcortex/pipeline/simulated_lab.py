"""What the simulated loop works with: a bank, its features, and learners that may disagree."""

import numpy as np
import torch
from jaxtyping import Float

from pocketcortex.core import StimulusSet
from pocketcortex.data import dead_leaves, dead_leaves_bank
from pocketcortex.mapping import RidgeFit, fit_ridge_loo, predict_ridge, ridge_coefficients
from pocketcortex.zoo import Backbone, filter_bank

_ZOOM = 3  # side of a scene in images; a crop shows between 1 and 1 / 3 of it
_CROPS = 4  # of a scene
_LEAST_CONTRAST = 0.08
_SHARE = 2 / 3  # of the images, that a member is fitted to
_SCALE_FLOOR = 1e-3
_BATCH = 256


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


def plain_bank(n: int, size: int, *, seed: int) -> StimulusSet:
    """Return `n` images of dead leaves as they are."""
    return StimulusSet.from_array(dead_leaves(n, size=size, seed=seed))


class World:
    """The bank and the test images, with their features, standardized over the bank.

    Parameters
    ----------
    images
        Test images first, then the bank.
    n_test
        How many are for the test.
    """

    def __init__(self, images: StimulusSet, n_test: int) -> None:
        self.test = images.take(slice(0, n_test))
        self.bank = images.take(slice(n_test, None))
        self.backbone = Backbone(filter_bank(), "maps")
        raw = self._raw(self.bank)
        self.mean = raw.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.scale = raw.std(axis=0, dtype=np.float64).astype(np.float32) + _SCALE_FLOOR
        self.rows = (raw - self.mean) / self.scale
        self.place = {digest: k for k, digest in enumerate(self.bank.digests)}
        self.test_rows = (self._raw(self.test) - self.mean) / self.scale

    def features(self, stimuli: StimulusSet) -> Float[np.ndarray, "n_stimuli n_features"]:
        """Return features of images, looked up where they are the bank's."""
        if all(digest in self.place for digest in stimuli.digests):
            return np.asarray(self.rows[[self.place[digest] for digest in stimuli.digests]])
        return np.asarray((self._raw(stimuli) - self.mean) / self.scale)

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
