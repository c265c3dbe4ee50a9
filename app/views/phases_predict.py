"""PREDICT: what a predicted step costs beside a full one, the newest prediction, what became of the last ones. Pure.

Costs are charged honestly: looks, undo copies, moves and verdicts, those of undone and refused predictions too, over
the steps of the predictions that were kept.
"""

from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from app.store import PHASES, Snapshot
from app.table import I64
from app.views import words
from app.views.phases_full import MOST, Part, mean, rows_of
from app.views.phases_machine import Standing
from app.views.phases_why import Line, lines_to
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PhaseChanged, PredictionEnded, PredictionProbed
from trainer_core.spec.transitions import TRANSITIONS

DOCUMENT_SPEEDUP = 2.8
"""Per predicted step with a forward pass at every one (methodology, "Predictive Phase")."""
SHOWN = 6
COST_BACK = 600
"""Measured steps whose time predictions are charged with."""
AROUND = 0.15
"""Steps shown before and after a prediction, as a share of its length."""


@dataclass(frozen=True)
class Cost:
    """Mean seconds of one full and of one kept predicted step."""

    full: list[Part]
    predicted: list[Part]
    alone: float | None
    """How many times faster a step without its backward pass is; None: no step was measured inside a prediction."""
    charged: float | None
    """The same with everything charged that predictions cost."""
    steps: int
    """Kept predicted steps that it is the mean of."""


@dataclass(frozen=True)
class Flight:
    """The newest prediction."""

    first: int
    last: int
    cycle: int
    horizon: int | None
    confidence: float | None
    """With which it was entered."""
    ended: PredictionEnded | None
    """None: it is under way."""
    jump: bool
    """No step was measured inside it."""


@dataclass(frozen=True)
class Predict:
    """The card's content."""

    said: str
    cost: Cost
    cost_said: str
    flight: Flight | None
    verdict: str
    verdict_tone: str
    exits: list[Line]
    exits_said: str
    facts: dict[str, str]
    table: list[tuple[tuple[str, ...], str]]
    """Cells and the name of a severity."""


def predict(snapshot: Snapshot, exits: Standing) -> Predict:
    """The PREDICT phase of a snapshot; ``exits`` are the guards out of PREDICT (``phases_machine``)."""
    found, cost = flight(snapshot), cost_of(snapshot)
    verdict, tone = _verdict(found)
    rows = [row for row in TRANSITIONS if row.source is Phase.PREDICT and row.cause != "operator"]
    return Predict(
        said=_said(found),
        cost=cost,
        cost_said=_cost_said(cost),
        flight=found,
        verdict=verdict,
        verdict_tone=tone,
        exits=lines_to(exits, rows) if exits.answers or exits.live else [],
        exits_said=_exits_said(exits, found),
        facts=_facts(snapshot),
        table=[_row(ended) for ended in reversed(snapshot.newest(PredictionEnded, SHOWN))],
    )


def flight(snapshot: Snapshot) -> Flight | None:
    """The newest prediction: the last PREDICT phase that was entered; None before the first one."""
    recent = snapshot.newest(PhaseChanged, 8)
    entered = next((c for c in reversed(recent) if c.to_phase is Phase.PREDICT), None)
    if entered is None or snapshot.last is None:
        return None
    ended = next(
        (
            e
            for e in reversed(snapshot.newest(PredictionEnded, 2))
            if e.cycle == entered.cycle and e.step >= entered.step - 1
        ),
        None,
    )
    left = next((c for c in recent if c.from_phase is Phase.PREDICT and c.step >= entered.step), None)
    last = left.step - 1 if left is not None else max(entered.step, snapshot.last.step)
    inside = rows_of(snapshot, Phase.PREDICT)
    measured = snapshot.steps["step"][inside]
    jump = not bool(((measured >= entered.step) & (measured <= last)).any())
    looks = snapshot.newest(PredictionProbed, 4)
    stated = next((p.confidence for p in reversed(looks) if not p.shadow and p.step == entered.step - 1), None)
    return Flight(entered.step, last, entered.cycle, entered.budget, stated, ended, jump)


def cost_of(snapshot: Snapshot) -> Cost:
    """Over the newest steps that were measured, and the predictions between them."""
    full_rows = rows_of(snapshot, Phase.FULL)
    steps = snapshot.steps
    if not len(full_rows):
        return Cost([], [], None, None, 0)
    seconds = {name: mean(steps[f"{name}_seconds"][full_rows]) or 0.0 for name in ("forward", "backward", "optimizer")}
    whole = sum(seconds.values())
    full = [Part(name, value, value / whole if whole else 0.0) for name, value in seconds.items()]
    rows = _cost_rows(snapshot)
    kept = _kept_steps(snapshot, rows)
    if not kept:
        return Cost(full, [], None, None, 0)
    inside = rows[steps["phase"][rows] == PHASES.index(Phase.PREDICT)]
    forward = float(np.nansum(steps["forward_seconds"][inside])) / kept
    predicting = float(np.nansum(steps["predict_seconds"][rows])) / kept
    backward = seconds["backward"]
    predicted = [
        Part("forward", forward if len(inside) else None, forward / whole if whole else 0.0),
        Part("backward", None, backward / whole if whole else 0.0, skipped=True),
        Part("predicting", predicting, predicting / whole if whole else 0.0),
    ]
    spent = forward + predicting
    return Cost(full, predicted, _alone(snapshot, inside, whole), whole / spent if spent > 0 else None, kept)


def _alone(snapshot: Snapshot, inside: I64, whole: float) -> float | None:
    """Of steps after the first of their prediction: the first one's time holds the look before it as well."""
    steps = snapshot.steps
    later = inside[steps["step_in_phase"][inside] > 1]
    spent = mean(steps["forward_seconds"][later] + steps["predict_seconds"][later])
    return whole / spent if spent else None


def _cost_rows(snapshot: Snapshot) -> I64:
    """The newest measured steps of the present attempt, WARMUP left out."""
    steps = snapshot.steps
    first = max(steps.starts[-1] if steps.starts else 0, steps.length - COST_BACK)
    return first + np.flatnonzero(steps["phase"][first:] != PHASES.index(Phase.WARMUP))


def _kept_steps(snapshot: Snapshot, rows: I64) -> int:
    """Steps of the predictions that were kept between the first and the last of ``rows``."""
    if not len(rows):
        return 0
    since = float(snapshot.steps["seq"][rows[0]])
    recent = (row for row in reversed(snapshot.events[PredictionEnded]))
    ended = [row.record for row in takewhile(lambda row: row.seq > since, recent)]
    return sum(e.steps for e in ended if isinstance(e, PredictionEnded) and e.kept)


def _cost_said(cost: Cost) -> str:
    if cost.charged is None:
        return "No prediction has been kept lately: nothing to compare."
    if cost.alone is not None:
        first = f"{cost.alone:.1f}x as fast without its backward pass (document: {DOCUMENT_SPEEDUP}x)"
    else:
        first = f"A jump takes no pass at all (document: a forward pass at every step, {DOCUMENT_SPEEDUP}x)"
    worth = "" if cost.charged >= 1 else ": lately they cost more than they save"
    return f"{first}. {cost.charged:.1f}x with everything charged, over the newest {cost.steps:,} kept steps{worth}."


def _said(found: Flight | None) -> str:
    if found is None:
        return "no prediction yet"
    length = found.last - found.first + 1
    horizon = f" of {found.horizon:,}" if found.horizon is not None else ""
    way = "in one jump, without passes in between" if found.jump else "a forward pass at every measured step"
    return f"steps {found.first:,} to {found.last:,} ({length:,}{horizon}) · {way}"


def _verdict(found: Flight | None) -> tuple[str, str]:
    if found is None:
        return "No prediction has been tried yet.", "muted"
    if found.ended is None:
        return "Under way: no verdict yet.", "muted"
    kept = found.ended.kept
    return f"{'✓ Kept' if kept else '✕ Undone'}: {found.ended.because}", "healthy" if kept else "caution"


def _exits_said(exits: Standing, found: Flight | None) -> str:
    if exits.live:
        return f"live, at step {words.count(exits.step)}"
    if exits.step is None or found is None:
        return "no prediction yet"
    unseen = "; what is not asked was not measured inside a jump" if found.jump else ""
    return f"as the last one ended, at step {words.count(exits.step)}{unseen}"


def _facts(snapshot: Snapshot) -> dict[str, str]:
    kept, undone = snapshot.verdicts.kept, snapshot.verdicts.undone
    recent = snapshot.newest(PredictionEnded, MOST)
    lengths = [ended.steps for ended in recent if ended.kept]
    tallies = snapshot.tallies
    whole = sum(tally.steps for tally in tallies.values())
    return {
        "kept": words.count(kept),
        "undone": words.count(undone),
        "kept_share": words.share(kept, kept + undone),
        "length": f"{sum(lengths) / len(lengths):,.0f} steps" if lengths else words.ABSENT,
        "share": words.share(tallies[Phase.PREDICT].steps, whole),
    }


def _row(ended: PredictionEnded) -> tuple[tuple[str, ...], str]:
    """Ends at, predicted steps, confidence, loss there and back, mean error, verdict."""
    loss = words.ABSENT
    if ended.loss_before is not None and ended.loss_after is not None:
        loss = f"{words.number(ended.loss_before, 4)} → {words.number(ended.loss_after, 4)}"
    cells = (
        words.count(ended.step),
        words.count(ended.steps),
        words.number(ended.confidence),
        loss,
        f"{ended.mean_error:.1%}" if ended.mean_error is not None else words.ABSENT,
        "✓ kept" if ended.kept else "✕ undone",
        ended.because,
    )
    return cells, "healthy" if ended.kept else "caution"
