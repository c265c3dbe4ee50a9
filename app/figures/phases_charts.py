"""The charts of the Phases page: warmup, residual error, the newest prediction, reliability. Pure."""

from dataclasses import replace
from typing import Any

import numpy as np

from app.figures import confidence
from app.figures.spec import Figure, Json, layout, outline_trace
from app.store import PHASES, Snapshot
from app.table import F64
from app.theme import phase_token
from app.views.phases_all import Phases
from app.views.phases_predict import AROUND, Flight
from app.views.phases_trust import Trust
from app.views.phases_warmup import Warmup
from app.views.series import Look, Series, Window, line
from trainer_core.spec.phases import Phase

MOST_BARS = 120
MOST_STEPS = 20_000
"""Steps of residual error that are looked at: the newest ones in view."""
SYMBOLS = {Phase.WARMUP: "diamond", Phase.FULL: "circle", Phase.PREDICT: "square", Phase.CORRECT: "triangle-up"}
SIGNS = {Phase.WARMUP: "◆", Phase.FULL: "●", Phase.PREDICT: "■", Phase.CORRECT: "▲"}
"""The symbols as letters, for legends."""
LEAST_AROUND = 6
NOTHING = "nothing measured yet"


def warmup_loss(snapshot: Snapshot, found: Warmup) -> Figure:
    """Loss and its average over the steps of WARMUP."""
    steps, rows = snapshot.steps, found.rows
    x = steps["step"][rows]
    return Figure(
        name="warmup_loss",
        title="Loss",
        caption=_of_warmup(found),
        traces=[
            _line("measured", "loss", "$measured@0.45", 1.2),
            _line("average", "average (EMA)", "$phase_warmup", 2.2),
        ],
        layout=_plain(
            *_ends(x),
            {"nticks": 5, "title": {"text": "loss", "standoff": 4}},
            _nothing(len(rows), found.gone or NOTHING),
        ),
        columns={
            "measured": Series({"x": x, "y": steps["loss"][rows]}),
            "average": Series({"x": x, "y": steps["loss_ema"][rows]}),
        },
        steps=False,
    )


def warmup_gradient(snapshot: Snapshot, found: Warmup) -> Figure:
    """Gradient norm over the steps of WARMUP as bars, and the baseline it leaves."""
    steps, rows = snapshot.steps, found.rows
    x, norm, wide = binned_maxima(steps["step"][rows], steps["grad_norm"][rows])
    each = "" if wide == 1 else f" · a bar is the largest of {wide} steps"
    bars = {
        "series": "norms",
        "name": "gradient norm",
        "type": "bar",
        "hovertemplate": "%{y:.4g}",
        "width": 0.86 * wide,
    }
    return Figure(
        name="warmup_gradient",
        title="Gradient norm",
        caption=f"{_of_warmup(found)}{each}",
        traces=[
            {**bars, "marker": {"color": "$phase_warmup", "line": {"width": 0}}},
            _line("baseline", "baseline", "$text", 1.6, dash="dash"),
        ],
        layout=_plain(
            *_ends(steps["step"][rows]),
            {"nticks": 5, "rangemode": "tozero", "title": {"text": "norm", "standoff": 4}},
            _nothing(len(rows), found.gone or NOTHING),
        ),
        columns={
            "norms": Series({"x": x, "y": norm}),
            "baseline": Series({"x": steps["step"][rows], "y": steps["grad_norm_baseline"][rows]}),
        },
        steps=False,
    )


def binned_maxima(x: F64, values: F64) -> tuple[F64, F64, int]:
    """At most MOST_BARS bars: where, the largest value there, and the steps of one. NaN only where all are."""
    wide = max(1, -(-len(x) // MOST_BARS))
    if wide == 1:
        return x, values, 1
    count = -(-len(x) // wide)
    grid = np.full(count * wide, -np.inf)
    grid[: len(values)] = np.where(np.isnan(values), -np.inf, values)
    largest = grid.reshape(count, wide).max(axis=1)
    middles = np.array([x[at : at + wide].mean() for at in range(0, len(x), wide)])
    return middles, np.where(np.isneginf(largest), np.nan, largest), wide


def residual_error(snapshot: Snapshot, look: Look) -> Figure:
    """How wrong the predictor was at each step it was compared with; 1: as wrong as predicting no change."""
    low, high = look.window.resolve(snapshot)
    cut = max(low, high - MOST_STEPS)
    found = line(snapshot, snapshot.steps, "relative_error", Window(span=(cut, high)), ("phase",))
    kept = found.kept
    shown = int(np.isfinite(kept.columns["y"]).sum())
    columns: dict[str, Series] = {}
    for phase in PHASES:
        inside = np.isfinite(kept.columns["y"]) & (kept.columns["phase"] == PHASES.index(phase))
        seq = None if kept.seq is None else kept.seq[inside]
        columns[phase.value] = Series({"x": kept.columns["x"][inside], "y": kept.columns["y"][inside]}, seq=seq)
    limit = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "layer": "below"}
    note = {"xref": "paper", "x": 1, "xanchor": "left", "xshift": 4, "y": 1, "text": "no better<br>than none",
            "showarrow": False, "align": "left", "font": {"size": 10.5, "color": "$muted"}}  # fmt: skip
    newest = f" · the newest {MOST_STEPS:,} steps in view" if cut > low else ""
    return Figure(
        name="residual_error",
        title="Residual error",
        caption=f"of a step's weight change, relative · {shown:,} points{newest}",
        traces=[_dots(phase) for phase in PHASES],
        layout=layout(
            low,
            high,
            {"nticks": 5, "rangemode": "tozero"},
            shapes=[{**limit, "line": {"color": "$muted", "width": 1, "dash": "dash"}}],
            annotations=[note, *_nothing(shown, "the predictor has not said how wrong it is")],
        ),
        columns=columns,
        signals=("relative_error",),
    )


def prediction(snapshot: Snapshot, found: Flight | None) -> Figure:
    """The newest prediction: what was expected with its error band, and what was measured in and around it."""
    if found is None:
        return _blank("prediction", "Actual and predicted loss", "no prediction yet")
    low, high = _around(found)
    window = Window(span=(low, high))
    measured = line(snapshot, snapshot.steps, "loss", window, ("phase",)).kept
    expected = line(snapshot, snapshot.path, "loss", window, ("low", "high"), piece="cycle")
    path = expected.kept
    points = np.isfinite(measured.columns["y"])
    by_phase = {
        phase.value: _part(measured, points & (measured.columns["phase"] == PHASES.index(phase))) for phase in PHASES
    }
    return Figure(
        name="prediction",
        title="Actual and predicted loss",
        caption=_flight_caption(found, bool((path.columns["high"] > path.columns["low"]).any())),
        traces=[
            outline_trace("predicted", "error band", 0.26),
            _line("measured", "measured", "$measured@0.5", 1.0, hover=False),
            *[_dots(phase, size=6) for phase in PHASES],
            _line("predicted", "predicted", "$phase_predict", 2.2, dash="4px,3px"),
            _line("single_band", "error band", "$phase_predict@0.4", 5, hover=False),
            {"series": "single", "name": "predicted", "type": "scatter", "mode": "markers", "hovertemplate": "%{y:.4g}",
             "marker": {"size": 9, "symbol": "square-open", "color": "$phase_predict", "line": {"width": 2}}},
        ],
        layout=_plain(
            low, high, {"nticks": 6}, [], shapes=_inside(found)
        ),
        columns={
            "measured": Series({"x": measured.columns["x"], "y": measured.columns["y"]}),
            **by_phase,
            "predicted": path,
            **_single(path),
        },
        steps=False,
    )  # fmt: skip


def prediction_confidence(snapshot: Snapshot, seen: Phases) -> Figure:
    """Confidence in and around the newest prediction against the limits that end it."""
    found = seen.predict.flight
    if found is None:
        return _blank("prediction_confidence", "Confidence and its exit limits", "no prediction yet")
    drawn = confidence.figure(confidence.view(snapshot, Look(Window(span=_around(found))), seen.config))
    shape = {**drawn.layout, "shapes": [*drawn.layout["shapes"], *_inside(found)]}
    shape["xaxis"] = {**shape["xaxis"], "nticks": 6}
    known = [] if found.confidence is None else [(found.first - 0.5, found.confidence)]
    entered = np.array(known, dtype=np.float64).reshape(-1, 2)
    mark = {"series": "entered", "name": "entered", "type": "scatter", "mode": "markers+text", "cliponaxis": False,
            "texttemplate": "entered at %{y:.2f}", "hovertemplate": "%{y:.3f}",
            "textposition": _beside(0.0, found.confidence or 0.0), "textfont": {"size": 10.5, "color": "$muted"},
            "marker": {"size": 9, "symbol": "square", "color": "$phase_predict"}}  # fmt: skip
    return replace(
        drawn,
        name="prediction_confidence",
        title="Confidence and its exit limits",
        traces=[*drawn.traces, mark],
        layout=shape,
        columns={**drawn.columns, "entered": Series({"x": entered[:, 0], "y": entered[:, 1]})},
        steps=False,
        signals=(),
    )


def _single(path: Series) -> dict[str, Series]:
    """A prediction of one step has no line: its point, and its error band as a stroke."""
    x, y, low, high = (path.columns[name] for name in ("x", "y", "low", "high"))
    alone = np.isfinite(x) & (np.isfinite(x).sum() == 1)
    nan = np.full(int(alone.sum()), np.nan)
    strokes_x = np.column_stack([x[alone], x[alone], nan]).ravel()
    strokes_y = np.column_stack([low[alone], high[alone], nan]).ravel()
    return {"single": Series({"x": x[alone], "y": y[alone]}), "single_band": Series({"x": strokes_x, "y": strokes_y})}


def _inside(found: Flight) -> list[Json]:
    """The steps of a prediction, shaded."""
    box = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "layer": "below"}
    return [{**box, "x0": found.first - 0.5, "x1": found.last + 0.5, "fillcolor": "$phase_predict@0.1"}]


def reliability(found: Trust) -> Figure:
    """Stated confidence against how often the loss fell, a point a tenth, with what so few outcomes allow."""
    stated = np.array([tenth.stated for tenth in found.tenths])
    happened = np.array([tenth.happened for tenth in found.tenths])
    nan = np.full(len(found.tenths), np.nan)
    bars_x = np.column_stack([stated, stated, nan]).ravel()
    bars_y = np.column_stack([[t.low for t in found.tenths], [t.high for t in found.tenths], nan]).ravel()
    axis = {"range": [-0.04, 1.04], "nticks": 6, "tickformat": ".1f"}
    shape = _plain(-0.04, 1.04, {**axis, "title": {"text": "loss fell", "standoff": 4}}, _nothing(len(found.tenths)))
    shape["xaxis"] |= {**axis, "title": {**shape["xaxis"]["title"], "text": "stated confidence"}, "hoverformat": ".2f"}
    shape["hovermode"] = "closest"
    return Figure(
        name="reliability",
        title="Stated and true",
        caption=f"{found.outcomes:,} outcomes in tenths; bars: 95 % interval" if found.tenths else "nothing yet",
        traces=[
            _line("honest", "honest", "$muted", 1.2, dash="dash", hover=False),
            _line("interval", "interval", "$phase_predict@0.6", 2, hover=False),
            {"series": "tenths", "name": "outcomes", "type": "scatter", "mode": "markers+text",
             "textposition": [_beside(*place) for place in zip(stated, happened, strict=True)],
             "textfont": {"size": 10.5, "color": "$muted"}, "cliponaxis": False,
             "marker": {"size": 10, "color": "$phase_predict", "line": {"width": 1, "color": "$surface"}},
             "hovertemplate": "stated %{x:.3f}, happened %{y:.3f}: %{text}<extra></extra>"},
        ],
        layout=shape,
        columns={
            "honest": Series({"x": np.array([0.0, 1.0]), "y": np.array([0.0, 1.0])}),
            "interval": Series({"x": bars_x, "y": bars_y.astype(np.float64)}),
            "tenths": Series({"x": stated, "y": happened}, tuple(f"{t.better} of {t.outcomes}" for t in found.tenths)),
        },
        steps=False,
    )  # fmt: skip


def _beside(x: float, y: float) -> str:
    """Where a point's words stand so that no edge of a chart from 0 to 1 cuts them."""
    return f"{'bottom' if y > 0.5 else 'top'} {'left' if x > 0.9 else 'right'}"


def _blank(name: str, title: str, text: str) -> Figure:
    """A chart with nothing to draw says so, without axes."""
    shape = _plain(0.0, 1.0, {"visible": False}, _nothing(0, text))
    shape["xaxis"] |= {"visible": False}
    return Figure(name, title, "", [], shape, {}, steps=False)


def _plain(low: float, high: float, y: Json, annotations: list[Json], **more: Any) -> Json:
    """The common layout on an axis of a chart's own."""
    margin = {"l": 52, "r": 14, "t": 8, "b": 40}
    shape = layout(low, high, y, margin=margin, annotations=annotations, **more)
    shape["xaxis"] |= {"nticks": 6}
    return shape


def _ends(x: F64) -> tuple[float, float]:
    """The axis over some steps, with room for the bars at both ends."""
    return (float(x[0]) - 0.6, float(x[-1]) + 0.6) if len(x) else (0.0, 10.0)


def _around(found: Flight) -> tuple[float, float]:
    room = max(LEAST_AROUND, round(AROUND * (found.last - found.first + 1)))
    return max(0.0, float(found.first - room)), float(found.last + room)


def _flight_caption(found: Flight, banded: bool) -> str:
    between = " · nothing is measured inside a jump" if found.jump else ""
    return f"steps {found.first:,} to {found.last:,} · dashed: expected{' ± error' if banded else ''}{between}"


def _of_warmup(found: Warmup) -> str:
    if not len(found.rows):
        return found.gone or "no step yet"
    return f"{len(found.rows):,} steps" + ("" if found.whole else ", the newest of them")


def _part(series: Series, inside: Any) -> Series:
    return Series({"x": series.columns["x"][inside], "y": series.columns["y"][inside]})


def _dots(phase: Phase, size: float = 5) -> Json:
    marker = {"size": size, "symbol": SYMBOLS[phase], "color": f"${phase_token(phase)}@0.85"}
    dots = {"series": phase.value, "name": phase.value, "type": "scatter", "mode": "markers"}
    return {**dots, "hovertemplate": "%{y:.4g}", "marker": marker}


def _line(series: str, name: str, colour: str, width: float, dash: str = "solid", hover: bool = True) -> Json:
    reads = {"hovertemplate": "%{y:.4g}"} if hover else {"hoverinfo": "skip"}
    pen = {"color": colour, "width": width, "dash": dash}
    return {"series": series, "name": name, "type": "scatter", "mode": "lines", **reads, "line": pen}


def _nothing(found: int, text: str = NOTHING) -> list[Json]:
    if found:
        return []
    middle = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return [{**middle, "text": text, "font": {"size": 13, "color": "$muted"}}]
