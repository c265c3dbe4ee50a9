"""Losses of several runs over one axis, and their phase shares. Pure."""

from collections.abc import Sequence

import numpy as np

from app.figures.spec import Figure, Json, layout
from app.theme import phase_token
from app.views.compare import Compared, cost, shares, training, validation
from app.views.series import Series
from trainer_core.spec.phases import Phase

TITLES = {"step": "by step", "time": "by time at work", "backward": "by backward passes"}
UNITS = {"step": "step", "time": "seconds at work", "backward": "backward passes"}
DASHES = ("solid", "dash", "dot", "dashdot")
"""Told apart without colour too: by the order of the runs."""
FEW = 3000
"""Points up to which those without a neighbour are seen."""


def losses(runs: Sequence[Compared], axis: str, measured: str, log: bool = False, smooth: float = 0.0) -> Figure:
    """Training or validation loss (``measured``) of every run over one of step, time and backward."""
    series = {}
    for run in runs:
        paid = cost(run.snapshot)
        found = training(run, axis, paid, smooth) if measured == "training" else validation(run, axis, paid)
        series[run.name] = found
    highest = max(
        (float(np.nanmax(s.columns["x"])) for s in series.values() if np.isfinite(s.columns["x"]).any()), default=1.0
    )
    shape = layout(0.0, max(highest, 1.0), {"type": "log" if log else "linear", "nticks": 6})
    shape["xaxis"] |= {"title": {**shape["xaxis"]["title"], "text": UNITS[axis]}, "nticks": 5, "tickformat": "~s"}
    shape["margin"] = {"l": 46, "r": 10, "t": 6, "b": 40}
    points = sum(int(np.isfinite(s.columns["y"]).sum()) for s in series.values())
    return Figure(
        name=f"{measured}_{axis}",
        title=f"{measured.capitalize()} loss {TITLES[axis]}",
        caption="" if points else "nothing measured yet",
        traces=[_trace(run, DASHES[i % len(DASHES)], measured, points) for i, run in enumerate(runs)],
        layout=shape,
        columns={run.name: series[run.name] for run in runs},
        steps=False,
    )


def _trace(run: Compared, dash: str, measured: str, points: int) -> Json:
    dots = measured == "validation" or points <= FEW
    return {
        "series": run.name,
        "name": run.name,
        "type": "scatter",
        "mode": "lines+markers" if dots else "lines",
        "marker": {"size": 4 if measured == "validation" else 2.5},
        "line": {"color": f"$run_{run.colour}", "width": 1.7, "dash": dash},
        "hovertemplate": "%{y:.4g}",
    }


def phase_shares(runs: Sequence[Compared]) -> Figure:
    """Of all steps of each run that has phases, how many were of which."""
    phased = [run for run in runs if not run.snapshot.own_loop]
    without = "" if len(phased) == len(runs) else " · a loop watched by a Monitor has no phases"
    runs = phased
    found = [shares(run.snapshot) for run in runs]
    names = [run.name for run in runs]
    shape = layout(0.0, 1.0, {"type": "category", "autorange": "reversed"})
    shape["xaxis"] |= {"title": {"text": ""}, "tickformat": ".0%", "hoverformat": ".1%"}
    shape |= {"barmode": "stack", "hovermode": "closest", "margin": {"l": 80, "r": 18, "t": 6, "b": 28}}
    return Figure(
        name="phase_shares",
        title="Steps by phase",
        caption=f"of all steps taken, rolled back ones too{without}",
        traces=[
            {"series": phase.value, "name": phase.value, "type": "bar", "orientation": "h", "categories": names,
             "marker": {"color": f"${phase_token(phase)}"}, "texttemplate": phase.letter, "textposition": "inside",
             "hovertemplate": f"{phase.value} %{{x:.1%}}<extra></extra>"}
            for phase in Phase
        ],
        layout=shape,
        columns={phase.value: Series({"x": np.array([share[phase] for share in found])}) for phase in Phase},
        steps=False,
    )  # fmt: skip
