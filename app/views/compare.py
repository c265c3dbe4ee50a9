"""Runs beside one another: the same losses by step, by time at work and by backward passes, and what differs. Pure."""

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.store import PHASES, Snapshot
from app.table import F64
from app.views import words
from app.views.measured import newest
from app.views.series import Series, Window, line
from app.views.timeline import at_work
from trainer_core.spec.alerts import LIMIT_SECTIONS
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import RunStarted, ValidationMeasured

COLOURS = 8
AXES = ("step", "time", "backward")


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    name: str
    colour: int
    """Its own, whichever other runs are shown, as far as colours reach."""
    state: str
    snapshot: Snapshot


@dataclass(frozen=True)
class Cost:
    """What had been paid at each measured step, by axis."""

    step: F64
    by: dict[str, F64]

    def at(self, steps: F64, axis: str) -> F64:
        """The cost of reaching ``steps`` of the surviving line."""
        if axis == "step" or not len(self.step):
            return steps
        return np.interp(steps, self.step, self.by[axis])


def compared(runs: Sequence[tuple[str, str, Snapshot]]) -> list[Compared]:
    """(name, state, snapshot) of each run, coloured: by its name, moved on when a colour is taken."""
    taken: dict[str, int] = {}
    for name in sorted(name for name, _, _ in runs):
        colour = zlib.crc32(name.encode()) % COLOURS
        while colour in taken.values() and len(taken) < COLOURS:
            colour = (colour + 1) % COLOURS
        taken[name] = colour
    return [Compared(name, taken[name], state, snapshot) for name, state, snapshot in runs]


@functools.lru_cache(maxsize=COLOURS)
def cost(snapshot: Snapshot) -> Cost:
    """Steps of the surviving line, with time at work and backward passes spent on all attempts until then."""
    steps = snapshot.steps
    kept = np.flatnonzero(~snapshot.abandoned(steps, np.arange(steps.length)))
    spent = at_work(steps["time"])
    return Cost(steps["step"][kept], {"time": spent[kept], "backward": steps["backward_passes"][kept]})


def training(run: Compared, axis: str, paid: Cost, smooth: float) -> Series:
    """The run's training loss on the surviving line: its own average, or the reader's smoothing."""
    found = line(run.snapshot, run.snapshot.steps, "loss", Window(), ("loss_ema",), smooth=smooth).kept
    y = found.columns["smooth" if smooth > 0 else "loss_ema"]
    return Series({"x": paid.at(found.columns["x"], axis), "y": y})


def validation(run: Compared, axis: str, paid: Cost) -> Series:
    """The run's validation losses on the surviving line."""
    kept = run.snapshot.surviving(ValidationMeasured)  # few: one every hundred steps or so
    steps = np.array([record.step for record in kept], dtype=np.float64)
    return Series({"x": paid.at(steps, axis), "y": np.array([record.loss for record in kept], dtype=np.float64)})


def shares(snapshot: Snapshot) -> dict[Phase, float]:
    """Of all steps taken, the share of each phase."""
    total = sum(tally.steps for tally in snapshot.tallies.values())
    return {phase: (snapshot.tallies[phase].steps / total if total else 0.0) for phase in PHASES}


def row(run: Compared) -> list[str]:
    """The cells of the run table, in the order of its head."""
    snapshot = run.snapshot
    started, steps = snapshot.latest(RunStarted), snapshot.steps
    step = snapshot.step
    losses = [record.loss for record in snapshot.surviving(ValidationMeasured) if np.isfinite(record.loss)]
    spent = float(at_work(steps["time"])[-1]) if steps.length else None
    kept, undone = snapshot.verdicts.kept, snapshot.verdicts.undone
    skipped = 0 if snapshot.own_loop else step - snapshot.backward_passes  # a loop may tell of every tenth step only
    return [
        run.name,
        run.state,
        (started.task + (" (plain)" if started.plain else "")) if started else words.ABSENT,
        words.count(step),
        words.number(newest(snapshot, "loss_ema").value),
        words.number(min(losses)) if losses else words.ABSENT,
        words.duration(spent) if spent is not None else words.ABSENT,
        words.count(snapshot.backward_passes),
        words.share(skipped, step) if skipped > 0 else words.ABSENT,
        f"{kept:,} kept · {undone:,} undone" if kept or undone else words.ABSENT,
    ]


def differences(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Settings in which the runs differ: (section.key, the value of each run in their order).

    What has no effect on a loop of its own is no difference, and a dash there.
    """
    configs = [started.config if (started := run.snapshot.latest(RunStarted)) else {} for run in runs]
    keys = sorted({(section, key) for config in configs for section, values in config.items() for key in values})
    found = []
    for section, key in keys:
        values = [config.get(section, {}).get(key) for config in configs]
        acts = [section in LIMIT_SECTIONS or not run.snapshot.own_loop for run in runs]
        counted = [value for value, does in zip(values, acts, strict=True) if does]
        if any(value != counted[0] for value in counted):
            said = ["" if value is None else f"{value}" for value in values]
            shown = [text if does else words.ABSENT for text, does in zip(said, acts, strict=True)]
            found.append((f"{section}.{key}", shown))
    return found
