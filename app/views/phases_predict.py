"""PREDICT: the newest prediction, what ends it, and what became of the last ones. Pure."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.phases_cost import Cost, cost_of
from app.views.phases_full import MOST, rows_of
from app.views.phases_machine import Standing
from app.views.phases_why import Line, lines_to
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PhaseChanged, PredictionEnded, PredictionProbed
from trainer_core.spec.transitions import TRANSITIONS

SHOWN = 6
NONE_YET = "no prediction yet: the first one follows a look that is trusted"
AROUND = 0.15
"""Steps shown before and after a prediction, as a share of its length."""


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
    found = flight(snapshot)
    verdict, tone = _verdict(found)
    rows = [row for row in TRANSITIONS if row.source is Phase.PREDICT and row.cause != "operator"]
    return Predict(
        said=_said(found),
        cost=cost_of(snapshot),
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


def _said(found: Flight | None) -> str:
    if found is None:
        return NONE_YET
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
    return f"{'✓ Kept' if kept else '✕ Undone'}: {words.reason(found.ended.because)}", "healthy" if kept else "caution"


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
        words.reason(ended.because),
    )
    return cells, "healthy" if ended.kept else "caution"
