"""The document's checklists with the numbers of the last time each was gone through, and its gradient zones. Pure."""

from dataclasses import dataclass

import numpy as np

from app.store import Snapshot
from app.views import words
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.records import Checklist, Row, StepRecord
from trainer_core.spec.severity import Severity

NAMES = ("before training", "warmup", "during training")
_LOOKED = 60
"""Checklists at either end of the run that are looked through: the early ones are at its beginning, or at a resume."""
IF_A_CHECK_FAILS = (
    "1. Pause training.",
    "2. Look at the full gradient statistics: the norms by layer and the ratio above.",
    "3. Apply the remedy: reduce the learning rate, clip, or roll back.",
    "4. Resume with conservative settings.",
)


def newest(snapshot: Snapshot, name: str) -> Checklist | None:
    """The last time one of the checklists was gone through."""
    held = snapshot.events[Checklist]
    return _last(held[-_LOOKED:], name) or _last(held[:_LOOKED], name)


def _last(rows: tuple[Row, ...], name: str) -> Checklist | None:
    for row in reversed(rows):
        if isinstance(row.record, Checklist) and row.record.name == name:
            return row.record
    return None


def failing(snapshot: Snapshot) -> list[str]:
    """Items of the newest checklist that do not hold: those of an earlier one are past."""
    found = [checklist for name in NAMES if (checklist := newest(snapshot, name))]
    last = max(found, key=lambda checklist: checklist.step, default=None)
    return [item.item for item in last.items if item.met is False] if last else []


@dataclass(frozen=True)
class Zone:
    """One row of the document's table of gradient norms."""

    name: str
    range_: str
    severity: Severity
    status: str
    action: str
    here: bool
    """The newest gradient norm lies in it."""


def zones(snapshot: Snapshot, config: Config | None) -> list[Zone]:
    """The four zones between the limits in force, and the one the run is in."""
    ladder = ladders(config or Config())["grad_norm"]
    norm = last_norm(snapshot)
    low, high = words.number(ladder.warning_below), words.number(ladder.warning_above)
    extreme = f">{words.number(ladder.critical_above)} or <{words.number(ladder.critical_below)}"
    severity = None if norm is None else ladder.classify(norm)
    up = norm is not None and ladder.side(above=True).classify(norm) is Severity.WARNING
    down = norm is not None and ladder.side(above=False).classify(norm) is Severity.WARNING
    return [
        Zone("Healthy", f"{low} - {high}", Severity.HEALTHY, "OK", "Continue", severity is Severity.HEALTHY),
        Zone("Explosion", f">{high}", Severity.WARNING, "Warning", "Reduce the learning rate / clip gradients", up),
        Zone("Vanishing", f"<{low}", Severity.WARNING, "Warning", "Raise the learning rate / check the init", down),
        Zone("Extreme", extreme, Severity.CRITICAL, "Critical", "Roll back to a checkpoint",
             severity is Severity.CRITICAL),
    ]  # fmt: skip


def last_norm(snapshot: Snapshot) -> float | None:
    """The newest gradient norm, NaN included; None: no backward pass ran lately."""
    if isinstance(snapshot.last, StepRecord) and snapshot.last.grad_norm is not None:
        return snapshot.last.grad_norm
    norms = snapshot.steps["grad_norm"][-500:]
    known = np.flatnonzero(np.isfinite(norms))
    return float(norms[known[-1]]) if len(known) else None
