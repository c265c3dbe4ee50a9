"""WARMUP: its steps, the three things it establishes and the statistics it collects. Pure; knows no colour.

Everything is of the surviving attempt: a warmup that was rolled back and run again counts once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.store import PHASES, Snapshot
from app.table import F64, I64
from app.views import words
from app.views.phases_why import Line
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Checklist

MOST = 5000
"""Steps of WARMUP that are looked at: a longer one by its newest steps."""
CHECKLIST = "warmup"
"""Name of the checklist that a run says when WARMUP ends."""
ITEMS = ("loss EMA established", "gradient baseline recorded", "predictor warmup complete")
NEEDED = {
    "loss EMA established": "its average moves little over 20 steps",
    "gradient baseline recorded": "a mean of the gradient norms",
    "predictor warmup complete": "it has been compared with a real step",
}


@dataclass(frozen=True)
class Warmup:
    """The card's content."""

    rows: I64
    """Of ``snapshot.steps``."""
    whole: bool
    """Whether ``rows`` are all steps of the warmup."""
    gone: str
    """Where its steps are when none is left; empty: there were none yet."""
    progress: str
    checks: list[Line]
    facts: dict[str, str]


def rows_of_warmup(snapshot: Snapshot) -> tuple[I64, bool]:
    """The newest measured steps of the surviving warmup, and whether they are all."""
    steps, spans = snapshot.steps, snapshot.spans
    nothing = np.empty(0, dtype=np.int64)
    if snapshot.own_loop or not len(spans["start"]) or spans["phase"][0] != PHASES.index(Phase.WARMUP):
        return nothing, True
    last = float(spans["start"][1]) - 1 if len(spans["start"]) > 1 else math.inf
    parts = []
    for start, stop in steps.window(float(spans["start"][0]), last):
        part = np.arange(max(start, stop - MOST), stop)
        kept = (steps["phase"][part] == PHASES.index(Phase.WARMUP)) & ~snapshot.abandoned(steps, part)
        parts.append(part[kept])
    found = np.concatenate([nothing, *parts])
    whole = not len(found) or steps["step_in_phase"][found[0]] == 1
    return found[-MOST:], bool(whole) and len(found) <= MOST


def warmup(snapshot: Snapshot, config: Config | None) -> Warmup:
    """The warmup of a snapshot."""
    rows, whole = rows_of_warmup(snapshot)
    return Warmup(
        rows,
        whole,
        _gone(snapshot),
        _progress(snapshot, rows, config),
        _checks(snapshot, rows, config),
        _facts(snapshot, rows),
    )


def _gone(snapshot: Snapshot) -> str:
    taken = 0 if snapshot.own_loop else snapshot.tallies[Phase.WARMUP].steps
    return f"rolled back: {words.several(taken, 'step')}" if taken else ""


def _progress(snapshot: Snapshot, rows: I64, config: Config | None) -> str:
    if not len(rows):
        return _gone(snapshot) or "no step of WARMUP yet"
    last = int(snapshot.steps["step"][rows[-1]])
    budget = f" of {words.count(config.hybrid_trainer_config.warmup_steps)} asked for" if config else ""
    if snapshot.phase is Phase.WARMUP:
        return f"step {words.count(last)}{budget}"
    return f"over: it took {words.count(last)} steps{budget}"


def _checks(snapshot: Snapshot, rows: I64, config: Config | None) -> list[Line]:
    """What the run itself said at the end of WARMUP; before that, the numbers of the newest step."""
    said = _said(snapshot)
    if said is not None:
        return [Line(item.met, item.item, item.detail) for item in said.items]
    if not len(rows) or config is None:
        return [Line(None, item, NEEDED[item]) for item in ITEMS]
    change, baseline, error = (
        _newest(snapshot, rows, name) for name in ("loss_change", "grad_norm_baseline", "relative_error")
    )
    limit = config.hybrid_trainer_config.warmup_stability
    moved = f"moved {words.number(change)} over 20 steps, needs at most {limit:g}" if change is not None else None
    return [
        Line(None if change is None else change <= limit, ITEMS[0], moved or "after 20 steps"),
        Line(baseline is not None, ITEMS[1], words.number(baseline) if baseline is not None else NEEDED[ITEMS[1]]),
        Line(
            None if error is None else True,
            ITEMS[2],
            f"relative error {words.number(error)}" if error is not None else "it does not say how wrong it is",
        ),
    ]


def _said(snapshot: Snapshot) -> Checklist | None:
    """The checklist that ended WARMUP: it comes with the first phase change, so among the first ones."""
    if snapshot.phase is Phase.WARMUP:
        return None
    rows = snapshot.events[Checklist]
    found = [row.record for row in rows[:64] if isinstance(row.record, Checklist) and row.record.name == CHECKLIST]
    return found[-1] if found else None


def _newest(snapshot: Snapshot, rows: I64, name: str) -> float | None:
    value = float(snapshot.steps[name][rows[-1]])
    return None if math.isnan(value) else value


def _facts(snapshot: Snapshot, rows: I64) -> dict[str, str]:
    """Key -> what was collected; a dash where nothing was measured."""
    loss, norm = _measured(snapshot, rows, "loss"), _measured(snapshot, rows, "grad_norm")
    rate = _measured(snapshot, rows, "learning_rate")
    turns = int((np.diff(np.sign(np.diff(loss))) != 0).sum()) if len(loss) > 2 else None
    statistics: dict[str, Callable[[F64], Any]] = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}
    return {
        **{f"loss_{name}": _of(loss, statistic) for name, statistic in statistics.items()},
        **{f"norm_{name}": _of(norm, statistic) for name, statistic in statistics.items()},
        "loss_var": _of(loss, np.var),
        "turns": f"{100 * turns / (len(loss) - 2):.0f} % of steps" if turns is not None else words.ABSENT,
        "rate": f"{words.number(float(rate[0]), 2)} → {words.number(float(rate[-1]), 2)}"
        if len(rate)
        else words.ABSENT,
    }


def _measured(snapshot: Snapshot, rows: I64, name: str) -> F64:
    values = snapshot.steps[name][rows]
    return values[np.isfinite(values)]


def _of(values: F64, statistic: Callable[[F64], Any]) -> str:
    return words.number(float(statistic(values))) if len(values) else words.ABSENT
