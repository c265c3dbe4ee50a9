"""Gradient norms of every layer over the whole run in bounded memory: the largest of each stretch of steps. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

F32 = npt.NDArray[np.float32]
BUCKETS = 256
"""Stretches kept at most; when a run outgrows them, pairs are merged."""


@dataclass(frozen=True)
class LayerNorms:
    """What is known at one moment. NaN: nothing was measured; infinite: some norm was no finite number."""

    names: tuple[str, ...]
    now: F32
    """The newest norms, one a layer; empty before the first backward pass."""
    step: int
    """The step they are of."""
    width: int
    """Steps of one stretch."""
    largest: F32
    """(stretches, layers): the largest norm of each layer in the steps ``[i * width, (i + 1) * width)``."""

    @property
    def empty(self) -> bool:
        """Whether no layer's norm was ever measured."""
        return not len(self.now)


NOTHING = LayerNorms((), np.empty(0, np.float32), 0, 1, np.empty((0, 0), np.float32))


class LayerHistory:
    """Takes norms in as they come; going back to an earlier step forgets the stretches after it."""

    def __init__(self) -> None:
        self._held: F32 | None = None
        self._now: F32 = np.empty(0, np.float32)
        self._width, self._step = 1, -1

    def add(self, step: int, norms: Sequence[float] | F32) -> None:
        """The norms of one step."""
        self._join(np.array([step]), np.asarray(norms, dtype=np.float32)[None, :])

    def extend(self, table: pl.DataFrame) -> None:
        """Norms of many steps: columns ``step`` and ``layer_grad_norms`` in the order of the journal."""
        known = table.select("step", "layer_grad_norms").drop_nulls()
        if not known.height:
            return
        counts = known["layer_grad_norms"].list.len().cast(pl.Int64).to_numpy()
        steps = known["step"].cast(pl.Int64).to_numpy()
        flat = known["layer_grad_norms"].explode().to_numpy()
        cuts = np.flatnonzero((np.diff(counts) != 0) | (np.diff(steps) < 0)) + 1
        at = np.concatenate([[0], np.cumsum(counts)])
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(steps)], strict=True):
            self._join(steps[start:stop], flat[at[start] : at[stop]].reshape(stop - start, counts[start]))

    def frozen(self, names: Sequence[str]) -> LayerNorms:
        """What is known now. Layers without a name are numbered."""
        if self._held is None:
            return NOTHING
        count = self._held.shape[1]
        named = tuple(names) if len(names) == count else tuple(f"layer {i}" for i in range(count))
        filled = self._step // self._width + 1
        return LayerNorms(named, self._now, self._step, self._width, self._held[:filled].copy())

    def _join(self, steps: npt.NDArray[np.int64], norms: F32) -> None:
        """Rising steps of one model."""
        if self._held is None or self._held.shape[1] != norms.shape[1]:
            self._held, self._width = np.full((BUCKETS, norms.shape[1]), np.nan, np.float32), 1
        if steps[0] <= self._step:
            self._held[int(steps[0]) // self._width + 1 :] = np.nan
        while steps[-1] // self._width >= BUCKETS:
            self._merge()
        bucket = (steps // self._width).astype(np.int64)
        first = np.concatenate([[0], np.flatnonzero(np.diff(bucket)) + 1])
        seen = np.where(np.isfinite(norms), norms, np.float32(np.inf))
        largest = np.maximum.reduceat(seen, first, axis=0)
        self._held[bucket[first]] = np.fmax(self._held[bucket[first]], largest)
        self._now, self._step = norms[-1].copy(), int(steps[-1])

    def _merge(self) -> None:
        assert self._held is not None
        self._held[: BUCKETS // 2] = np.fmax(self._held[0::2], self._held[1::2])
        self._held[BUCKETS // 2 :] = np.nan
        self._width *= 2
