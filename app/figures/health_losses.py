"""Losses on the Health page: the run's curve with its stages named, and training beside validation. Pure."""

import numpy as np

from app.figures.confidence import alone_trace
from app.figures.spec import (
    Figure,
    Json,
    band_columns,
    band_letters,
    band_shapes,
    layout,
    nan_series,
    nan_trace,
    outline_trace,
)
from app.store import Snapshot
from app.table import F64
from app.views.bands import bands
from app.views.health_curve import CLOSE, Stage, stages
from app.views.series import Line, Look, Series, Window, line
from trainer_core.spec.records import ValidationMeasured

SMOOTH = 0.9
"""Of curves whose shape matters more than their steps; the reader's own smoothing when that is more."""
MOST_VALIDATIONS = 5000
HUNDREDFOLD = 100.0
SPREAD = " · log axis: losses lie a hundredfold apart"
"""Said where the reader did not ask for a logarithmic axis and has one."""


def curve(snapshot: Snapshot, look: Look) -> Figure:
    """The whole run's smoothed loss, the predicted one within the document's 5 %, and what each stage did."""
    low, high = Window().resolve(snapshot)
    measured = line(snapshot, snapshot.steps, "loss", Window(), smooth=max(look.smooth, SMOOTH))
    predicted = line(snapshot, snapshot.path, "loss", Window(), piece="cycle").kept
    path = predicted.columns
    close = Series({"x": path["x"], "low": path["y"] * (1 - CLOSE), "high": path["y"] * (1 + CLOSE)})
    found = bands(snapshot, low, high)
    named = stages(snapshot)
    spread = _spread(measured.kept.columns["y"])
    return Figure(
        name="curve",
        title="This run's curve",
        caption=f"the whole run, smoothed · predicted ± 5 %{SPREAD if spread else ''}",
        traces=[
            outline_trace("close", "predicted ± 5 %", 0.28),
            _thin("faint", "loss", "$measured@0.25", 1),
            _thin("smooth", "loss, smoothed", "$measured", 2),
            {**_thin("predicted", "predicted", "$phase_predict", 2), "line": {
                "color": "$phase_predict", "width": 2, "dash": "4px,3px"}},
            alone_trace(),
            nan_trace(),
        ],
        layout=layout(
            low,
            high,
            {"type": "log" if look.log or spread else "linear", "nticks": 6},
            margin={"l": 46, "r": 14, "t": 8, "b": 38},
            shapes=band_shapes(0.10),
            annotations=[*band_letters(found), *(_note(stage, i, low, high) for i, stage in enumerate(named))],
        ),
        columns={
            "close": close,
            "faint": _bare(measured),
            "smooth": measured.smoothed,
            "predicted": Series({"x": path["x"], "y": path["y"]}, seq=predicted.seq),
            "alone": measured.alone,
            "mark_nan": nan_series(snapshot.not_finite, "loss", low, high),
            **band_columns(found),
        },
        steps=False,
        signals=("loss", "predicted_loss"),
    )  # fmt: skip


def _spread(y: F64) -> bool:
    """Whether the highest loss is so far above the usual one that a linear axis would show nothing else."""
    known = y[np.isfinite(y)]
    return bool(len(known) and known.min() > 0 and known.max() > HUNDREDFOLD * float(np.median(known)))


def validation(
    snapshot: Snapshot,
    look: Look,
    name: str = "validation",
    title: str = "Training and validation",
    limit: float | None = None,
) -> Figure:
    """The smoothed training loss and every validation; the best one is marked, ``limit`` is called high."""
    low, high = look.window.resolve(snapshot)
    measured = line(snapshot, snapshot.steps, "loss", look.window, smooth=max(look.smooth, SMOOTH))
    points = validations(snapshot)
    x, y = points.columns["x"], points.columns["y"]
    inside = (x >= low) & (x <= high)
    before = np.flatnonzero(x < low)[-1:]
    kept = np.sort(np.concatenate([before, np.flatnonzero(inside)]))
    return Figure(
        name=name,
        title=title,
        caption=_validated(x, y),
        traces=[
            _thin("faint", "training", "$measured@0.25", 1),
            _thin("smooth", "training, smoothed", "$measured", 1.9),
            {"series": "validation", "name": "validation", "type": "scatter", "mode": "lines+markers",
             "hovertemplate": "%{y:.4g}", "line": {"color": "$accent", "width": 1.9, "dash": "dash"},
             "marker": {"size": 6, "color": "$accent", "symbol": "square"}},
            alone_trace(),
            nan_trace(),
        ],
        layout=layout(
            low,
            high,
            _scale(look),
            margin={"l": 46, "r": 74 if limit is not None else 14, "t": 8, "b": 38},
            shapes=[] if limit is None else [_level(limit)],
            annotations=[*_best(x, y, low, high), *([] if limit is None else [_named(limit, look.log)])],
        ),
        columns={
            "faint": _bare(measured),
            "smooth": measured.smoothed,
            "validation": Series({"x": x[kept], "y": y[kept]}),
            "alone": measured.alone,
            "mark_nan": nan_series(snapshot.not_finite, "loss", low, high),
        },
        signals=("loss",),
    )  # fmt: skip


def validations(snapshot: Snapshot) -> Series:
    """The newest validations of the surviving line, by step."""
    kept: list[tuple[int, float]] = []
    for record in snapshot.surviving(ValidationMeasured, MOST_VALIDATIONS):
        while kept and kept[-1][0] >= record.step:
            kept.pop()  # measured once more
        kept.append((record.step, record.loss))
    points = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return Series({"x": points[:, 0], "y": points[:, 1]})


def _validated(x: F64, y: F64) -> str:
    known = np.flatnonzero(np.isfinite(y))
    if not len(known):
        return "no validation yet"
    best = known[np.argmin(y[known])]
    return f"validation {y[-1]:.4g} · best {y[best]:.4g} at step {x[best]:,.0f}"


def _best(x: F64, y: F64, low: float, high: float) -> list[Json]:
    known = np.flatnonzero(np.isfinite(y))
    if not len(known):
        return []
    best = known[np.argmin(y[known])]
    if not low <= x[best] <= high:
        return []
    return [{"x": float(x[best]), "xanchor": inwards(float(x[best]), low, high),
             "y": 0, "yref": "paper", "yanchor": "bottom", "text": "▲ best validation",
             "showarrow": False, "font": {"size": 10.5, "color": "$accent"}}]  # fmt: skip


def inwards(x: float, low: float, high: float) -> str:
    """Which side of a text is put at ``x``, so that it stays inside the chart."""
    place = (x - low) / max(high - low, 1e-12)
    return "left" if place < 0.25 else "right" if place > 0.75 else "center"


def _note(stage: Stage, at: int, low: float, high: float) -> Json:
    """What a stage did, above its place on the curve; each a line lower than the one before."""
    return {
        "x": stage.step,
        "xanchor": inwards(stage.step, low, high),
        "y": 0.93 - 0.11 * at,
        "yref": "paper",
        "text": stage.text,
        "showarrow": False,
        "bgcolor": "$raised@0.85",
        "bordercolor": "$line",
        "borderpad": 3,
        "font": {"size": 11, "color": "$text"},
    }


def _thin(series: str, name: str, colour: str, width: float) -> Json:
    return {"series": series, "name": name, "type": "scatter", "mode": "lines", "hovertemplate": "%{y:.4g}",
            "line": {"color": colour, "width": width}}  # fmt: skip


def _bare(found: Line) -> Series:
    kept = found.kept
    return Series({"x": kept.columns["x"], "y": kept.columns["y"]}, seq=kept.seq)


def _scale(look: Look) -> Json:
    return {"type": "log" if look.log else "linear", "nticks": 6}


def _level(y: float) -> Json:
    line_ = {"color": "$warning", "width": 1.2, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line_, "layer": "below"}


def _named(y: float, log: bool) -> Json:
    return {"xref": "paper", "x": 1.0, "xanchor": "left", "xshift": 4, "y": float(np.log10(y)) if log else y,
            "text": f"▲ {y:g} high", "showarrow": False, "font": {"size": 10.5, "color": "$warning"}}  # fmt: skip
