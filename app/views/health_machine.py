"""The machine under a run: curves over the time since the run began, the newest reading, where it came from. Pure."""

from dataclasses import dataclass

import numpy as np

from app.store import Snapshot
from app.table import F64
from app.views import words
from app.views.series import Series
from app.views.timeline import shortest_pause
from trainer_core.spec.records import RunEnvironment
from trainer_core.spec.surroundings import GpuMeasured

GIB = float(1 << 30)
UNITS = ((600.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (float("inf"), 3600.0, "h"))


@dataclass(frozen=True)
class Curve:
    """One column of the machine's readings over time."""

    series: Series
    unit: str
    """Of time."""
    end: float
    count: int


def curve(snapshot: Snapshot, column: str, scale: float = 1.0) -> Curve:
    """``column`` (one of ``app.side.SYSTEM``) times ``scale``, thinned; breaks where it was not read."""
    table = snapshot.side.system
    if not table.length:
        return Curve(Series({"x": np.empty(0), "y": np.empty(0)}), "s", 10.0, 0)
    rows = table.pick(column, 1000).rows
    times: F64 = table["time"][rows] - float(table["time"][0])
    lasted = float(table["time"][-1] - table["time"][0])
    seconds, unit = next((seconds, unit) for most, seconds, unit in UNITS if lasted <= most)
    values = table[column][rows] * scale
    silent = np.flatnonzero(np.diff(table["time"]) > shortest_pause(table["time"]))  # nobody read between two processes
    breaks = np.unique(np.searchsorted(rows, silent, "right"))
    series = Series({"x": np.insert(times / seconds, breaks, np.nan), "y": np.insert(values, breaks, np.nan)})
    return Curve(series, unit, max(lasted / seconds, 1.0), int(np.isfinite(values).sum()))


def facts(snapshot: Snapshot) -> dict[str, str]:
    """The newest reading in words; a dash for what was not read."""
    m = snapshot.side.newest
    if m is None:
        return dict.fromkeys(("cpu", "memory", "disk", "gpu"), words.ABSENT)
    used, total = m.memory_used, m.memory_total
    memory = f"{words.share(used, total)} of {total / GIB:.1f} GiB" if used is not None and total else words.ABSENT
    own = f", this process {m.rss / GIB:.2f} GiB" if m.rss is not None else ""
    disk = words.ABSENT if m.disk_free is None else f"{m.disk_free / GIB:,.1f} GiB free"
    read = (
        "" if m.cpu is None else f"{words.number(m.cpu)} cores",
        "" if m.cpu_machine is None else f"machine {100 * m.cpu_machine:.0f} %",
    )
    cpu = ", ".join(part for part in read if part) or words.ABSENT
    return {"cpu": cpu, "memory": f"{memory}{own}", "disk": disk, "gpu": _gpus(m.gpus)}


def _gpus(gpus: tuple[GpuMeasured, ...]) -> str:
    if not gpus:
        return "no GPU was read"
    return " · ".join(
        f"{gpu.index} {gpu.name}: {words.ABSENT if gpu.utilisation is None else f'{100 * gpu.utilisation:.0f} %'}"
        for gpu in gpus[:4]
    ) + (f" and {len(gpus) - 4} more" if len(gpus) > 4 else "")


PACKAGES = ("hybrid-predictive-trainer", "torch", "numpy", "scikit-learn", "safetensors", "msgspec", "polars", "pyzmq")


def environment(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Where the newest process of the run came from: (what, value)."""
    found = snapshot.latest(RunEnvironment)
    if found is None:
        return []
    dirty = {True: ", with uncommitted changes", False: "", None: ""}[found.git_dirty]
    lines = [
        ("Command", " ".join(found.command_line)),
        ("Directory", found.directory),
        ("Commit", f"{found.git_commit[:12]}{dirty}" if found.git_commit else "not in a repository"),
        ("Host", f"{found.host}, {found.system}, {words.count(found.cpus)} CPUs"),
        ("Device", found.device),
        ("Python", found.python),
        ("Packages", ", ".join(f"{name} {found.packages[name]}" for name in PACKAGES if name in found.packages)),
    ]
    others = len([name for name in found.packages if name not in PACKAGES])
    return [*lines, ("Other packages", f"{others} more, in the exported record")] if others else lines
