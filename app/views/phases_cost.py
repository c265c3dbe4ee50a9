"""What a predicted step costs beside a full one, and what predictions are worth with everything charged. Pure.

Times are by the host's clock. On a GPU a step is launched in one part and waited for in another, so there only whole
steps are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

import numpy as np

from app.store import PHASES, Snapshot
from app.table import F64, I64
from app.views.phases_full import LOOK_BACK, Part, host_clock, mean, rows_of
from app.views.phases_warmup import rows_of_warmup
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CorrectionApplied, PredictionEnded, PredictionProbed, Record

DOCUMENT_SPEEDUP = 2.8
"""Per predicted step with a forward pass at every one (methodology, "Predictive Phase")."""
PREDICTIONS = 20
"""The newest predictions that are charged and credited, as far as their steps are among the last LOOK_BACK."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Cost:
    """Mean seconds of one full and of one kept predicted step, and two ratios."""

    full: list[Part]
    predicted: list[Part]
    jumps: bool
    """No step was measured inside a prediction."""
    alone: float | None
    """How many times as fast a step is without its backward pass."""
    charged: float | None
    """How many times as fast training went as full steps alone, with all that predictions and undone ones took."""
    kept: int
    """Predictions kept among those looked at."""

    @property
    def said(self) -> str:
        """The ratios in words."""
        if not self.kept:
            return "No prediction has been kept lately: nothing to compare."
        if not self.full:
            return "Without one there is nothing to compare a predicted step with."
        parts = []
        if self.jumps:
            parts.append(f"A jump takes no pass at all (document: a forward pass at every step, {DOCUMENT_SPEEDUP}x).")
        elif self.alone is not None:
            parts.append(f"{self.alone:.1f}x as fast without its backward pass (document: {DOCUMENT_SPEEDUP}x).")
        if self.charged is not None:
            many = "the newest prediction" if self.kept == 1 else f"the newest {self.kept} kept predictions"
            worth = "" if self.charged >= 1 else ": lately they cost more than they save"
            parts.append(f"All in all {self.charged:.2f}x as fast as full steps alone, over {many}{worth}.")
        return " ".join(parts)


def cost_of(snapshot: Snapshot) -> Cost:
    """Over the newest predictions and the measured steps around them."""
    full_rows, steps = rows_of(snapshot, Phase.FULL), snapshot.steps
    if not len(full_rows):
        return Cost([], [], False, None, None, sum(end.kept for end in snapshot.newest(PredictionEnded, PREDICTIONS)))
    seconds = {name: mean(steps[f"{name}_seconds"][full_rows]) or 0.0 for name in ("forward", "backward", "optimizer")}
    whole = sum(seconds.values())
    full = [Part(name, value, _ratio(value, whole) or 0.0) for name, value in seconds.items()]
    since, rows = _range(snapshot)
    ended = list(_since(snapshot, PredictionEnded, since))
    kept = sum(end.steps for end in ended if end.kept)
    inside = rows[steps["phase"][rows] == PHASES.index(Phase.PREDICT)]
    if not kept:
        return Cost(full, [], not len(inside), None, None, 0)
    forward, spent = mean(steps["forward_seconds"][inside]), _spent(snapshot, ended, since) / kept
    predicted = [
        Part("forward", forward, _ratio(forward or 0.0, whole) or 0.0),
        Part("backward", None, _ratio(seconds["backward"], whole) or 0.0, skipped=True),
        Part("looks, copies, verdicts", spent, _ratio(spent, whole) or 0.0),
    ]
    usual = _full_step(snapshot, whole)
    passes = int((steps["phase"][rows] != PHASES.index(Phase.PREDICT)).sum())
    charged = _ratio((passes + kept) * usual, float(np.nansum(steps["step_seconds"][rows])))
    alone = _alone(snapshot, inside, usual)
    return Cost(full, predicted, not len(inside), alone, charged, sum(end.kept for end in ended))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _range(snapshot: Snapshot) -> tuple[float, I64]:
    """The journal row after which the newest predictions lie, and the measured steps since, WARMUP left out."""
    steps, ends = snapshot.steps, snapshot.events[PredictionEnded]
    first = max(steps.starts[-1] if steps.starts else 0, steps.length - LOOK_BACK)
    since = float(ends[-PREDICTIONS - 1].seq) if len(ends) > PREDICTIONS else 0.0
    if first < steps.length:  # a new attempt may not have stepped yet
        since = max(since, float(steps["seq"][first]) - 1)
    rows = first + np.flatnonzero(steps["phase"][first:] != PHASES.index(Phase.WARMUP))
    return since, rows[steps["seq"][rows] > since]


def _since(snapshot: Snapshot, kind: type[R], since: float) -> Iterator[R]:
    """Records of a kind after a journal row, newest first."""
    for row in takewhile(lambda row: row.seq > since, reversed(snapshot.events[kind])):
        if isinstance(row.record, kind):
            yield row.record


def _spent(snapshot: Snapshot, ended: list[PredictionEnded], since: float) -> float:
    """Seconds that predictions took besides their moves: also refused looks and what was undone."""
    looks = sum(probe.seconds for probe in _since(snapshot, PredictionProbed, since))
    verdicts = sum((end.seconds or 0.0) + (end.snapshot_seconds or 0.0) for end in ended)
    return looks + verdicts + sum(one.seconds or 0.0 for one in _since(snapshot, CorrectionApplied, since))


def _full_step(snapshot: Snapshot, parts: float) -> float:
    """Seconds of a full step: its parts, or on a GPU a whole step of WARMUP, which predicts nothing."""
    if host_clock(snapshot):
        return parts
    rows, _ = rows_of_warmup(snapshot)
    known = _known(snapshot.steps["step_seconds"][rows])
    return float(np.median(known)) if len(known) else parts


def _alone(snapshot: Snapshot, inside: I64, usual: float) -> float | None:
    """A step inside a prediction; its move is timed by those after the first, whose time holds the look as well."""
    steps = snapshot.steps
    forward = mean(steps["forward_seconds"][inside])
    if forward is None:
        return None
    move = mean(steps["predict_seconds"][inside[steps["step_in_phase"][inside] > 1]]) or 0.0
    return _ratio(usual, forward + move)


def _known(values: F64) -> F64:
    return values[np.isfinite(values)]
