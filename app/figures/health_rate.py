"""The learning rate: the whole plan, what was applied, and where the run is on it. Pure."""

import sys

import numpy as np

from app.figures.confidence import alone_trace
from app.figures.spec import Figure, Json, layout, mark_trace, round_above
from app.views.health_rate import RateView
from app.views.series import Series


def figure(seen: RateView) -> Figure:
    """The drawing of a view, from the first step to the end of the plan."""
    top = _top(seen)
    shape = layout(0.0, seen.high * 1.02, {"range": [0, top], "tickformat": ".2~g", "nticks": 5})
    shape |= {"margin": {"l": 60, "r": 14, "t": 18, "b": 38}, "shapes": _edges(seen), "annotations": _names(seen)}
    shape["xaxis"] |= {"nticks": 7}
    kept = seen.applied.kept
    now = seen.now
    side = "left" if now is not None and now[0] > seen.high * 0.8 else "right"
    return Figure(
        name="learning_rate",
        title="Learning rate",
        caption=seen.said,
        traces=[
            {"series": "planned", "name": "planned", "type": "scatter", "mode": "lines", "hovertemplate": "%{y:.3g}",
             "line": {"color": "$faint", "width": 1.6, "dash": "dash"}},
            {"series": "ahead", "name": "to come", "type": "scatter", "mode": "lines", "hovertemplate": "%{y:.3g}",
             "line": {"color": "$accent", "width": 1.6, "dash": "dot"}},
            {"series": "abandoned", "name": "abandoned", "type": "scatter", "mode": "lines", "hoverinfo": "skip",
             "line": {"color": "$abandoned", "width": 1}},
            {"series": "applied", "name": "applied", "type": "scatter", "mode": "lines", "hovertemplate": "%{y:.3g}",
             "connectgaps": True, "line": {"color": "$accent", "width": 2.4}},
            alone_trace(colour="$accent"),
            {"series": "now", "name": "now", "type": "scatter", "mode": "markers+text", "hoverinfo": "skip",
             "texttemplate": "now", "textposition": f"bottom {side}", "textfont": {"color": "$text", "size": 11},
             "marker": {"size": 10, "color": "$accent", "line": {"width": 2, "color": "$surface"}}},
            mark_trace("changes", "triangle-down", "$text", 0.97),
        ],
        layout=shape,
        columns={
            "planned": seen.planned,
            "ahead": seen.ahead,
            "abandoned": seen.applied.abandoned,
            "applied": Series({"x": kept.columns["x"], "y": kept.columns["y"]}, seq=kept.seq),
            "alone": seen.applied.alone,
            "now": Series({"x": np.array([now[0]] if now else []), "y": np.array([now[1]] if now else [])}),
            "mark_changes": Series(
                {"x": np.array([float(mark.step) for mark in seen.changes])}, tuple(m.text for m in seen.changes)
            ),
        },
        steps=False,
        signals=("learning_rate",),
    )  # fmt: skip


def _top(seen: RateView) -> float:
    """A round number above every rate shown."""
    values = np.concatenate([s.columns["y"] for s in (seen.planned, seen.ahead, seen.applied.kept)])
    values = values[np.isfinite(values)]
    highest = min(float(values.max()) * 1.12, sys.float_info.max) if len(values) and values.max() > 0 else 1e-3
    return round_above(highest, 4)


def _edges(seen: RateView) -> list[Json]:
    line = {"color": "$line", "width": 1}
    return [
        {"type": "line", "x0": end, "x1": end, "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": "below"}
        for _, _, end in seen.stages
    ]


def _names(seen: RateView) -> list[Json]:
    """The parts of the schedule, over the plan; those too narrow for their name are left unnamed."""
    return [
        {"x": (low + high) / 2, "y": 1.0, "yref": "paper", "yanchor": "bottom", "text": name, "showarrow": False,
         "font": {"size": 10.5, "color": "$muted"}}
        for name, low, high in seen.stages
        if high - low > seen.high * 0.07
    ]  # fmt: skip
