"""The learning rate that was planned and the one that was applied. Pure.

The plan is the schedule's own function of the step; what operators and recoveries did to it is a factor on it.
"""

import math
from dataclasses import dataclass

import numpy as np

from app.store import Snapshot
from app.table import F64
from app.views.marks import Mark
from app.views.series import Line, Series, Window, line
from trainer_core.spec.commands import ApplyRemedy, CommandState, ScaleLearningRate, SetLearningRate, kind_of
from trainer_core.spec.config import Config, LearningRateSchedule
from trainer_core.spec.records import CommandChanged, RunStarted
from trainer_core.spec.schedules import corners, learning_rate_at, peak_of

POINTS = 400
MOST_CYCLES = 60
MOST_MARKS = 100


@dataclass(frozen=True)
class RateView:
    """Over the whole plan, from step 0 to ``high``."""

    applied: Line
    planned: Series
    """Empty where the plan is not known: in a loop of somebody's own, or before the first step tells the peak."""
    ahead: Series
    """What is to come: the plan with what was done to it."""
    now: tuple[float, float] | None
    """(step, rate) of the newest step that had one."""
    changes: tuple[Mark, ...]
    """Commands that changed it."""
    stages: tuple[tuple[str, float, float], ...]
    """(name, first step, last step) of the schedule's parts."""
    kind: str
    factor: float | None
    """Applied / planned rate at the newest step; None: not known."""
    high: float

    @property
    def said(self) -> str:
        """Where the run is on its plan, in words."""
        if self.now is None:
            return "no learning rate measured yet"
        rate = f"now {self.now[1]:.3g}"
        if self.factor is None:
            return f"{rate} · its plan is not known"
        changed = "" if abs(self.factor - 1) < 1e-3 else f" · {self.factor:.3g} x the plan"
        return f"{rate} · {self.kind}{changed}"


def view(snapshot: Snapshot, config: Config | None) -> RateView:
    """The learning rate of a snapshot."""
    applied = line(snapshot, snapshot.steps, "learning_rate", Window())
    now = _now(snapshot)
    schedule = None if config is None or snapshot.own_loop else config.learning_rate_schedule
    peak = None if schedule is None or config is None else _peak(snapshot, config)
    step = now[0] if now else 0.0
    total = _total(snapshot)
    empty = Series({"x": np.empty(0), "y": np.empty(0)})
    if schedule is None or peak is None:
        return RateView(applied, empty, empty, now, _changes(snapshot), (), "", None, max(step * 1.1, 10.0))
    high = _end(schedule, step, total)
    planned = _curve(schedule, peak, 0.0, high)
    wanted = learning_rate_at(int(step), schedule, peak)
    factor = now[1] / wanted if now and wanted > 0 else None
    ahead = empty
    if now and factor is not None:
        rest = _curve(schedule, peak, step, high)
        ahead = Series({"x": rest.columns["x"], "y": rest.columns["y"] * factor})
    stages = _stages(schedule, high)
    return RateView(applied, planned, ahead, now, _changes(snapshot), stages, _kind(schedule), factor, high)


def _now(snapshot: Snapshot) -> tuple[float, float] | None:
    rates = snapshot.steps["learning_rate"][-200:]
    known = np.flatnonzero(np.isfinite(rates))
    if not len(known):
        return None
    return float(snapshot.steps["step"][-200:][known[-1]]), float(rates[known[-1]])


def _peak(snapshot: Snapshot, config: Config) -> float | None:
    """The settings' own peak, or the optimizer's as the first steps tell it."""
    schedule = config.learning_rate_schedule
    if config.learning_rate.initial is not None:
        return config.learning_rate.initial
    if schedule.type == "Cyclic" or (schedule.type == "WarmupStableDecay" and schedule.warmup_target is not None):
        return schedule.warmup_target or schedule.max_lr
    rates, steps = snapshot.steps["learning_rate"][:50], snapshot.steps["step"][:50]
    for rate, step in zip(rates.tolist(), steps.tolist(), strict=True):
        peak = peak_of(schedule, int(step), rate) if math.isfinite(rate) else None
        if peak is not None:
            return peak
    return None


def _total(snapshot: Snapshot) -> float | None:
    started = snapshot.latest(RunStarted)
    return float(started.total_steps) if started and started.total_steps else None


def _end(schedule: LearningRateSchedule, step: float, total: float | None) -> float:
    """The plan to its last bend and a little beyond, and always past the present step."""
    bends = corners(schedule)
    planned = bends[-1] * 1.15 if schedule.type != "Cyclic" else schedule.cycle_length * 8.0
    end = max(planned, step * 1.15, 10.0)
    return min(end, max(total, step)) if total is not None else end


def _curve(schedule: LearningRateSchedule, peak: float, low: float, high: float) -> Series:
    """The schedule between two steps: every bend exactly, and even points between them."""
    if schedule.type == "Cyclic":
        low = max(low, high - MOST_CYCLES * schedule.cycle_length)
        half = schedule.cycle_length / 2
        bends = [round(i * half) for i in range(math.ceil(low / half), math.floor(high / half) + 1)]
    else:
        bends = corners(schedule)
    even = np.linspace(low, high, POINTS).astype(np.int64).tolist()
    steps = sorted({*even, *(bend for bend in bends if low <= bend <= high)})
    rates = [learning_rate_at(step, schedule, peak) for step in steps]
    return Series({"x": _floats(steps), "y": _floats(rates)})


def _floats(values: list[int] | list[float]) -> F64:
    return np.array(values, dtype=np.float64)


def _kind(schedule: LearningRateSchedule) -> str:
    return {
        "Constant": "constant",
        "WarmupOnly": "warmup, then constant",
        "WarmupStableDecay": "warmup - stable - decay",
        "Cyclic": f"cyclic, {schedule.cycle_length:,} steps a cycle",
    }[schedule.type]


def _stages(schedule: LearningRateSchedule, high: float) -> tuple[tuple[str, float, float], ...]:
    """The parts of the plan, where it has parts."""
    s = schedule
    if s.type == "WarmupStableDecay":
        stable = s.warmup_steps + s.stable_steps
        parts = [("Warmup", 0, s.warmup_steps), ("Stable", s.warmup_steps, stable), ("Decay", stable,
                 stable + s.decay_steps)]  # fmt: skip
    elif s.type == "WarmupOnly":
        parts = [("Warmup", 0, s.warmup_steps)]
    else:
        parts = []
    return tuple((name, float(low), min(float(end), high)) for name, low, end in parts if low < high and end > low)


def _changes(snapshot: Snapshot) -> tuple[Mark, ...]:
    """Commands that an operator or a recovery changed the rate with."""
    found = []
    for change in snapshot.newest(CommandChanged, 5 * MOST_MARKS):
        changes = isinstance(change.command, SetLearningRate | ScaleLearningRate | ApplyRemedy)
        if changes and change.state is CommandState.APPLIED:
            moved = f" {change.before} → {change.after}" if change.before and change.after else ""
            found.append(Mark(change.step, f"{kind_of(change.command)}{moved}, by {change.by}"))
    return tuple(found[-MOST_MARKS:])
