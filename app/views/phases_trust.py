"""Whether the confidence is honest: what it said against what came of it, in tenths. Pure."""

import math
from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from trainer_core.spec.records import CalibrationMeasured

FEW = 20
"""Outcomes below which nothing is said about honesty."""
COIN = 0.25
"""Brier score of always saying one half."""


@dataclass(frozen=True)
class Tenth:
    """The outcomes whose stated confidence lay in one tenth of [0, 1]."""

    stated: float
    happened: float
    low: float
    """Wilson interval of ``happened``, 95 %."""
    high: float
    outcomes: int
    better: int


@dataclass(frozen=True)
class Trust:
    """The card's content."""

    tenths: list[Tenth]
    outcomes: int
    brier: float | None
    said: str


def trust(snapshot: Snapshot) -> Trust:
    """The reliability of a run's confidence so far."""
    measured = snapshot.latest(CalibrationMeasured)
    if measured is None:
        return Trust([], 0, None, "Nothing to judge yet: it is said at every eighth outcome and at the end.")
    tenths = [
        Tenth(b.stated, b.better / b.outcomes, *wilson(b.better, b.outcomes), b.outcomes, b.better)
        for b in measured.bins
        if b.outcomes and b.stated is not None
    ]
    return Trust(tenths, measured.outcomes, measured.brier, _said(tenths, measured))


def wilson(better: int, outcomes: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (Wilson 1927): honest also with few outcomes and shares near 0 and 1."""
    share, room = better / outcomes, z * z / outcomes
    middle = (share + room / 2) / (1 + room)
    half = z / (1 + room) * math.sqrt(share * (1 - share) / outcomes + room / (4 * outcomes))
    return max(0.0, middle - half), min(1.0, middle + half)


def _said(tenths: list[Tenth], measured: CalibrationMeasured) -> str:
    brier = f"Brier score {words.number(measured.brier)} (0 is perfect, {COIN} is a coin)"
    if measured.outcomes < FEW:
        return f"{brier}. {measured.outcomes:,} outcomes are too few to judge it."
    off = [t for t in tenths if not t.low <= t.stated <= t.high]
    if not off:
        return f"{brier}. Honest: in every tenth, what it states lies within what the outcomes allow."
    worst = max(off, key=lambda t: abs(t.stated - t.happened) * math.sqrt(t.outcomes))
    word = "Too sure" if worst.stated > worst.happened else "Too careful"
    return (
        f"{brier}. {word} around {worst.stated:.2f}: there it was right {worst.better:,} of {worst.outcomes:,} times."
    )
