"""What a live chart is: traces that name columns, and a layout. The browser holds the plotly figure. Knows no run.

Colours are token names (``$measured``, with opacity ``$phase_full@0.14``), which the browser looks up for its theme.
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from app import theme
from app.store import NotFinite
from app.views.bands import Bands
from app.views.series import Series
from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Ladder, Severity

Json = dict[str, Any]


UNMEASURED = "not measured in these steps"
"""Caption of a chart that has steps and no value."""
CLOSE = 0.09
"""Share of an axis below which the labels of two limits would cover one another."""
DECADES: Json = {
    "type": "log",
    "dtick": 1,
    "exponentformat": "power",
    "tickfont": {"color": "$muted", "size": 9.6},  # plotly draws powers a quarter larger
}
"""A logarithmic y axis with a tick a decade."""
LEAST_DECADE = -300
"""Smaller values are not told from nothing: their fractions are no floats any more."""
MOST_DECADES = 8
"""Of which each has its tick; more of them share."""


@dataclass(frozen=True)
class Figure:
    """One chart. ``traces`` and ``shapes`` refer to ``columns`` by name; only changed columns travel."""

    name: str
    title: str
    caption: str
    traces: list[Json]
    layout: Json
    columns: dict[str, Series]
    steps: bool = True
    """Whether the x axis is the step axis that all charts of a page share and zoom together."""
    signals: tuple[str, ...] = ()
    """Fields of StepRecord that it draws: what its CSV holds, at full resolution."""


def layout(low: float, high: float, y: Json, **more: Any) -> Json:
    """What the three charts have in common: the same step axis, quiet grid, one hover box."""
    axis = {
        "gridcolor": "$grid",
        "linecolor": "$line",
        "tickfont": {"color": "$muted"},
        "zeroline": False,
        "exponentformat": "e",
        "ticklabeloverflow": "allow",  # plotly's own way measures every label at every drawing; see chart.js
    }
    return {
        "xaxis": {
            **axis,
            "type": "linear",
            "automargin": "height",
            "range": [low, high],
            "title": {"text": "step", "font": {"color": "$muted", "size": 11}, "standoff": 4},
            "tickformat": ",d",
            "nticks": 12,
            "hoverformat": ",d",
        },
        "yaxis": {**axis, "automargin": "width", **y},
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "$text", "size": 12, "family": "inherit"},
        "margin": {"l": 52, "r": 82, "t": 8, "b": 40},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "$raised", "bordercolor": "$line", "font": {"color": "$text"}},
        "showlegend": False,
        "dragmode": "zoom",
        **more,
    }


def whole_decades(low: float, high: float) -> tuple[float, float]:
    """Powers of ten around two positive values, as far as there are floats for them."""
    floor, ceiling = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0 ** min(max(floor, LEAST_DECADE), 307), 10.0 ** min(max(ceiling, LEAST_DECADE), 308)


def round_above(value: float, part: int) -> float:
    """The next multiple of ``1 / part`` of its decade; of what is no more than nothing: 0."""
    if value <= 0:
        return 0.0
    step = 10.0 ** max(LEAST_DECADE, math.floor(math.log10(value))) / part
    return min(math.ceil(value / step) * step, sys.float_info.max)


def decades(low: float, high: float) -> Json:
    """A logarithmic axis from ``low`` to ``high`` whose ticks do not cover one another."""
    ends = [math.log10(end) for end in (low, high)]
    return {**DECADES, "range": ends, "dtick": max(1, math.ceil((ends[1] - ends[0]) / MOST_DECADES))}


def band_shapes(opacity: float) -> list[Json]:
    """One path shape a phase, over the whole height (cheap) and, solid, as a ribbon under the curve."""
    return [
        {
            "type": "path",
            "band": f"band_{phase.value}",
            "yspan": span,
            "yref": "paper",
            "layer": "below",
            "line": {"width": 0},
            "fillcolor": f"${theme.phase_token(phase)}@{strength}",
        }
        for phase in Phase
        for span, strength in (([0.0, 1.0], opacity), ([0.0, 0.022], 0.95))
    ]


def band_columns(found: Bands) -> dict[str, Series]:
    """The edges of the bands, a column pair a phase."""
    return {f"band_{phase.value}": Series({"x": edges[:, 0], "y": edges[:, 1]}) for phase, edges in found.edges.items()}


def band_letters(found: Bands) -> list[Json]:
    """Phase letters at the top of the bands."""
    return [
        {
            "x": x,
            "y": 1.0,
            "yref": "paper",
            "yanchor": "top",
            "text": f"<b>{phase.letter}</b>",
            "showarrow": False,
            "font": {"size": 10, "color": f"${theme.phase_token(phase)}"},
        }
        for x, phase in found.letters
    ]


def limit_line(y: float, text: str, severity: Severity) -> tuple[Json, Json]:
    """A limit over the whole width and its label in the right margin."""
    colour = f"${theme.severity_token(severity)}"
    line = {"color": colour, "width": 1.2, "dash": "dash" if severity is Severity.WARNING else "solid"}
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"}
    label = {
        "xref": "paper",
        "x": 1.0,
        "xanchor": "left",
        "xshift": 4,
        "yref": "y",
        "y": y,
        "text": f"{theme.ICON[severity]} {text}",
        "showarrow": False,
        "font": {"size": 10.5, "color": colour},
    }
    return shape, label


def apart(labels: list[Json], span: float) -> list[Json]:
    """Labels whose limits lie closer than a line of text are moved away from one another, all of a cluster."""
    ordered = sorted(labels, key=lambda label: float(label["y"]))
    clusters: list[list[Json]] = []
    for label in ordered:
        if clusters and label["y"] - clusters[-1][-1]["y"] < CLOSE * span:
            clusters[-1].append(label)
        else:
            clusters.append([label])
    for cluster in (found for found in clusters if len(found) > 1):
        for place, label in enumerate(cluster):
            label["yshift"] = (2 * place - len(cluster) + 1) * 7
    return ordered


def zone(low: float, high: float, severity: Severity) -> Json:
    """A pale zone between two values, over the whole width."""
    colour = f"${theme.severity_token(severity)}@{'0.10' if severity is Severity.CRITICAL else '0.07'}"
    box = {"xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high}
    return {"type": "rect", **box, "fillcolor": colour, "line": {"width": 0}, "layer": "below"}


def zones(ladder: Ladder, floor: float, ceiling: float) -> list[Json]:
    """The zones of a ladder between the ends of an axis: each rung until the next worse one."""
    found: list[Json] = []
    inner_high, inner_low = ceiling, floor
    for severity, above, below in ladder.rungs():
        if above is not None and above < inner_high:
            found.append(zone(above, inner_high, severity))
            inner_high = above
        if below is not None and below > inner_low:
            found.append(zone(inner_low, below, severity))
            inner_low = below
    return found


def outline_trace(series: str, name: str, opacity: float) -> Json:
    """A filled band between the columns ``low`` and ``high`` of a series, in the hue of predictions; x breaks it."""
    fill = {"fill": "toself", "fillcolor": f"$phase_predict@{opacity}", "line": {"width": 0}}
    return {
        "series": series,
        "outline": True,
        "name": name,
        "type": "scatter",
        "mode": "lines",
        "hoverinfo": "skip",
        **fill,
    }


def mark_trace(kind: str, symbol: str, colour: str, height: float) -> Json:
    """Event marks that ride at a height (0 to 1) of the chart, whatever the values; the pointer reads their text."""
    return {
        "series": f"mark_{kind}",
        "name": kind,
        "type": "scatter",
        "mode": "markers",
        "yaxis": "y2",
        "height": height,
        "cliponaxis": False,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": 9, "color": colour, "line": {"width": 1.6, "color": colour}},
    }


def nan_trace() -> Json:
    """Where a value was measured and was no number."""
    return {
        **mark_trace("nan", "diamond", "$critical", 0.86),
        "mode": "markers+text",
        "textposition": "bottom center",
        "textfont": {"size": 10, "color": "$critical"},
        "texttemplate": "NaN",
    }


def nan_series(found: Iterable[NotFinite], signal: str, low: float, high: float) -> Series:
    """One mark a stretch, the newest fifty in view."""
    shown = [n for n in found if n.signal == signal and low <= n.last_step and n.first_step <= high][-50:]
    return Series(
        {"x": np.array([stretch.first_step for stretch in shown], dtype=np.float64)},
        tuple(f"{signal} is NaN or infinite for {n.count} steps from {n.first_step:,}" for n in shown),
    )
