"""Small charts of the machine over time, and of the user's own metrics over steps. Pure."""

import numpy as np

from app.figures.confidence import line_columns, line_traces
from app.figures.health_signals import limits
from app.figures.spec import Figure, Json, layout
from app.store import Snapshot
from app.views.health_machine import GIB, curve
from app.views.series import Look, Series, line
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.severity import Ladder

MOST = 1e300
"""Above this no axis has room for a margin."""
PENS = (("$measured", "solid"), ("$accent", "dash"))


def cpu(snapshot: Snapshot) -> Figure:
    """Cores of this process, and what share of the machine is busy."""
    return _machine(snapshot, "sys_cpu", "CPU", "cores of this process", (("cpu", 1.0, "cores"),))


def memory(snapshot: Snapshot, config: Config | None) -> Figure:
    """The share of the host's memory in use, against its limits."""
    ladder = ladders(config)["memory_share"] if config else None
    return _machine(
        snapshot, "sys_memory", "Memory", "share of the host in use", (("memory_share", 1.0, "in use"),), ladder, 1.0
    )


def process(snapshot: Snapshot) -> Figure:
    """Resident memory of this process: what grows without end is a leak."""
    return _machine(snapshot, "sys_process", "Memory of this process", "GiB resident", (("rss", 1 / GIB, "GiB"),))


def disk(snapshot: Snapshot, config: Config | None) -> Figure:
    """What is left on the run directory's disk, against its limits."""
    ladder = ladders(config)["disk_free"] if config else None
    return _machine(snapshot, "sys_disk", "Disk", "GiB free", (("disk_free", 1 / GIB, "GiB"),), ladder)


def gpu(snapshot: Snapshot) -> Figure:
    """Use and memory of the GPUs."""
    return _machine(
        snapshot, "sys_gpu", "GPU", "use solid, fullest memory dashed",
        (("gpu", 1.0, "use"), ("gpu_memory", 1.0, "memory")), top=1.0,
    )  # fmt: skip


def heat(snapshot: Snapshot, config: Config | None) -> Figure:
    """The hottest GPU, against its limits."""
    ladder = ladders(config)["gpu_temperature"] if config else None
    return _machine(
        snapshot, "sys_heat", "GPU temperature", "°C, the hottest", (("gpu_temperature", 1.0, "°C"),), ladder
    )


def _machine(
    snapshot: Snapshot, name: str, title: str, unit: str, columns: tuple[tuple[str, float, str], ...],
    ladder: Ladder | None = None, top: float | None = None,
) -> Figure:  # fmt: skip
    found = {column: curve(snapshot, column, scale) for column, scale, _ in columns}
    first = next(iter(found.values()))
    values = np.concatenate([one.series.columns["y"] for one in found.values()])
    values = values[np.isfinite(values)]
    highest = top or (min(float(values.max()), MOST) * 1.15 if len(values) and values.max() > 0 else 1.0)
    shapes, labels = limits(ladder, (0.0, highest), log=False)
    y: Json = {"range": [0, highest * 1.02], "nticks": 4, "tickformat": ".0%" if top else "~g"}
    shape = layout(0.0, first.end, y, margin={"l": 46, "r": 46 if labels else 12, "t": 6, "b": 36},
                   shapes=shapes, annotations=labels)  # fmt: skip
    shape["xaxis"] |= {"nticks": 5, "tickformat": "~g", "hoverformat": ".4~g"}
    shape["xaxis"]["title"] = {**shape["xaxis"]["title"], "text": f"time since the first reading ({first.unit})"}
    return Figure(
        name=name,
        title=title,
        caption=unit if len(values) else "not read",
        traces=[
            {"series": column, "name": word, "type": "scatter", "mode": "lines+markers" if one.count < 4 else "lines",
             "hovertemplate": "%{y:.1%}" if top else "%{y:.3~g}", "line": {"color": colour, "width": 1.6, "dash": dash}}
            for (column, one), (_, _, word), (colour, dash) in zip(found.items(), columns, PENS, strict=False)
        ],
        layout=shape,
        columns={column: one.series for column, one in found.items()},
        steps=False,
    )  # fmt: skip


UNSAID = "not reported in these steps"


def metric(snapshot: Snapshot, look: Look, slot: int, name: str | None) -> Figure:
    """One metric of the user's own over steps; an empty chart where the slot has none."""
    low, high = look.window.resolve(snapshot)
    key = f"metric_{slot}"
    shape = layout(low, high, {"nticks": 5, "tickformat": "~g"}, margin={"l": 52, "r": 14, "t": 6, "b": 38})
    shape["xaxis"] |= {"nticks": 5}
    if name is None:
        nothing = Series({"x": np.empty(0), "y": np.empty(0)})
        return Figure(key, "", "", [{"series": "none", "type": "scatter"}], shape, {"none": nothing})
    table = snapshot.side.metrics[name]
    found = line(snapshot, table, "value", look.window, piece="attempt", smooth=look.smooth)
    rows = np.flatnonzero(~np.isfinite(table["value"]))[-50:]
    marks = Series(
        {"x": table["step"][rows]},
        tuple(f"{name} is NaN or infinite at step {step:,.0f}" for step in table["step"][rows]),
    )
    known = table["value"][-200:][np.isfinite(table["value"][-200:])]
    newest = f"newest {known[-1]:.4g} · " if len(known) else ""
    return Figure(
        name=key,
        title=name,
        caption=f"{newest}{found.caption if found.total else UNSAID}",
        traces=line_traces("value", "%{y:.4g}"),
        layout=shape,
        columns={**line_columns(found), "mark_nan": marks},
    )
