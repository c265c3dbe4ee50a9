"""Gradient norm over steps, on a log axis, with the zones of its ladder. Pure."""

import math
from dataclasses import dataclass

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
    nan_series,
    whole_decades,
    zones,
)
from app.store import NotFinite, Snapshot
from app.views.bands import Bands, bands
from app.views.series import Line, Look, line
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.severity import Ladder, Severity


@dataclass(frozen=True)
class GradientView:
    """What the gradient chart shows; no ladder while the configuration is unknown."""

    norm: Line
    ladder: Ladder | None
    bands: Bands
    not_finite: tuple[NotFinite, ...]
    low: float
    high: float


def view(snapshot: Snapshot, look: Look, config: Config | None) -> GradientView:
    """The gradient chart of a snapshot."""
    low, high = look.window.resolve(snapshot)
    return GradientView(
        norm=line(snapshot, snapshot.steps, "grad_norm", look.window, smooth=look.smooth),
        ladder=ladders(config)["grad_norm"] if config else None,
        bands=bands(snapshot, low, high),
        not_finite=snapshot.not_finite,
        low=low,
        high=high,
    )


def figure(seen: GradientView, zones_whole: bool = False) -> Figure:
    """The drawing of a view. A norm of zero or NaN cannot stand on a log axis; the line breaks there.

    ``zones_whole``: every zone is in the picture, also those far from the values.
    """
    floor, ceiling = _axis(seen, zones_whole)
    shapes, labels = _limits(seen.ladder, floor, ceiling)
    axis = decades(floor, ceiling)
    return Figure(
        name="gradient",
        title="Gradient norm",
        caption=UNMEASURED if seen.norm.absent else f"{seen.norm.caption} · breaks where no backward pass ran",
        traces=line_traces("gradient norm", "%{y:.3g}"),
        layout=layout(seen.low, seen.high, axis, shapes=[*band_shapes(0.0), *shapes], annotations=labels),
        columns={
            **line_columns(seen.norm),
            "mark_nan": nan_series(seen.not_finite, "grad_norm", seen.low, seen.high),
            **band_columns(seen.bands),
        },
        signals=("grad_norm",),
    )


def _axis(seen: GradientView, zones_whole: bool) -> tuple[float, float]:
    """Ends of the axis: whole decades around the values and the nearest limits, so that it stands still."""
    values = np.concatenate([seen.norm.kept.columns["y"], seen.norm.abandoned.columns["y"]])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.1, 10.0)
    if seen.ladder is not None:
        low = min(low, (seen.ladder.warning_below or low) / 2)
        high = max(high, (seen.ladder.warning_above or high) * 2)
        if zones_whole:
            low = min(low, (seen.ladder.critical_below or low) / 2)
            high = max(high, (seen.ladder.critical_above or high) * 2)
    return whole_decades(low, high)


def _limits(ladder: Ladder | None, floor: float, ceiling: float) -> tuple[list[Json], list[Json]]:
    if ladder is None:
        return [], []
    shapes, labels = zones(ladder, floor, ceiling), []
    for severity, above, below in ladder.rungs():
        for limit in (above, below):
            if limit is not None and floor < limit < ceiling and severity is not Severity.CAUTION:
                shape, label = limit_line(limit, f"{limit:g}", severity)
                shapes.append(shape)
                labels.append({**label, "y": math.log10(limit)})
    return shapes, apart(labels, math.log10(ceiling / floor))
