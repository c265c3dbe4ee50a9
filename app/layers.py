"""Gradient norms of every layer in bounded memory: the newest steps one by one, the whole run in stretches. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt
import polars as pl

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
BUCKETS = 256
"""Stretches kept at most; when a run outgrows them, pairs are merged."""
RECENT = 1024
"""Newest steps with norms that are kept one by one."""
CELLS = 200
"""Stretches of single steps that are told at a time, at most."""


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

    steps: F64 = field(default_factory=lambda: np.empty(0))
    """The newest steps with norms, rising."""
    norms: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """(steps, layers): their norms, infinite where one was no finite number."""
    whole: bool = True
    """No step is older than these."""

    @property
    def empty(self) -> bool:
        """Whether no layer's norm was ever measured."""
        return not len(self.now)

    def between(self, low: float, high: float) -> tuple[F64, F32, int]:
        """(middles, largest norms, steps of each) of equal stretches that cover ``low`` to ``high``, as ``largest``.

        Made of single steps where all of them are still there, and otherwise of the whole run's stretches.
        """
        if len(self.steps) and (self.whole or self.steps[0] <= low):
            first, last = np.searchsorted(self.steps, low, "left"), np.searchsorted(self.steps, high, "right")
            return _cells(self.steps[first:last], self.norms[first:last])
        middles = (np.arange(len(self.largest), dtype=np.float64) + 0.5) * self.width - 0.5
        inside = (middles + self.width / 2 > low) & (middles - self.width / 2 < high)
        return middles[inside], self.largest[inside], self.width


def _cells(steps: F64, norms: F32) -> tuple[F64, F32, int]:
    """Single steps in at most CELLS stretches of a power of two of steps; NaN where a stretch has none of them."""
    if not len(steps):
        return np.empty(0), norms, 1
    width = 1
    while (steps[-1] - steps[0] + 1) / width > CELLS:
        width *= 2
    at = (steps // width).astype(np.int64)
    first = np.flatnonzero(np.diff(at, prepend=-1))
    held = np.full((at[-1] - at[0] + 1, norms.shape[1]), np.nan, np.float32)
    held[at[first] - at[0]] = np.maximum.reduceat(norms, first, axis=0)
    return (np.arange(at[0], at[-1] + 1, dtype=np.float64) + 0.5) * width - 0.5, held, width


NOTHING = LayerNorms((), np.empty(0, np.float32), 0, 1, np.empty((0, 0), np.float32))


class LayerHistory:
    """Takes norms in as they come; going back to an earlier step forgets the stretches after it."""

    def __init__(self) -> None:
        self._held: F32 | None = None
        self._now: F32 = np.empty(0, np.float32)
        self._width, self._step = 1, -1
        self._steps, self._norms = np.empty(0), np.empty((0, 0), np.float32)
        self._start = self._end = 0
        self._whole = True

    def add(self, steps: Sequence[int], norms: Sequence[Sequence[float]]) -> None:
        """The norms of some steps in the order of the journal."""
        if steps:
            counts = np.array([len(row) for row in norms])
            flat = np.array(list(chain.from_iterable(norms)), dtype=np.float32)
            self._join_all(np.array(steps), counts, flat)

    def extend(self, table: pl.DataFrame) -> None:
        """Norms of many steps: columns ``step`` and ``layer_grad_norms`` in the order of the journal."""
        known = table.select("step", "layer_grad_norms").drop_nulls()
        if not known.height:
            return
        counts = known["layer_grad_norms"].list.len().cast(pl.Int64).to_numpy()
        steps = known["step"].cast(pl.Int64).to_numpy()
        self._join_all(steps, counts, known["layer_grad_norms"].explode().to_numpy())

    def _join_all(self, steps: I64, counts: I64, flat: F32) -> None:
        """Steps in any order, with so many norms each."""
        cuts = np.flatnonzero((np.diff(counts) != 0) | (np.diff(steps) <= 0)) + 1
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
        recent = slice(self._start, self._end)
        return LayerNorms(
            named, self._now, self._step, self._width, self._held[:filled].copy(), self._steps[recent],
            self._norms[recent], self._whole,
        )  # fmt: skip

    def _join(self, steps: I64, norms: F32) -> None:
        """Rising steps of one model."""
        if self._held is None or self._held.shape[1] != norms.shape[1]:
            self._held, self._width = np.full((BUCKETS, norms.shape[1]), np.nan, np.float32), 1
            self._step = -1
            self._move(0, 0, norms.shape[1])
            self._whole = True
        if steps[0] <= self._step:
            self._forget(int(steps[0]))
        while steps[-1] // self._width >= BUCKETS:
            self._merge()
        bucket = (steps // self._width).astype(np.int64)
        first = np.concatenate([[0], np.flatnonzero(np.diff(bucket)) + 1])
        seen = np.where(np.isfinite(norms), norms, np.float32(np.inf))
        largest = np.maximum.reduceat(seen, first, axis=0)
        self._held[bucket[first]] = np.fmax(self._held[bucket[first]], largest)
        self._now, self._step = norms[-1].copy(), int(steps[-1])
        self._remember(steps[-RECENT:].astype(np.float64), seen[-RECENT:])
        self._whole = self._whole and len(steps) <= RECENT

    def _remember(self, steps: F64, norms: F32) -> None:
        """At most RECENT rows, and of the earlier ones what makes RECENT with them; nothing frozen is written again."""
        start = max(self._start, self._end + len(steps) - RECENT)
        self._whole = self._whole and start == self._start
        self._start = start
        if self._end + len(steps) > len(self._steps):
            self._move(self._start, self._end, norms.shape[1])
        self._steps[self._end : self._end + len(steps)] = steps
        self._norms[self._end : self._end + len(steps)] = norms
        self._end += len(steps)

    def _move(self, start: int, end: int, layers: int) -> None:
        """Rows ``start`` to ``end`` into fresh arrays, with room for more."""
        steps, norms = self._steps[start:end], self._norms[start:end]
        self._steps, self._norms = np.empty(2 * RECENT), np.empty((2 * RECENT, layers), np.float32)
        self._steps[: len(steps)] = steps
        if len(steps):
            self._norms[: len(steps)] = norms
        self._start, self._end = 0, len(steps)

    def _forget(self, step: int) -> None:
        """``step`` and all after it; the stretch that it lies in is told anew where its steps are still there."""
        assert self._held is not None
        kept = int(np.searchsorted(self._steps[self._start : self._end], float(step), "left"))
        self._move(self._start, self._start + kept, self._held.shape[1])
        at = step // self._width
        self._held[at + 1 :] = np.nan
        left, norms = self._steps[: self._end], self._norms[: self._end]  # moved: they begin at 0
        if self._whole or (len(left) and left[0] <= at * self._width):
            inside = norms[left >= at * self._width]
            self._held[at] = inside.max(axis=0) if len(inside) else np.nan

    def _merge(self) -> None:
        assert self._held is not None
        self._held[: BUCKETS // 2] = np.fmax(self._held[0::2], self._held[1::2])
        self._held[BUCKETS // 2 :] = np.nan
        self._width *= 2
