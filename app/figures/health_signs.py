"""The document's warning signs as small diagrams of the run's own numbers. Pure."""

from collections.abc import Callable

import numpy as np

from app.figures.confidence import alone_trace
from app.figures.health_losses import validation
from app.figures.spec import DECADES, Figure, Json, layout, limit_line, nan_series, nan_trace, outline_trace
from app.store import Snapshot
from app.table import F64
from app.views.series import Line, Look, Series, Window, line
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.severity import Severity

FAR = 0.10
"""A loss further than this share from the predicted one is the document's divergence."""
ZIGZAG = 60
"""Measured steps in which an oscillation is seen."""
AROUND_NAN = 150
SLOW = 0.98

Sign = Callable[[Snapshot, Look, Config], Figure]


def divergence(snapshot: Snapshot, look: Look, _config: Config) -> Figure:
    """Measured losses against the predicted one and the 10 % around it."""
    low, high = look.window.resolve(snapshot)
    path = line(snapshot, snapshot.path, "loss", look.window, piece="cycle").kept
    measured = line(snapshot, snapshot.steps, "loss", look.window)
    x, y = path.columns["x"], path.columns["y"]
    near = Series({"x": x, "low": y * (1 - FAR), "high": y * (1 + FAR)}, seq=path.seq)
    traces = [
        outline_trace("near", "predicted ± 10 %", 0.25),
        _line("measured", "actual", "$measured@0.7", 1.2),
        _line("predicted", "predicted", "$phase_predict", 2, "4px,3px"),
        alone_trace("predicted_alone", "$phase_predict"),
    ]  # fmt: skip
    columns = {"near": near, "measured": _bare(measured), "predicted": Series({"x": x, "y": y}, seq=path.seq)}
    columns["predicted_alone"] = line(snapshot, snapshot.path, "loss", look.window, piece="cycle").alone
    caption = "actual loss · predicted ± 10 %" if len(x) else "nothing was predicted in these steps"
    return _figure("divergence", "Loss, predicted and actual", caption, traces, low, high, _scale(look), columns)


def explosion(snapshot: Snapshot, look: Look, config: Config) -> Figure:
    """The gradient norm against its baseline and ten times that."""
    low, high = look.window.resolve(snapshot)
    found = line(snapshot, snapshot.steps, "grad_norm", look.window, ("grad_norm_baseline",))
    factor = ladders(config)["grad_growth"].warning_above or 10.0
    x, base = found.kept.columns["x"], found.kept.columns["grad_norm_baseline"]
    columns = {
        "norm": _bare(found),
        "base": Series({"x": x, "y": base}, seq=found.kept.seq),
        "limit": Series({"x": x, "y": factor * base}, seq=found.kept.seq),
        "alone": found.alone,
    }
    traces = [
        _line("base", "baseline", "$muted", 1.2, "dot"),
        _line("limit", f"{factor:g} x baseline", "$warning", 1.4, "dash"),
        _line("norm", "gradient norm", "$measured", 1.6),
        alone_trace(),
    ]
    caption = f"baseline dotted, {factor:g} times it dashed"
    return _figure(
        "explosion",
        "Gradient norm",
        caption,
        traces,
        low,
        high,
        DECADES,
        columns,
    )


def vanishing(snapshot: Snapshot, look: Look, config: Config) -> Figure:
    """The weakest layer's largest norm of each stretch of the run; the norm of all where none is told by layer."""
    layers = snapshot.side.layers
    if layers.empty:
        return _vanishing_as_a_whole(snapshot, look, config)
    limit = ladders(config)["layer_norm_low"].caution_below or 0.01
    weakest = np.full(len(layers.largest), np.nan)
    known = np.isfinite(layers.largest).any(axis=1) if layers.largest.size else np.zeros(len(weakest), dtype=np.bool_)
    if known.any():
        weakest[known] = np.nanmin(np.where(np.isfinite(layers.largest[known]), layers.largest[known], np.nan), axis=1)
    x: F64 = (np.arange(len(weakest), dtype=np.float64) + 0.5) * layers.width - 0.5
    drawn = Series({"x": x[known], "y": np.where(weakest > 0, weakest, np.nan)[known]})
    shape, label = limit_line(limit, f"{limit:g}", Severity.CAUTION)
    last = layers.now
    at = int(np.argmin(last)) if len(last) else 0
    caption = f"weakest now: {layers.names[at]} {last[at]:.3g}" if len(last) else "no backward pass yet"
    figure = _figure(
        "vanishing", "Weakest layer's gradient norm", caption,
        [_line("weakest", "weakest layer", "$measured", 1.6), alone_trace()], 0.0,
        float(x[-1]) + layers.width / 2 if len(x) else 10.0, DECADES,
        {"weakest": drawn, "alone": drawn if len(x) < 4 else _empty()}, steps=False,
    )  # fmt: skip
    figure.layout["shapes"], figure.layout["annotations"] = [shape], [{**label, "y": float(np.log10(limit))}]
    return figure


def _vanishing_as_a_whole(snapshot: Snapshot, look: Look, config: Config) -> Figure:
    low, high = look.window.resolve(snapshot)
    found = line(snapshot, snapshot.steps, "grad_norm", look.window)
    limit = ladders(config)["grad_norm"].warning_below or 0.1
    shape, label = limit_line(limit, f"{limit:g}", Severity.WARNING)
    known = found.total and not found.absent
    figure = _figure(
        "vanishing", "Gradient norm", "of all layers; none is told by itself" if known else "no backward pass yet",
        [_line("weakest", "gradient norm", "$measured", 1.6), alone_trace()], low, high, DECADES,
        {"weakest": _bare(found), "alone": found.alone},
    )  # fmt: skip
    figure.layout["shapes"], figure.layout["annotations"] = [shape], [{**label, "y": float(np.log10(limit))}]
    return figure


def plateau(snapshot: Snapshot, look: Look, config: Config) -> Figure:
    """The slowly smoothed loss, and since when it has not fallen."""
    low, high = look.window.resolve(snapshot)
    found = line(snapshot, snapshot.steps, "loss", look.window, smooth=max(look.smooth, SLOW))
    health = snapshot.side.health
    without = health.values.get("steps_without_gain") if health else None
    shapes: list[Json] = []
    notes: list[Json] = []
    if without is not None and health is not None and without > 0 and health.step - without >= low:
        since = float(health.step - without)
        shapes.append({"type": "rect", "x0": since, "x1": float(health.step), "yref": "paper", "y0": 0, "y1": 1,
                       "fillcolor": "$warning@0.12", "line": {"width": 0}, "layer": "below"})  # fmt: skip
        notes.append(_said(f"{without:,.0f} steps without a gain", since))
    limit = config.health.plateau_steps
    traces = [_line("faint", "loss", "$measured@0.25", 1), _line("smooth", "loss, smoothed", "$measured", 2)]
    figure = _figure(
        "plateau", "Loss, smoothed", f"a plateau is more than {limit:,} steps without a gain", traces, low, high,
        _scale(look), {"faint": _bare(found), "smooth": found.smoothed},
    )  # fmt: skip
    figure.layout["shapes"], figure.layout["annotations"] = shapes, notes
    return figure


def oscillation(snapshot: Snapshot, look: Look, config: Config) -> Figure:
    """The last losses one by one."""
    steps = snapshot.steps
    x, y = steps["step"][-ZIGZAG:], steps["loss"][-ZIGZAG:]
    low, high = (float(x.min()), float(x.max()) + 1) if len(x) else (0.0, 10.0)
    limit = config.divergence_config.max_sign_changes
    trace = {**_line("zigzag", "loss", "$measured", 1.4), "mode": "lines+markers", "marker": {"size": 4}}
    return _figure(
        "oscillation", f"Last {ZIGZAG} measured losses", f"more than {limit} changes of direction in 10 steps",
        [trace], low, high, _scale(look), {"zigzag": Series({"x": x, "y": y})}, steps=False,
    )  # fmt: skip


def overfitting(snapshot: Snapshot, look: Look, _config: Config) -> Figure:
    """Training falls while validation rises."""
    return validation(snapshot, look, "sign_overfitting")


def underfitting(snapshot: Snapshot, look: Look, config: Config) -> Figure:
    """Both losses against what is called high."""
    return validation(snapshot, look, "sign_underfitting", limit=config.health.underfitting_loss)


def nan(snapshot: Snapshot, look: Look, _config: Config) -> Figure:
    """The loss about the last step at which it was no number; the explosion point is marked."""
    stretches = [found for found in snapshot.not_finite if found.signal == "loss"]
    end = float(snapshot.last.step) if snapshot.last else 10.0
    if stretches:
        low = float(stretches[-1].first_step - AROUND_NAN)
        high = min(end, stretches[-1].last_step + AROUND_NAN / 3) + 1
        caption = f"explosion point: step {stretches[-1].first_step:,}, for {stretches[-1].count:,} steps"
    else:
        low, high, caption = max(0.0, end - AROUND_NAN), end + 1, "no NaN or infinite loss so far"
    found = line(snapshot, snapshot.steps, "loss", Window(span=(low, high)))
    columns = {
        "loss": _bare(found),
        "abandoned": found.abandoned,
        "mark_nan": nan_series(snapshot.not_finite, "loss", low, high),
    }
    traces = [
        _line("abandoned", "rolled back", "$abandoned", 1.4),
        _line("loss", "loss", "$measured", 1.6),
        nan_trace(),
    ]
    return _figure("nan", "Loss about the last NaN", caption, traces, low, high, _scale(look), columns, steps=False)


DIAGRAMS: dict[str, Sign] = {
    f.__name__: f for f in (divergence, explosion, vanishing, plateau, oscillation, overfitting, underfitting, nan)
}
"""By the key of the sign."""


def _figure(
    key: str, title: str, caption: str, traces: list[Json], low: float, high: float, y: Json,
    columns: dict[str, Series], steps: bool = True,
) -> Figure:  # fmt: skip
    shape = layout(low, high, y, margin={"l": 46, "r": 52, "t": 6, "b": 36})
    shape["xaxis"] |= {"nticks": 5}
    return Figure(f"sign_{key}", title, caption, traces, shape, columns, steps=steps)


def _scale(look: Look) -> Json:
    return {"type": "log" if look.log else "linear", "nticks": 5}


def _line(series: str, name: str, colour: str, width: float, dash: str = "solid") -> Json:
    return {"series": series, "name": name, "type": "scatter", "mode": "lines", "hovertemplate": "%{y:.4g}",
            "line": {"color": colour, "width": width, "dash": dash}}  # fmt: skip


def _bare(found: Line) -> Series:
    return Series({"x": found.kept.columns["x"], "y": found.kept.columns["y"]}, seq=found.kept.seq)


def _empty() -> Series:
    return Series({"x": np.empty(0), "y": np.empty(0)})


def _said(text: str, x: float) -> Json:
    return {"x": x, "y": 1.0, "yref": "paper", "yanchor": "top", "xanchor": "left", "text": text, "showarrow": False,
            "font": {"size": 11, "color": "$warning"}}  # fmt: skip
