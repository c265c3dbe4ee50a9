"""Why it is not predicting yet, or what ends the phase it is in: one sentence and the guards behind it. Pure."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.lifecycle import OWN_LOOP
from app.views.phases_machine import OPERATOR, Machine, Standing, locked, plain
from trainer_core.spec.config import Config
from trainer_core.spec.guards import Answer
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AttemptStarted,
    PhaseChanged,
    PredictedStretch,
    PredictionProbed,
    ProgressCompared,
    StepRecord,
)
from trainer_core.spec.transitions import TRANSITIONS, Effect, Transition, guard_name

AT_WORK = ("working", "paused", "stalled", "replay")
"""States in which the run may still take a step."""
RESUMED = "resumed"
"""How the reason of an attempt begins that is no rollback."""
OVER = {"crashed": "has crashed", "failed": "has failed"}
TITLES = {
    None: "What happens next",
    Phase.WARMUP: "Why not predicting yet?",
    Phase.FULL: "Why not predicting yet?",
    Phase.PREDICT: "What ends this prediction?",
    Phase.CORRECT: "What ends this correction?",
}


@dataclass(frozen=True)
class Line:
    """One guard as a line of a list. ``holds`` None: it could not be asked."""

    holds: bool | None
    text: str
    detail: str


@dataclass(frozen=True)
class Why:
    """The head of the page."""

    title: str
    answer: str
    """The one sentence."""
    more: str
    """What the sentence leaves open; may be empty."""
    lines: list[Line]
    asked: str
    """When the guards were asked."""


def why(snapshot: Snapshot, state: str, found: Machine, config: Config | None) -> Why:
    """The head of the page; ``state`` is that of the process (``RunStatus.state``)."""
    phase = found.active
    if snapshot.own_loop:
        return Why(TITLES[None], OWN_LOOP, "", [], "")
    if phase is None or snapshot.last is None:
        return Why(TITLES[None], "No step has been taken yet.", "WARMUP begins with the first one.", [], "")
    standing = found.standings[phase]
    over = f"The run {OVER.get(state, f'is {state}')}. " if state not in AT_WORK else ""
    answer, more = ANSWERS[phase](snapshot, standing, config)
    return Why(
        title=TITLES[phase] if state in AT_WORK else "How it stood",
        answer=over + answer,
        more=more,
        lines=lines_to(standing, _wanted(phase)),
        asked=f"asked at step {words.count(standing.step)}" if standing.step is not None else "not asked yet",
    )


def _wanted(phase: Phase) -> list[Transition]:
    """The rows out of ``phase`` that a reader waits for: rollbacks and commands are not among them."""
    return [
        row
        for row in TRANSITIONS
        if row.source is phase and row.cause != OPERATOR and row.effect is not Effect.ROLLBACK
    ]


def lines_to(standing: Standing, rows: list[Transition]) -> list[Line]:
    """One line a guard, in the order of the table, each once."""
    lines: dict[str, Line] = {}
    for row in rows:
        for guard in row.guards:
            name = guard_name(guard)
            answer = standing.answers.get(name)
            text = (guard.__doc__ or name).split(".")[0].split(" (")[0]
            lines[name] = Line(answer.holds if answer else None, text, answer.detail if answer else "not asked")
    return list(lines.values())


def _warmup(snapshot: Snapshot, standing: Standing, config: Config | None) -> tuple[str, str]:
    last = snapshot.last
    assert last is not None
    if config is None:
        return "Warming up.", ""
    needed = config.hybrid_trainer_config.warmup_steps
    ends = f"WARMUP ends at step {words.count(5 * needed)} at the latest." if needed else ""
    if last.step < needed:
        return f"Warming up: {_steps(needed - last.step)} to go of {words.count(needed)}.", ends
    return f"Warming up: the loss has not settled ({_detail(standing, 'loss_stable')}).", ends


def _full(snapshot: Snapshot, standing: Standing, config: Config | None) -> tuple[str, str]:
    last, more = snapshot.last, last_look(snapshot)
    if locked(snapshot):
        if plain(snapshot):
            return "Prediction is locked: a plain run, to compare others with.", ""
        return "Prediction is locked by an operator: unlock it on the Control page.", more
    if not isinstance(last, StepRecord) or last.phase is not Phase.FULL or last.full_needed is None:
        return "FULL has just begun.", more
    if (calm := _unmet(standing, "calm")) is not None:
        return f"It diverged a short while ago: {calm.detail}.", more
    paused = _pause_left(snapshot, last.step)
    if paused > 0:
        return (
            f"Predictions pause for {_steps(paused, 'full ')}: for their cost they were slower than full steps.",
            more,
        )
    left = last.full_needed - last.step_in_phase
    if left > 0:
        return f"{_steps(left, 'full ').capitalize()} to go before the next look at a prediction.", more
    if left == 0:
        return "The window is full: it looks for a prediction before the next step.", more
    return "It takes full steps only for a while, to measure whether predictions are worth their cost.", more


def _predict(snapshot: Snapshot, standing: Standing, config: Config | None) -> tuple[str, str]:
    change, last = snapshot.latest(PhaseChanged), snapshot.last
    begun = change.step if change is not None and change.to_phase is Phase.PREDICT else None
    horizon = change.budget if change is not None and begun is not None else None
    if begun is None or horizon is None or last is None:
        return "Predicting.", ""
    inside = max(0, last.step - begun + 1)
    jump = " in one jump" if isinstance(last, PredictedStretch) else ""
    return f"Predicting{jump}: step {inside:,} of {horizon:,}, no backward pass.", "It ends at the first of these:"


def _correct(snapshot: Snapshot, standing: Standing, config: Config | None) -> tuple[str, str]:
    last = snapshot.last
    more = "Then a paired test keeps the prediction or undoes it."
    if isinstance(last, StepRecord) and last.phase is Phase.CORRECT and last.phase_budget is not None:
        return f"Checking the prediction: {last.step_in_phase:,} of {_steps(last.phase_budget, 'full ')} taken.", more
    return "Checking the prediction: its full steps come now.", more


ANSWERS = {Phase.WARMUP: _warmup, Phase.FULL: _full, Phase.PREDICT: _predict, Phase.CORRECT: _correct}


def last_look(snapshot: Snapshot) -> str:
    """The newest proposal that was probed, and what came of it; empty before the first one."""
    look = next((p for p in reversed(snapshot.newest(PredictionProbed, 4)) if not p.shadow), None)
    if look is None:
        return "No prediction has been looked at yet."
    came = "it was taken" if look.step + 1 in predictions_begun(snapshot) else "it was not taken"
    return (
        f"Last look at step {look.step:,}, {_steps(look.horizon)} ahead: "
        f"confidence {words.number(look.confidence)}, z = {look.z:.2f}: {came}."
    )


def predictions_begun(snapshot: Snapshot) -> set[int]:
    """First steps of the newest predictions: a look that was taken is followed by one at the very next step."""
    return {change.step for change in snapshot.newest(PhaseChanged, 32) if change.to_phase is Phase.PREDICT}


def _pause_left(snapshot: Snapshot, step: int) -> int:
    """Full steps that the progress guard still asks for. A rollback ends its pause, a resume does not."""
    verdict = next(iter(snapshot.surviving(ProgressCompared)[-1:]), None)
    if verdict is None or not verdict.paused_steps:
        return 0
    said = next(row.seq for row in reversed(snapshot.events[ProgressCompared]) if row.record is verdict)
    began = (row.record for row in snapshot.events[AttemptStarted] if row.seq > said)
    rolled_back = any(isinstance(one, AttemptStarted) and not one.because.startswith(RESUMED) for one in began)
    return 0 if rolled_back else verdict.paused_steps - (step - verdict.step)


def _unmet(standing: Standing, name: str) -> Answer | None:
    answer = standing.answers.get(name)
    return answer if answer is not None and not answer.holds else None


def _detail(standing: Standing, name: str) -> str:
    answer = standing.answers.get(name)
    return answer.detail if answer is not None else "not measured yet"


def _steps(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}step{'' if count == 1 else 's'}"
