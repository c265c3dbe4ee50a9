"""One measured signal over steps between the limits of its ladder, small: ratio, variance, noise. Pure."""

import math

import numpy as np

from app.figures.confidence import line_columns, line_traces
from app.figures.spec import (
    UNMEASURED,
    Figure,
    Json,
    apart,
    band_columns,
    band_shapes,
    decades,
    layout,
    limit_line,
    round_above,
    whole_decades,
    zones,
)
from app.store import Snapshot
from app.table import F64
from app.views.bands import bands
from app.views.series import Line, Look, Series, line
from trainer_core.spec.severity import Ladder, Severity

Axis = tuple[float, float]


def signal(
    snapshot: Snapshot,
    look: Look,
    name: str,
    field: str,
    title: str,
    *,
    ladder: Ladder | None = None,
    log: bool = False,
    note: str = "",
    ideal: float | None = None,
    unmeasured: str = UNMEASURED,
) -> Figure:
    """``field`` of the steps. ``ideal`` is a value to aim at, drawn as a quiet line; ``unmeasured`` says why not."""
    low, high = look.window.resolve(snapshot)
    found = line(snapshot, snapshot.steps, field, look.window, smooth=look.smooth)
    ends = (_decades if log else _linear)(found, ladder, ideal)
    shapes, labels = limits(ladder, ends, log)
    if ideal is not None:
        shapes.append(_quiet(ideal))
        labels.append(_label(ideal, f"ideal {ideal:g}", log))
    axis: Json = decades(*ends) if log else {"range": list(ends), "nticks": 5}
    empty = not np.isfinite(found.kept.columns["y"]).any()
    shape = layout(low, high, axis, margin={"l": 46, "r": 74, "t": 6, "b": 38})
    shape["xaxis"] |= {"nticks": 5}
    return Figure(
        name=name,
        title=title,
        caption=unmeasured if empty else note or found.caption,
        traces=line_traces(title.lower(), "%{y:.3g}"),
        layout={**shape, "shapes": [*band_shapes(0.0), *shapes], "annotations": labels},
        columns={**line_columns(found), "mark_nan": _none(), **band_columns(bands(snapshot, low, high))},
        signals=(field,),
    )


def limits(ladder: Ladder | None, ends: Axis, log: bool) -> tuple[list[Json], list[Json]]:
    """Zones, lines and labels of a ladder between the ends of an axis."""
    if ladder is None:
        return [], []
    shapes, labels = zones(ladder, *ends), []
    for severity, above, below in ladder.rungs():
        for limit in (above, below):
            if limit is not None and ends[0] < limit < ends[1]:
                shape, label = limit_line(limit, f"{limit:g}", severity)
                shapes.append(shape)
                labels.append({**label, "y": math.log10(limit) if log else limit})
    span = math.log10(ends[1]) - math.log10(ends[0]) if log else ends[1] - ends[0]
    return shapes, apart(labels, span)


def _values(found: Line) -> F64:
    values: F64 = np.concatenate([found.kept.columns["y"], found.abandoned.columns["y"]])
    finite: F64 = values[np.isfinite(values)]
    return finite


def _bounds(ladder: Ladder | None, ideal: float | None) -> list[float]:
    found = [] if ladder is None else [end for end in ladder.healthy if math.isfinite(end)]
    return found + ([] if ideal is None else [ideal])


def _decades(found: Line, ladder: Ladder | None, ideal: float | None) -> Axis:
    """Whole decades around the values and the limits, so that the axis stands still."""
    values = _values(found)
    known = [*values[values > 0].tolist(), *(2 * end for end in _bounds(ladder, ideal))]
    known += [end / 2 for end in _bounds(ladder, ideal) if end > 0]
    low, high = (min(known), max(known)) if known else (0.1, 10.0)
    floor, ceiling = whole_decades(low, high)
    return floor, max(ceiling, 10.0 * floor)


def _linear(found: Line, ladder: Ladder | None, ideal: float | None) -> Axis:
    """From 0 to a round number above the values and the limits."""
    top = max([*_values(found).tolist(), *(1.25 * end for end in _bounds(ladder, ideal))], default=1.0)
    return 0.0, round_above(top, 2) or 1.0


def _quiet(y: float) -> Json:
    line_ = {"color": "$healthy", "width": 1.2, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line_, "layer": "below"}


def _label(y: float, text: str, log: bool) -> Json:
    _, label = limit_line(y, text, Severity.HEALTHY)
    return {**label, "y": math.log10(y) if log else y}


def _none() -> Series:
    return Series({"x": np.empty(0)}, ())
