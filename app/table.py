"""Looks at growing columns, with min/max buckets kept up to date. Knows nothing of records or drawing."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.smoothing import Smoothings

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Extremes:
    """Row numbers of the smallest and largest value of each bucket of one column, at most ``budget`` buckets.

    A bucket is a power of two of rows; when there are too many, pairs are merged. So the cost of an append does not
    grow with the history, and all buckets but the last one stay as they are between two merges. They are brought up
    to date when they are asked for; any thread may ask.
    """

    def __init__(self, budget: int = 1000) -> None:
        self.budget = budget
        self.bucket = 1
        self.rows = 0
        self._lock = threading.Lock()
        self._low: I64 = np.empty(0, dtype=np.int64)
        self._high: I64 = np.empty(0, dtype=np.int64)

    def of(self, values: F64) -> "Buckets":
        """The buckets of a column: as it was at an earlier call, or grown since, or an older look at it."""
        with self._lock:
            if len(values) > self.rows:
                self._update(values)
            low, high = self._low, self._high
            if len(values) < self.rows:
                whole = len(values) // self.bucket
                rest = bucket_extremes(values, whole * self.bucket, len(values), self.bucket)
                low, high = (np.concatenate([held[:whole], end]) for held, end in zip((low, high), rest, strict=True))
            return Buckets(low, high, len(values), self.bucket)

    def _update(self, values: F64) -> None:
        while -(-len(values) // self.bucket) > self.budget:
            self._merge(values)
        first = self.rows // self.bucket
        if len(values) > first * self.bucket:
            low, high = bucket_extremes(values, first * self.bucket, len(values), self.bucket)
            self._low = np.concatenate([self._low[:first], low])
            self._high = np.concatenate([self._high[:first], high])
        self.rows = len(values)

    def _merge(self, values: F64) -> None:
        """Double the bucket: of each pair keep the lower low and the higher high."""
        self._low = _better(values, self._low, np.less)
        self._high = _better(values, self._high, np.greater)
        self.bucket *= 2


def _better(values: F64, chosen: I64, beats: np.ufunc) -> I64:
    if len(chosen) % 2:
        chosen = np.append(chosen, chosen[-1])
    left, right = chosen[0::2], chosen[1::2]
    swap = beats(values[right], values[left]) | np.isnan(values[left])
    return np.where(swap, right, left)


def bucket_extremes(values: F64, start: int, stop: int, bucket: int) -> tuple[I64, I64]:
    """Row numbers of the smallest and largest value in each bucket of ``values[start:stop]``; NaN loses to all."""
    count = -(-(stop - start) // bucket)
    padded = np.full(count * bucket, np.nan)
    padded[: stop - start] = values[start:stop]
    grid = padded.reshape(count, bucket)
    offsets = start + np.arange(count) * bucket
    low = np.argmin(np.where(np.isnan(grid), np.inf, grid), axis=1)
    high = np.argmax(np.where(np.isnan(grid), -np.inf, grid), axis=1)
    return offsets + low, offsets + high


@dataclass(frozen=True)
class Buckets:
    """The extremes of one column at one moment."""

    low: I64
    high: I64
    rows: int
    bucket: int

    def indices(self) -> I64:
        """Row numbers to draw, rising, without repeats: every bucket's extremes and the last row."""
        return _rising(self.low, self.high, self.rows - 1) if self.rows else np.empty(0, dtype=np.int64)


def _rising(low: I64, high: I64, last: int) -> I64:
    """The extremes of buckets that follow one another, and ``last``: rising, without repeats."""
    rows = np.empty(2 * len(low) + 1, dtype=np.int64)
    rows[:-1:2], rows[1::2], rows[-1] = np.minimum(low, high), np.maximum(low, high), last
    return rows[np.diff(rows, prepend=-1) > 0]


@dataclass(frozen=True)
class Picked:
    """Row numbers to draw, the number of rows they stand for, and the rows of one bucket (1: every row is there)."""

    rows: I64
    total: int
    bucket: int


@dataclass(frozen=True)
class Table:
    """An immutable look at growing columns: the same rows for ever, whatever is appended later."""

    columns: Mapping[str, F64]
    length: int
    extremes: Mapping[str, Extremes]
    starts: tuple[int, ...]
    """First row of each attempt; ``step`` rises within an attempt."""
    smoothings: Smoothings

    def smoothed(self, signal: str, weight: float) -> F64:
        """A column's exponential moving average over all rows there are; ``weight`` in [0, 1)."""
        return self.smoothings.of(signal, weight, self.columns[signal], self.starts, self.columns["step"])

    def __getitem__(self, name: str) -> F64:
        return self.columns[name]

    def last(self, name: str) -> float:
        """The newest value of a column; there must be a row."""
        return float(self.columns[name][-1])

    def window(self, first: float, last: float) -> list[tuple[int, int]]:
        """Row ranges, one an attempt, with ``first <= step <= last``."""
        found: list[tuple[int, int]] = []
        if not self.starts:
            return found
        for start, end in zip(self.starts, (*self.starts[1:], self.length), strict=True):
            part = self.columns["step"][start:end]
            low, high = np.searchsorted(part, first, "left"), np.searchsorted(part, last, "right")
            if high > low:
                found.append((start + int(low), start + int(high)))
        return found

    def pick(self, signal: str, budget: int, window: tuple[float, float] | None = None) -> Picked:
        """The rows to draw ``signal`` with: all of them up to ``budget``, then the extremes of equal buckets."""
        if window is None and signal in self.extremes:
            held = self.extremes[signal].of(self.columns[signal])
            return Picked(held.indices(), held.rows, held.bucket)
        ranges = self.window(*(window or (-np.inf, np.inf)))
        total = sum(stop - start for start, stop in ranges)
        bucket = 1
        while total / bucket > budget:
            bucket *= 2
        if bucket == 1:
            parts = [np.arange(start, stop) for start, stop in ranges]
        else:
            parts = [self._thinned(signal, start, stop, bucket) for start, stop in ranges]
        return Picked(np.concatenate(parts) if parts else np.empty(0, dtype=np.int64), total, bucket)

    def _thinned(self, signal: str, start: int, stop: int, bucket: int) -> I64:
        """Buckets are aligned to row 0, so that a window that slides on keeps the points it had."""
        low, high = bucket_extremes(self.columns[signal], start - start % bucket, stop, bucket)
        chosen = _rising(low, high, stop - 1)
        return chosen[chosen >= start]
