"""Confidence over steps against its two limits. Pure."""

from dataclasses import dataclass

import numpy as np

from app.figures.spec import (
    UNMEASURED,
    Figure,
    Json,
    apart,
    band_columns,
    band_shapes,
    layout,
    limit_line,
    nan_series,
    nan_trace,
    zones,
)
from app.store import NotFinite, Snapshot
from app.views.bands import Bands, bands
from app.views.needed import lowered
from app.views.series import Line, Look, Series, line
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.severity import Ladder, Severity


@dataclass(frozen=True)
class ConfidenceView:
    """What the confidence chart shows; no ladder while the configuration is unknown."""

    confidence: Line
    ladder: Ladder | None
    lowered: str
    """Says so where less than the threshold is enough."""
    bands: Bands
    not_finite: tuple[NotFinite, ...]
    low: float
    high: float


def view(snapshot: Snapshot, look: Look, config: Config | None) -> ConfidenceView:
    """The confidence chart of a snapshot."""
    low, high = look.window.resolve(snapshot)
    return ConfidenceView(
        confidence=line(snapshot, snapshot.steps, "confidence", look.window, smooth=look.smooth),
        ladder=ladders(config)["confidence"] if config else None,
        lowered=lowered(snapshot, config),
        bands=bands(snapshot, low, high),
        not_finite=snapshot.not_finite,
        low=low,
        high=high,
    )


def figure(seen: ConfidenceView) -> Figure:
    """The drawing of a view."""
    shapes, labels = _limits(seen.ladder)
    said = UNMEASURED if seen.confidence.absent else seen.confidence.caption
    return Figure(
        name="confidence",
        title="Confidence",
        caption=" · ".join(filter(None, (said, seen.lowered))),
        traces=line_traces("confidence", "%{y:.3f}"),
        layout=layout(
            seen.low,
            seen.high,
            {"range": [-0.02, 1.02], "nticks": 6, "tickformat": ".1f"},
            shapes=[*band_shapes(0.0), *shapes],
            annotations=labels,
        ),
        columns={
            **line_columns(seen.confidence),
            "mark_nan": nan_series(seen.not_finite, "confidence", seen.low, seen.high),
            **band_columns(seen.bands),
        },
        signals=("confidence",),
    )


def line_columns(found: Line) -> dict[str, Series]:
    """The columns that ``line_traces`` names. A smoothed line takes the ink and leaves what was measured faint."""
    kept = found.kept
    bare = Series({"x": kept.columns["x"], "y": kept.columns["y"]}, seq=kept.seq)
    nothing = Series({"x": np.empty(0), "y": np.empty(0)})
    return {
        "abandoned": found.abandoned,
        "kept": nothing if "smooth" in kept.columns else bare,
        "faint": bare if "smooth" in kept.columns else nothing,
        "smooth": found.smoothed,
        "alone": found.alone,
    }


def line_traces(name: str, template: str) -> list[Json]:
    """One signal: what survives in ink, points that stand alone as dots, what was abandoned pale."""
    line_ = {"type": "scatter", "mode": "lines"}
    return [
        {"series": "abandoned", "name": "abandoned", **line_, "hoverinfo": "skip", "line": _pen("$abandoned", 1)},
        {"series": "kept", "name": name, **line_, "hovertemplate": template, "line": _pen("$measured", 1.4)},
        {"series": "faint", "name": name, **line_, "hovertemplate": template, "line": _pen("$measured@0.32", 1)},
        {
            "series": "smooth",
            "name": f"{name}, smoothed",
            **line_,
            "hovertemplate": template,
            "line": _pen("$measured", 1.9),
        },
        alone_trace(),
        nan_trace(),
    ]


def alone_trace(series: str = "alone", colour: str = "$measured") -> Json:
    """Dots for points without a neighbour."""
    marker = {"size": 3.5, "color": colour}
    return {
        "series": series,
        "name": series,
        "type": "scatter",
        "mode": "markers",
        "hoverinfo": "skip",
        "marker": marker,
    }


def _pen(colour: str, width: float) -> Json:
    return {"color": colour, "width": width}


def _limits(ladder: Ladder | None) -> tuple[list[Json], list[Json]]:
    if ladder is None:
        return [], []
    lines = [
        limit_line(limit, f"{limit:.2f} {word}", severity)
        for limit, word, severity in (
            (ladder.warning_below, "trust", Severity.WARNING),
            (ladder.critical_below, "critical", Severity.CRITICAL),
        )
        if limit is not None
    ]
    return [*zones(ladder, -0.02, 1.02), *(shape for shape, _ in lines)], apart([label for _, label in lines], 1.04)
