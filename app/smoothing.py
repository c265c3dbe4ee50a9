"""Exponential smoothing of whole columns, kept up to date as they grow. Knows nothing of steps, zoom or drawing.

A smoothed line is always computed over the full series: what a zoom shows is the same line, seen closer. Where a run
went back, the series goes on from the row it went back to: what was abandoned is no part of what came after.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from app.columns import F64, Growing

I64 = npt.NDArray[np.int64]
NO_STEPS: F64 = np.empty(0)
MOST = 24
"""Smoothed columns kept at a time, of all signals and weights; the one asked for longest ago goes first."""


class Smoothed:
    """The debiased exponential moving average of one column: ``y_t = sum_k w^k x_(t-k) / sum_k w^k`` over the numbers
    that were measured; NaN where nothing was, and there the average waits.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._values = Growing(("average", "mass"))
        self._mean, self._mass = 0.0, 0.0

    def upto(self, column: F64, starts: Sequence[int] = (), steps: F64 = NO_STEPS) -> F64:
        """The average of ``column``, which has grown since the last call or is as it was.

        ``starts`` are the first rows of its attempts, ``steps`` the step of each row.
        """
        done = self._values.length
        for row in (start for start in starts if done <= start < len(column)):
            self._extend(column[self._values.length : row])
            self._go_back(np.flatnonzero(steps[:row] < steps[row]))
        self._extend(column[self._values.length :])
        self._values.seal()
        return self._values.columns()["average"][: len(column)]

    def _extend(self, fresh: F64) -> None:
        if len(fresh):
            mean, mass = self._next(fresh)
            self._values.join({"average": mean, "mass": mass})

    def _go_back(self, earlier: I64) -> None:
        """The next value follows that of the newest row of an earlier step."""
        held = self._values.columns()
        known = np.flatnonzero(np.isfinite(held["average"][: earlier[-1] + 1])) if len(earlier) else earlier
        self._mean, self._mass = (float(held[name][known[-1]]) if len(known) else 0.0 for name in ("average", "mass"))

    def _next(self, fresh: F64) -> tuple[F64, F64]:
        """Averages and the weight of all that is in them; NaN where nothing was measured."""
        measured = np.isfinite(fresh)
        if not measured.any():
            return np.full(len(fresh), np.nan), np.full(len(fresh), np.nan)
        series = pl.Series(np.where(measured, fresh, np.nan)).fill_nan(None)
        alone = series.ewm_mean(alpha=1.0 - self.weight, adjust=True, ignore_nulls=True).to_numpy()
        faded = self.weight ** np.cumsum(measured)
        mass = (1.0 - faded) / (1.0 - self.weight)
        total = mass + faded * self._mass
        mean = np.full(len(fresh), np.nan)
        np.divide(np.nan_to_num(alone) * mass + faded * self._mass * self._mean, total, out=mean, where=measured)
        last = int(np.flatnonzero(measured)[-1])
        self._mean, self._mass = float(mean[last]), float(total[last])
        return mean, total


class Smoothings:
    """Smoothed columns of one table by signal and weight; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, float], Smoothed] = OrderedDict()

    def of(self, signal: str, weight: float, column: F64, starts: Sequence[int] = (), steps: F64 = NO_STEPS) -> F64:
        """The smoothed ``column``; ``weight`` in [0, 1), 0 gives the column itself."""
        if weight <= 0.0:
            return column
        with self._lock:
            key = (signal, weight)
            held = self._held.get(key)
            if held is None:
                while len(self._held) >= MOST:
                    self._held.popitem(last=False)
                held = self._held[key] = Smoothed(weight)
            self._held.move_to_end(key)
            return held.upto(column, starts, steps)
