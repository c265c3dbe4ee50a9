"""The shared x axis of a page's charts: steps, time since the start, or the clock. Pure.

Figures are made over steps; here a finished one is put on the axis that the reader chose.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from app.figures.spec import Figure, Json
from app.store import Snapshot
from app.table import F64
from app.views.series import Look, Series, Window
from app.views.timeline import shortest_pause

MOST = 20_000
"""Steps between which times are interpolated; points of lines have exact ones."""
MOST_SILENCES = 50
"""Cut out of the bands of phases, the newest."""
UNITS = ((600.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (float("inf"), 3600.0, "h"))
"""Runs up to so many seconds are drawn in units of so many seconds."""


@dataclass(frozen=True)
class Axis:
    """Steps and journal rows to positions on the x axis, and back. ``zone`` is the reader's offset to UTC, minutes."""

    snapshot: Snapshot
    look: Look
    zone: int = 0

    @cached_property
    def began(self) -> float:
        """Unix seconds of the first step."""
        steps = self.snapshot.steps
        return float(steps["time"][0]) if steps.length else 0.0

    @cached_property
    def unit(self) -> tuple[float, str]:
        """Seconds of one unit of relative time, and its name."""
        steps = self.snapshot.steps
        lasted = float(steps["time"][-1]) - self.began if steps.length else 0.0
        return next((seconds, name) for most, seconds, name in UNITS if lasted <= most)

    @cached_property
    def _surviving(self) -> tuple[F64, F64]:
        """Steps of the surviving line and their times, thinned."""
        steps = self.snapshot.steps
        rows = np.unique(np.linspace(0, steps.length - 1, min(steps.length, MOST)).astype(np.int64))
        rows = rows[~self.snapshot.abandoned(steps, rows)]
        return steps["step"][rows], steps["time"][rows]

    def of_steps(self, steps: F64) -> F64:
        """Positions of steps of the surviving line."""
        known, times = self._surviving
        return self._placed(np.interp(steps, known, times)) if len(known) else np.full(len(steps), np.nan)

    def of_rows(self, seq: F64) -> F64:
        """Positions of journal rows, abandoned ones too."""
        table = self.snapshot.steps
        return self._placed(np.interp(seq, table["seq"], table["time"])) if table.length else np.full(len(seq), np.nan)

    def _placed(self, times: F64) -> F64:
        if self.look.x == "wall":
            return np.round((times + 60 * self.zone) * 1000.0)
        return (times - self.began) / self.unit[0]

    def steps_at(self, positions: tuple[float, float]) -> tuple[float, float]:
        """The steps between two positions: those of every attempt that was at work then."""
        if self.look.x == "wall":
            low, high = (value / 1000.0 - 60 * self.zone for value in positions)
        else:
            low, high = (value * self.unit[0] + self.began for value in positions)
        table = self.snapshot.steps
        later, earlier = np.flatnonzero(table["time"] >= low), np.flatnonzero(table["time"] <= high)
        first = int(later[0]) if len(later) else table.length  # a clock may have been set back: time need not rise
        last = int(earlier[-1]) + 1 if len(earlier) else 0
        inside = table["step"][max(0, first - 1) : last + 1]
        return (float(inside.min()), float(inside.max()) + 1.0) if len(inside) else (0.0, 1.0)

    def wanted(self) -> Look:
        """The look with its span in steps, which is what figures are made from."""
        span = self.look.window.span
        if span is None or self.look.x == "step":
            return self.look
        return replace(self.look, window=Window(self.look.window.last, self.steps_at(span)))

    def placed(self, figure: Figure) -> Figure:
        """A figure on this axis."""
        if not figure.steps:
            return figure
        if self.look.x == "step":
            return _logarithmic(figure) if self.look.log_x else figure
        columns = {name: self._series(name, series) for name, series in figure.columns.items()}
        layout = {**figure.layout, "xaxis": self._xaxis(figure.layout["xaxis"])}
        for key, ends in (("shapes", ("x0", "x1")), ("annotations", ("x",))):
            layout[key] = [self._moved(part, ends) for part in figure.layout.get(key, [])]
        return replace(figure, columns=columns, layout=layout)

    def _series(self, name: str, series: Series) -> Series:
        columns = dict(series.columns)
        columns["x"] = self.of_steps(columns["x"]) if series.seq is None else self.of_rows(series.seq)
        if name.startswith("band_"):  # begin and end of each band
            columns["x"], columns["y"] = self._worked(columns["x"], self.of_steps(columns["y"]))
        return replace(series, columns=columns)

    @cached_property
    def _silences(self) -> list[tuple[float, float]]:
        """Positions between which the surviving line took no step: the newest pauses, and times between processes."""
        _, times = self._surviving
        after = np.flatnonzero(np.diff(times) > shortest_pause(times))[-MOST_SILENCES:]
        return list(zip(self._placed(times[after]).tolist(), self._placed(times[after + 1]).tolist(), strict=True))

    def _worked(self, begins: F64, ends: F64) -> tuple[F64, F64]:
        """Stretches without the silences in them: no phase lasts a night in which nobody trained."""
        for low, high in self._silences:
            begins = np.where((begins > low) & (begins < high), high, begins)
            ends = np.where((ends > low) & (ends < high), low, ends)
            over = (begins <= low) & (ends >= high)
            begins, ends = (
                np.concatenate([begins, np.full(int(over.sum()), high)]),
                np.concatenate([np.where(over, low, ends), ends[over]]),
            )
        order = np.argsort(begins, kind="stable")
        order = order[ends[order] > begins[order]]
        return begins[order], ends[order]

    def _xaxis(self, xaxis: Json) -> Json:
        span = self.look.window.span
        ends = span if span is not None else tuple(self.of_steps(np.array(xaxis["range"], dtype=np.float64)).tolist())
        title = {
            **xaxis["title"],
            "text": "clock" if self.look.x == "wall" else f"time since the start ({self.unit[1]})",
        }
        moved = {**xaxis, "range": [_drawable(end) for end in ends], "title": title, "nticks": 10}
        if self.look.x == "wall":
            return {key: value for key, value in moved.items() if "format" not in key} | {"type": "date"}
        return {**moved, "tickformat": ",.4~g", "hoverformat": ",.4~g"}

    def _moved(self, part: Json, ends: tuple[str, ...]) -> Json:
        if part.get("xref") == "paper" or not all(end in part for end in ends):
            return part
        places = self.of_steps(np.array([part[end] for end in ends], dtype=np.float64))
        return {**part, **{end: _drawable(place) for end, place in zip(ends, places.tolist(), strict=True)}}


def _drawable(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _logarithmic(figure: Figure) -> Figure:
    """Steps on a logarithmic axis; there is no step below one on it."""

    def tenfold(value: Any) -> float:
        return float(np.log10(max(float(value), 1.0)))

    xaxis = figure.layout["xaxis"]
    xaxis = {**xaxis, "type": "log", "range": [tenfold(end) for end in xaxis["range"]]}
    annotations = [
        part if part.get("xref") == "paper" or "x" not in part else {**part, "x": tenfold(part["x"])}
        for part in figure.layout.get("annotations", [])
    ]
    shapes = [_from_one(part) for part in figure.layout.get("shapes", [])]
    columns = {
        name: replace(series, columns={key: np.maximum(values, 0.5) for key, values in series.columns.items()})
        if name.startswith("band_")
        else series
        for name, series in figure.columns.items()
    }
    layout = {**figure.layout, "xaxis": xaxis, "annotations": annotations, "shapes": shapes}
    return replace(figure, columns=columns, layout=layout)


def _from_one(shape: Json) -> Json:
    """A shape whose ends are steps, which plotly takes as they are on this axis: a rollback to step 0 stands at 1."""
    if shape.get("xref") == "paper" or "x0" not in shape:
        return shape
    return {**shape, **{end: max(float(shape[end]), 1.0) for end in ("x0", "x1")}}
