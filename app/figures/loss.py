"""Loss over steps: measured, predicted with its error band, abandoned attempts, phase bands, event marks. Pure."""

import math
from dataclasses import dataclass

import numpy as np

from app.figures.confidence import alone_trace
from app.figures.spec import (
    Figure,
    Json,
    band_columns,
    band_letters,
    band_shapes,
    layout,
    mark_trace,
    nan_series,
    nan_trace,
    outline_trace,
)
from app.store import NotFinite, Snapshot
from app.views import words
from app.views.bands import Bands, bands
from app.views.marks import Mark, Marks, marks
from app.views.series import Line, Look, Series, line
from trainer_core.spec.records import RunState

_FLAT = 3.0
"""What was rolled back may be so many times as high as the living line before the axis leaves it out."""
_MARGIN = 0.06
"""Of the axis, above and below what it shows."""


@dataclass(frozen=True)
class LossView:
    """What the loss chart shows."""

    measured: Line
    predicted: Line
    bands: Bands
    marks: Marks
    not_finite: tuple[NotFinite, ...]
    low: float
    high: float
    log: bool
    rollbacks: tuple[int, ...]
    ended: bool
    """The run said that it is over."""
    foretold: bool
    """Anything was ever predicted."""

    @property
    def not_on_log(self) -> int:
        """Measured points in view that a logarithmic axis has no place for; 0 on a linear one."""
        lines = (self.measured.kept, self.measured.abandoned)
        return sum(int((each.columns["y"] <= 0).sum()) for each in lines) if self.log else 0

    @property
    def above(self) -> tuple[float, float] | None:
        """(top of the axis, highest abandoned loss) where what was rolled back would press the living line flat."""
        living = _top(self.measured.kept, self.predicted.kept)
        gone = _top(self.measured.abandoned, self.predicted.abandoned)
        return None if self.log or living is None or gone is None or gone <= _FLAT * living else (living, gone)


def view(snapshot: Snapshot, look: Look) -> LossView:
    """The loss chart of a snapshot."""
    window = look.window
    low, high = window.resolve(snapshot)
    found, over = marks(snapshot, low, high), snapshot.latest(RunState)
    return LossView(
        measured=line(snapshot, snapshot.steps, "loss", window, ("loss_ema",), smooth=look.smooth),
        predicted=line(snapshot, snapshot.path, "loss", window, ("low", "high"), piece="cycle"),
        bands=bands(snapshot, low, high),
        marks=found,
        not_finite=snapshot.not_finite,
        low=low,
        high=high,
        log=look.log,
        rollbacks=tuple(mark.step for mark in found.attempts),
        ended=over is not None and over.state not in ("running", "paused"),
        foretold=snapshot.path.length > 0,
    )


def figure(loss: LossView) -> Figure:
    """The drawing of a view."""
    measured, predicted = loss.measured, loss.predicted
    above = loss.above
    left_out = f" · abandoned up to {above[1]:.3g}, above the axis (log shows it)" if above else ""
    foretold = f" · predicted {predicted.caption}" if loss.foretold else ""
    below = loss.not_on_log
    off = f" · {words.several(below, 'point')} at or below 0 left out, which a log axis does not have" if below else ""
    merged = f" · bands: main phase of every {loss.bands.cell:,.0f} steps" if loss.bands.merged else ""
    scale = {"type": "log" if loss.log else "linear", "title": {"text": "loss", "standoff": 6}, "nticks": 7}
    scale["autorangeoptions"] = _clipped(loss, above[0]) if above else {}
    return Figure(
        name="loss",
        title="Loss",
        caption=f"measured {measured.caption}{foretold}{left_out}{off}{merged}",
        traces=_traces(),
        layout=layout(
            loss.low,
            loss.high,
            scale,
            margin={"l": 52, "r": 14, "t": 8, "b": 40},
            shapes=[*band_shapes(0.13), *_split_lines(loss.rollbacks)],
            annotations=[*band_letters(loss.bands), *_split_labels(loss), *_nothing_yet(loss)],
        ),
        columns={
            "measured": Series(
                {"x": measured.kept.columns["x"], "y": measured.kept.columns["y"]}, seq=measured.kept.seq
            ),
            "alone": measured.alone,
            "abandoned": measured.abandoned,
            "predicted": predicted.kept,
            "predicted_alone": predicted.alone,
            "predicted_abandoned": predicted.abandoned,
            "ema": _smooth(measured),
            **{f"mark_{kind}": _mark_series(found) for kind, found in vars(loss.marks).items()},
            "mark_nan": nan_series(loss.not_finite, "loss", loss.low, loss.high),
            **band_columns(loss.bands),
        },
        signals=("loss", "loss_ema", "predicted_loss", "predicted_low", "predicted_high"),
    )


def _traces() -> list[Json]:
    quiet = {"type": "scatter", "hoverinfo": "skip"}
    return [
        {"series": "abandoned", "name": "abandoned", **quiet, "mode": "lines",
         "line": {"color": "$abandoned", "width": 1}},
        {"series": "predicted_abandoned", "name": "abandoned prediction", **quiet, "mode": "lines",
         "line": {"color": "$abandoned", "width": 1, "dash": "dot"}},
        outline_trace("predicted", "error band", 0.28),
        {"series": "measured", "name": "measured", "type": "scatter", "mode": "lines", "hovertemplate": "%{y:.4g}",
         "line": {"color": "$measured@0.75", "width": 1.1}},
        alone_trace(),
        {"series": "ema", "name": "measured, smoothed", "type": "scatter", "mode": "lines",
         "hovertemplate": "%{y:.4g}", "line": {"color": "$measured", "width": 1.9}},
        {"series": "predicted", "name": "predicted", "type": "scatter", "mode": "lines", "hovertemplate": "%{y:.4g}",
         "line": {"color": "$phase_predict", "width": 2.2, "dash": "4px,3px"}},
        alone_trace("predicted_alone", "$phase_predict"),
        mark_trace("undone", "x-thin-open", "$muted", 0.945),
        mark_trace("commands", "triangle-down", "$text", 0.975),
        mark_trace("attempts", "line-ns-open", "$text", 0.975),
        mark_trace("warnings", "triangle-up", "$warning", 0.90),
        mark_trace("critical", "x", "$critical", 0.90),
        nan_trace(),
    ]  # fmt: skip


def _smooth(measured: Line) -> Series:
    """The reader's own smoothing, or else the average that the run itself keeps."""
    if "smooth" in measured.kept.columns:
        return measured.smoothed
    kept = measured.kept
    return Series({"x": kept.columns["x"], "y": kept.columns["loss_ema"]}, seq=kept.seq)


def _clipped(loss: LossView, top: float) -> Json:
    """The axis around all but what lies above ``top``; plotly's own margin would be a share of that."""
    lines = (loss.measured.kept, loss.measured.abandoned, loss.predicted.kept, loss.predicted.abandoned)
    found = [values[np.isfinite(values)].min(initial=top) for values in (each.columns["y"] for each in lines)]
    low = float(min(found))
    margin = _MARGIN * ((top - low) or top)
    return {"clipmin": low - margin, "clipmax": top + margin}


def _top(*series: Series) -> float | None:
    """The highest finite loss that is more than nothing; None without one."""
    found = [values[np.isfinite(values)].max(initial=0.0) for values in (each.columns["y"] for each in series)]
    return float(max(found)) or None


def _mark_series(found: list[Mark]) -> Series:
    return Series({"x": np.array([mark.step for mark in found], dtype=np.float64)}, tuple(mark.text for mark in found))


def _split_lines(steps: tuple[int, ...]) -> list[Json]:
    line_ = {"color": "$text", "width": 1.2, "dash": "dot"}
    return [
        {"type": "line", "x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1, "line": line_}
        for step in steps[-8:]
    ]


def _split_labels(loss: LossView) -> list[Json]:
    by_step = {mark.step: mark for mark in loss.marks.attempts if math.isfinite(mark.step)}  # the newest of each
    newest = list(by_step.values())[-8:]
    return [
        {"x": mark.step, "y": 0.06, "yref": "paper", "yanchor": "bottom", "xanchor": "left", "xshift": 3,
         "text": mark.text.split(" goes on")[0], "showarrow": False, "font": {"size": 10, "color": "$muted"}}
        for mark in newest
    ]  # fmt: skip


def _nothing_yet(loss: LossView) -> list[Json]:
    if loss.measured.total or loss.predicted.total:
        return []
    said = "no step was taken" if loss.ended else "waiting for the first step"
    middle = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return [{**middle, "text": said, "font": {"size": 14, "color": "$muted"}}]
