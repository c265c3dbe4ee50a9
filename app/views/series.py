"""Lines to draw, chosen from tables: down-sampled, broken where nothing was measured. Knows no colour and no figure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.store import Snapshot
from app.table import F64, I64, Picked, Table
from app.views import words
from trainer_core.spec.records import AttemptStarted

BUDGET = 1000
"""Buckets of one line: twice as many points at most."""
SHORT = 3
"""Points of a piece that is drawn with markers."""
LEAST = 10.0
"""Steps that are shown at least."""


@dataclass(frozen=True)
class Series:
    """Columns of one trace, all of one length; NaN is a break in the line."""

    columns: dict[str, F64]
    texts: tuple[str, ...] | None = None
    """Hover texts, where a trace has them."""
    seq: F64 | None = None
    """The journal rows of the points, where they have one: it tells attempts apart when x is to be a time."""

    @property
    def length(self) -> int:
        """How many points there are."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Window:
    """What part of the step axis is asked for: the last ``last`` steps, a span, or (both None) everything."""

    last: int | None = None
    span: tuple[float, float] | None = None

    def resolve(self, snapshot: Snapshot) -> tuple[float, float]:
        """The span of steps to show."""
        if self.span is not None:
            return self.span
        end = float(snapshot.step)
        reached = max((float(began.abandoned_step) for began in snapshot.of(AttemptStarted)), default=0.0)
        if self.last is not None:  # what was abandoned is in view, and what is alive as well
            reached = min(reached, end + self.last / 2)
        high = max(LEAST, end, reached)
        return (max(0.0, high - self.last) if self.last is not None else 0.0), high

    def filter(self, snapshot: Snapshot) -> tuple[float, float] | None:
        """The span to take rows from; None takes them all from buckets that are kept up to date."""
        return None if self.span is None and self.last is None else self.resolve(snapshot)


@dataclass(frozen=True)
class Look:
    """How a reader wants the charts: which steps, on which scales, how smooth."""

    window: Window
    log: bool = False
    """Loss on a logarithmic axis."""
    smooth: float = 0.0
    """Weight of the exponential moving average in [0, 1); 0 draws what was measured only."""
    x: str = "step"
    """step, relative (time since the run began) or wall (clock time)."""
    log_x: bool = False
    """Steps on a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """One signal: what survives, what was abandoned, and how much of it is drawn."""

    kept: Series
    abandoned: Series
    shown: int
    total: int

    @property
    def alone(self) -> Series:
        """Points of ``kept`` in pieces too short for a line to show: they want markers."""
        measured = np.isfinite(self.kept.columns["y"])
        ends = np.flatnonzero(np.diff(np.concatenate([[False], measured, [False]])))
        short = np.zeros(len(measured), dtype=np.bool_)
        for start, stop in zip(ends[0::2], ends[1::2], strict=True):
            short[start:stop] = stop - start <= SHORT
        seq = None if self.kept.seq is None else self.kept.seq[short]
        return Series({"x": self.kept.columns["x"][short], "y": self.kept.columns["y"][short]}, seq=seq)

    @property
    def smoothed(self) -> Series:
        """The average of what survives; empty when none was asked for."""
        if "smooth" not in self.kept.columns:
            return Series({"x": np.empty(0), "y": np.empty(0)})
        return Series({"x": self.kept.columns["x"], "y": self.kept.columns["smooth"]}, seq=self.kept.seq)

    @property
    def absent(self) -> bool:
        """There are steps, and none of them measured it."""
        return self.total > 0 and not any(np.isfinite(s.columns["y"]).any() for s in (self.kept, self.abandoned))

    @property
    def caption(self) -> str:
        """How many points are drawn, and of how many when some are left out."""
        total = words.several(self.total, "point")
        return f"{self.shown:,} of {total}" if self.shown < self.total else total


def line(
    snapshot: Snapshot,
    table: Table,
    signal: str,
    window: Window,
    others: tuple[str, ...] = (),
    piece: str | None = None,
    smooth: float = 0.0,
) -> Line:
    """``signal`` over steps, thinned by its own extremes, with ``others`` taken at the same rows.

    ``smooth`` above 0 adds the column ``smooth``: the average over the full series, taken at the same rows.

    The line breaks where the steps jump, or where the column ``piece`` changes when one is named.
    """
    picked = table.pick(signal, BUDGET, window.filter(snapshot))
    rows = picked.rows
    if picked.bucket > 1:
        rows = rows[~np.isnan(table[signal][rows])]
    gone = snapshot.abandoned(table, rows)
    columns = {name: table[name] for name in (signal, *others)}
    if smooth > 0.0:
        columns["smooth"] = table.smoothed(signal, smooth)
    return Line(
        kept=_series(table, rows[~gone], picked, columns, piece, snapshot.own_loop),
        abandoned=_series(table, rows[gone], picked, columns, piece, snapshot.own_loop),
        shown=len(rows),
        total=picked.total,
    )


def _series(
    table: Table, rows: I64, picked: Picked, values: Mapping[str, F64], piece: str | None, own_loop: bool
) -> Series:
    if not len(rows):
        nothing = np.empty(0)
        return Series(dict.fromkeys(("x", "y", *list(values)[1:]), nothing), seq=nothing)
    at = np.flatnonzero(_breaks(table, rows, picked, piece, own_loop)) + 1
    with_breaks, breaks = np.insert(rows, at, 0), at + np.arange(len(at))

    def broken(column: F64) -> F64:
        points = column[with_breaks]
        points[breaks] = np.nan
        return points

    first, *rest = values
    columns = {"x": broken(table["step"]), "y": broken(values[first])}
    return Series(columns | {name: broken(values[name]) for name in rest}, seq=broken(table["seq"]))


def _breaks(
    table: Table, rows: I64, picked: Picked, piece: str | None, own_loop: bool = False
) -> npt.NDArray[np.bool_]:
    """Between which neighbours the line breaks. Thinned lines break only at holes wider than their own spacing.

    A loop of one's own may tell of every tenth step only: that is its usual gap, and no hole.
    """
    apart: npt.NDArray[np.bool_] = np.diff(table["attempt"][rows]) != 0
    gaps = np.diff(table["step"][rows])
    if picked.bucket > 1:
        apart |= gaps > 8 * max(float(np.median(gaps)) if len(gaps) else 1.0, picked.bucket)
    elif piece is None:
        apart |= gaps > (1.5 * float(np.median(gaps)) if own_loop and len(gaps) else 1.0)
    else:
        apart |= np.diff(table[piece][rows]) != 0
    return apart
