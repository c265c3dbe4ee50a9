"""Gradient norms by layer: bars of the newest step, and a heatmap over the run. Pure."""

import math

import numpy as np

from app.figures.spec import Figure, Json, decades, layout
from app.table import F64
from app.theme import HEAT
from app.views.health_layers import LayersView
from app.views.series import Series
from trainer_core.spec.severity import Severity

TONES = {
    "healthy": (Severity.HEALTHY, "$measured@0.75", ""),
    "low": (Severity.CAUTION, "$caution", " ← vanishing"),
    "high": (Severity.WARNING, "$warning", " ← explodes"),
}
"""Bars by what is wrong with them: colour and words, never colour alone."""

MOST_NAMED = 26
"""Rows up to which each has room for its name."""
LONGEST = 30
"""Letters of a name that there is room for."""
SMALL: Json = {"color": "$muted", "size": 9.5}


def bars(seen: LayersView) -> Figure:
    """The newest norms, in model order, on a log axis; those beyond a limit say so."""
    low, high = _decades(seen.now_R)
    shape = layout(math.log10(low), math.log10(high), _rows(seen))
    shape["xaxis"] |= {**decades(low, high), "tickformat": "", "hoverformat": ".3g"}
    shape["xaxis"]["title"] = {**shape["xaxis"]["title"], "text": "gradient norm"}
    shape |= {
        "barmode": "overlay",
        "bargap": 0.25,
        "hovermode": "closest",
        "margin": {"l": 46, "r": 44, "t": 6, "b": 38},
    }
    columns, traces = {}, []
    for key, (severity, colour, words) in TONES.items():
        chosen = np.array([seen.severity(norm) is severity for norm in seen.now_R], dtype=np.bool_)
        shown = np.where(chosen & np.isfinite(seen.now_R), seen.now_R, np.nan)
        bare = np.where(chosen & ~np.isfinite(seen.now_R), high, shown)  # no number: the whole width
        texts = tuple(f"{_said(norm)}{words}" if one else "" for one, norm in zip(chosen, seen.now_R, strict=True))
        columns[key] = Series({"x": bare}, texts)
        traces.append(_bar(key, colour, seen.rows))
    return Figure(
        name="layer_bars",
        title="By layer, now",
        caption=f"step {seen.step:,}{_sharing(seen)}" if len(seen.now_R) else "no backward pass yet",
        traces=traces,
        layout=shape,
        columns=columns,
        steps=False,
    )


def heatmap(seen: LayersView) -> Figure:
    """The largest norm of each stretch of steps, by layer; colours are on a log scale, gaps were not measured."""
    known = seen.log_norms_TR[np.isfinite(seen.log_norms_TR)]
    low, high = (math.floor(known.min()), math.ceil(known.max())) if len(known) else (-2, 1)
    high = max(high, low + 1)
    shape = layout(seen.low_step, seen.high_step, _rows(seen))
    shape |= {"hovermode": "closest", "margin": {"l": 46, "r": 12, "t": 6, "b": 38}}
    shape["xaxis"] |= {"nticks": 7, "showgrid": False}
    names = [f"r{i}" for i in range(len(seen.rows))]
    cells = Series({"x": seen.steps_T, **{name: seen.log_norms_TR[:, i] for i, name in enumerate(names)}})
    wide = f" · each cell the largest of {seen.width:,} steps" if seen.width > 1 else ""
    return Figure(
        name="layer_heat",
        title="By layer, over steps",
        caption=f"gradient norm{wide}{_sharing(seen)}" if len(seen.rows) else "no backward pass yet",
        traces=[
            {"series": "cells", "rows": names, "name": "", "type": "heatmap", "categories": list(seen.rows),
             "zmin": low, "zmax": high, "colorscale": [[i / (len(HEAT) - 1), f"$heat_{i}"] for i in range(len(HEAT))],
             "hoverongaps": False, "hovertemplate": "%{y}<br>step %{x:,d}: %{customdata:.3g}<extra></extra>",
             "colorbar": _scale(low, high)},
            {"series": "broken", "name": "NaN", "type": "scatter", "mode": "markers", "hoverinfo": "text",
             "categories": [row for _, row in seen.broken],
             "marker": {"symbol": "x", "size": 8, "color": "$critical", "line": {"width": 1, "color": "$surface"}}},
        ],
        layout=shape,
        columns={
            "cells": cells,
            "broken": Series(
                {"x": np.array([step for step, _ in seen.broken])},
                tuple(f"{row}: NaN or infinite about step {step:,.0f}" for step, row in seen.broken),
            ),
        },
    )  # fmt: skip


def _bar(key: str, colour: str, rows: tuple[str, ...]) -> Json:
    return {
        "series": key,
        "name": key,
        "type": "bar",
        "orientation": "h",
        "categories": list(rows),
        "marker": {"color": colour},
        "textposition": "outside",
        "constraintext": "none",
        "textfont": {"size": 10, "color": "$muted"},
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }


def _rows(seen: LayersView) -> Json:
    """The layers from the first to the last, downwards."""
    names = list(seen.rows)
    axis: Json = {"type": "category", "autorange": "reversed", "categoryarray": names, "showgrid": False}
    if max(map(len, names), default=0) > LONGEST:  # whole names would leave the norms no room; the pointer reads them
        told = names[:: math.ceil(len(names) / MOST_NAMED)]
        return {**axis, "tickvals": told, "ticktext": _short(told), "tickfont": SMALL}
    if len(names) > MOST_NAMED:
        return axis
    return {**axis, "dtick": 1, "tickfont": SMALL}


def _short(names: list[str]) -> list[str]:
    """Long names cut to the room there is; of a shared row's, that of its first layer.

    What all begin with is left out, and words are cut before numbers: those tell one layer from another.
    """
    firsts = [name.partition(" … ")[0].split(".") for name in names]
    same = 0
    while len(firsts) > 1 and all(len(f) > same + 1 and f[same] == firsts[0][same] for f in firsts):
        same += 1
    ends = [" …" if " … " in name else "" for name in names]
    return [_cut(first[same:], LONGEST - 4) + end for first, end in zip(firsts, ends, strict=True)]


def _cut(parts: list[str], most: int) -> str:
    """A dotted name in at most so many letters: its longest words lose letters first, its ends are kept at last."""
    for letters in range(max(map(len, parts)), 2, -1):
        cut = ".".join(p if len(p) <= letters or p.isdigit() else f"{p[: letters - 1]}…" for p in parts)
        if len(cut) <= most:
            return cut
    return f"{cut[: most // 2]}…{cut[-(most // 2 - 1) :]}"


def _sharing(seen: LayersView) -> str:
    return f" · {seen.layers} layers, each row the largest of up to {seen.per_row}" if seen.per_row > 1 else ""


def _said(norm: float) -> str:
    return f"{norm:.3g}" if np.isfinite(norm) else "NaN or infinite"


def _decades(norms: F64) -> tuple[float, float]:
    known = norms[np.isfinite(norms) & (norms > 0)]
    if not len(known):
        return 0.01, 10.0
    floor, ceiling = math.floor(math.log10(known.min())), math.ceil(math.log10(known.max() * 1.5))
    return 10.0 ** (floor if known.min() > 1.5 * 10.0**floor else floor - 1), 10.0**ceiling


def _scale(low: int, high: int) -> Json:
    """The colour bar, labelled with norms."""
    powers = list(range(low, high + 1))
    labels = [f"{10.0**power:g}" for power in powers]
    font = {"color": "$muted", "size": 10.5}
    return {"tickvals": powers, "ticktext": labels, "thickness": 10, "tickfont": font, "outlinewidth": 0, "xpad": 6}
