"""The best of many candidates for many rows at once, remembered as they stream by."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64


class Leaders:
    """For each row (a model and a direction) the best different candidates met so far.

    Candidates come in order of position. Of those with one digest each row remembers the best,
    of equal scores the first; candidates without a finite score are forgotten.

    Parameters
    ----------
    n_rows
        Rows, each with scores of its own.
    room
        Candidates remembered for each row.
    """

    def __init__(self, n_rows: int, room: int) -> None:
        self.room = room
        self.scores = np.empty((n_rows, 0))  # best first; -inf: nothing there
        self.positions = np.empty((n_rows, 0), dtype=np.int64)
        # of all positions that some row remembers, in order:
        self._known = np.empty(0, dtype=np.int64)
        self._digests = np.empty(0, dtype=np.int64)
        self._thumbnails: np.ndarray | None = None

    def add(
        self,
        scores: Float[np.ndarray, "n_batch n_rows"],
        positions: Int64[np.ndarray, " n_batch"],
        digests: Int64[np.ndarray, " n_batch"],
        thumbnails: Float32[np.ndarray, "n_batch values"],
    ) -> None:
        """Take in the next candidates, whose positions are above all earlier ones."""
        self._known = np.concatenate([self._known, positions])
        self._digests = np.concatenate([self._digests, digests])
        earlier = thumbnails[:0] if self._thumbnails is None else self._thumbnails
        self._thumbnails = np.concatenate([earlier, thumbnails])
        new_scores = np.where(np.isfinite(scores), scores, -np.inf).T
        new_positions = np.broadcast_to(positions, new_scores.shape)
        self.scores = np.concatenate([self.scores, new_scores], axis=1)
        self.positions = np.concatenate([self.positions, new_positions], axis=1)
        self._sort()
        self.scores[self._repeated()] = -np.inf
        self._sort()
        self.scores, self.positions = self.scores[:, : self.room], self.positions[:, : self.room]
        used = np.isin(self._known, self.positions)
        self._known, self._digests = self._known[used], self._digests[used]
        self._thumbnails = self._thumbnails[used]

    def full(self) -> Bool[np.ndarray, " n_rows"]:
        """Return which rows remember as many candidates as they have room for."""
        return np.asarray(np.isfinite(self.scores).sum(axis=1) >= self.room)

    def chosen(
        self, row: int, k: int, min_distance: float
    ) -> tuple[Int64[np.ndarray, " n_chosen"], Float[np.ndarray, " n_chosen"]]:
        """Return positions and scores of a row's k best that are not near a better one.

        Near is a root mean square difference of thumbnails below `min_distance`.
        """
        valid = np.isfinite(self.scores[row])
        positions, scores = self.positions[row, valid], self.scores[row, valid]
        if self._thumbnails is None or len(positions) == 0:
            return positions, scores
        thumbnails = self._thumbnails[np.searchsorted(self._known, positions)].astype(np.float64)
        open_ = np.ones(len(positions), dtype=bool)
        kept: list[int] = []
        while len(kept) < k and open_.any():
            kept.append(int(open_.argmax()))
            distance = np.sqrt(((thumbnails - thumbnails[kept[-1]]) ** 2).mean(axis=1))
            open_ &= distance >= min_distance
            open_[kept[-1]] = False
        return positions[kept], scores[kept]

    def _sort(self) -> None:
        """Order each row by score; of equal scores the first stays first."""
        order = np.argsort(-self.scores, axis=1, kind="stable")
        self.scores = np.take_along_axis(self.scores, order, axis=1)
        self.positions = np.take_along_axis(self.positions, order, axis=1)

    def _repeated(self) -> Bool[np.ndarray, "n_rows n"]:
        """Return which candidates have the digest of a better one of their row."""
        digests = self._digests[np.searchsorted(self._known, self.positions)]
        order = np.argsort(digests, axis=1, kind="stable")
        in_order = np.take_along_axis(digests, order, axis=1)
        same = np.zeros(digests.shape, dtype=bool)
        same[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
        repeated = np.empty_like(same)
        np.put_along_axis(repeated, order, same, axis=1)
        return repeated
