"""Where training is in its cycle, how much of the phase is left, and why it came here. Pure."""

from dataclasses import dataclass

from app.store import PHASES, Snapshot
from app.views import words
from app.views.phases_machine import plain
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PhaseChanged, PredictedStretch, StepRecord

EDGES = (
    (Phase.WARMUP, Phase.FULL),
    (Phase.FULL, Phase.PREDICT),
    (Phase.PREDICT, Phase.CORRECT),
    (Phase.PREDICT, Phase.FULL),
    (Phase.CORRECT, Phase.FULL),
)
"""The document's transitions."""
OWN_LOOP = "A training loop of its own, watched by a Monitor: it has no phases and predicts nothing."


@dataclass(frozen=True)
class Node:
    """One phase."""

    phase: Phase
    active: bool
    progress: str
    left: str
    done: float
    """Share of the budget used, 0 when the phase has no fixed length or is not the present one."""
    tally: str
    entered: int
    """How often it was entered; -1 while it never was."""


@dataclass(frozen=True)
class Lifecycle:
    """The diagram's content."""

    nodes: dict[Phase, Node]
    entered: dict[tuple[Phase, Phase], int]
    """How often each edge was taken."""
    cause: str
    """The last change and the guards behind it."""
    flash: tuple[Phase, Phase, int] | None
    """The newest edge and the step it was taken at."""
    verdicts: str


def lifecycle(snapshot: Snapshot) -> Lifecycle:
    """The diagram of a snapshot."""
    newest = snapshot.latest(PhaseChanged)
    if snapshot.own_loop:
        nodes = {phase: Node(phase, False, "", "", 0.0, "", -1) for phase in PHASES}
        return Lifecycle(nodes, dict.fromkeys(EDGES, 0), OWN_LOOP, None, "")
    total = sum(tally.steps for tally in snapshot.tallies.values())
    return Lifecycle(
        nodes={phase: _node(snapshot, phase, newest, total) for phase in PHASES},
        entered={edge: snapshot.edges.get(edge, 0) for edge in EDGES},
        cause=_cause(newest),
        flash=(newest.from_phase, newest.to_phase, newest.step) if newest else None,
        verdicts=_verdicts(snapshot),
    )


def _node(snapshot: Snapshot, phase: Phase, newest: PhaseChanged | None, total: int) -> Node:
    tally = snapshot.tallies[phase]
    share = f"{words.several(tally.steps, 'step')} · {words.share(tally.steps, total)}"
    said = share if tally.steps else "no step of its own" if tally.entered else "not yet"
    times = tally.entered or -1
    if snapshot.phase is not phase:
        return Node(
            phase, False, f"entered {words.count(tally.entered)}×" if tally.entered else "", "", 0.0, said, times
        )
    inside, budget = _position(snapshot.last, phase, newest)
    if budget is None:
        return Node(phase, True, f"step {words.count(inside)}, no fixed length", "", 0.0, said, times)
    if inside > budget == 0:  # nothing was planned
        return Node(phase, True, f"step {words.count(inside)}", "", 1.0, said, times)
    if inside > budget:  # a full phase goes on for as long as its guards do not let it go
        return Node(phase, True, f"step {words.count(inside)}, {words.count(budget)} planned", "", 1.0, said, times)
    left, done = budget - inside, inside / budget if budget else 1.0  # a phase of no step of its own passes at once
    return Node(phase, True, f"step {inside} of {budget}", f"{left} left", done, said, times)


def _position(
    last: StepRecord | PredictedStretch | None, phase: Phase, newest: PhaseChanged | None
) -> tuple[int, int | None]:
    """Steps taken in the present phase and its budget."""
    if isinstance(last, StepRecord) and last.phase is phase:
        return last.step_in_phase, last.phase_budget
    if newest is None or newest.to_phase is not phase:
        return (last.last_step - last.first_step + 1 if isinstance(last, PredictedStretch) else 0), None
    reached = last.step if last is not None else 0
    return max(0, reached - newest.step + 1), newest.budget


def _cause(newest: PhaseChanged | None) -> str:
    if newest is None:
        return "No phase change yet."
    because = "; ".join(newest.because).replace("_", " ") or "no reason given"
    return f"{newest.from_phase.value} → {newest.to_phase.value} at step {newest.step:,}: {because}"


def _verdicts(snapshot: Snapshot) -> str:
    kept, undone = snapshot.verdicts.kept, snapshot.verdicts.undone
    if not kept + undone and plain(snapshot):
        return "A plain run, to compare others with: prediction is locked."
    if not kept + undone:
        return "No prediction has been tried yet."
    return f"Predictions: {kept + undone:,} tried · {kept:,} kept · {undone:,} undone"
