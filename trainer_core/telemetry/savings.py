"""The ledger: what a run's steps and predictions cost and what they saved, from journal records. Knows no file.

    charged = seconds of the steps themselves, by phase
            + probes + snapshots + moves + corrections + verdicts + rollbacks
    skipped = nominal steps - backward passes of all attempts
    gross   = skipped x seconds of a plain step
    net     = nominal steps x seconds of a plain step - charged = gross - costs

A record between two step records was paid for inside the later step (its ``predict_seconds`` hold it) or, where an
operator's command asked for it, between them; what exceeds ``predict_seconds`` is charged on top.
"""

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import msgspec

from trainer_core.spec.phases import TRAITS, Phase
from trainer_core.spec.records import (
    AttemptStarted,
    CheckpointSaved,
    CorrectionApplied,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    PredictionProbed,
    ProgressCompared,
    Record,
    Row,
    StepRecord,
    ValidationMeasured,
)
from trainer_core.telemetry.path import Branches, Columns

Basis = Literal["estimate", "measured"]
"""Whether a baseline's seconds were measured on a baseline run, or are what full steps of this run let one expect."""


class PhaseCost(msgspec.Struct):
    """Steps of one phase, abandoned ones included; seconds of wall clock without what ``PredictionCost`` lists."""

    steps: int = 0
    """Steps that took a batch; steps moved in a stretch are in ``predicted``."""
    predicted: int = 0
    seconds: float = 0.0
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    optimizer_seconds: float = 0.0
    observing_seconds: float = 0.0
    """The predictor's watching and training, norms and copies: inside ``seconds``, absent from a plain loop."""
    training_seconds: float = 0.0
    """Training a learned predictor: inside ``observing_seconds``."""
    backward_passes: int = 0


class PredictionCost(msgspec.Struct):
    """Seconds beside the steps themselves. Together with the phases' seconds they are all that is charged."""

    probes: float = 0.0
    """Looks, shadows, and the progress guard's paired tests."""
    snapshots: float = 0.0
    moves: float = 0.0
    corrections: float = 0.0
    verdicts: float = 0.0
    """Paired tests at the end of predictions, and going back to the snapshot."""
    rollbacks: float = 0.0

    @property
    def total(self) -> float:
        return self.probes + self.snapshots + self.moves + self.corrections + self.verdicts + self.rollbacks


class Undone(msgspec.Struct):
    """Predictions taken back: of the figures charged, not beside them."""

    predictions: int = 0
    steps: int = 0
    """Nominal steps that ended where they began."""
    backward_passes: int = 0
    seconds: float = 0.0
    """Their steps, moves, corrections, snapshots and verdicts."""


class AttemptCost(msgspec.Struct):
    """One stretch between rollbacks or resumes."""

    attempt: int
    from_step: int
    """The step it went on from."""
    to_step: int
    """The step it reached."""
    abandoned_steps: int = 0
    """Of its nominal steps, those that a later rollback or resume took back."""
    backward_passes: int = 0
    backward_skipped: int = 0
    """Its nominal steps, abandoned ones included, minus its backward passes."""
    seconds: float = 0.0


class Abandoned(msgspec.Struct):
    """Work that rollbacks and resumes took back: charged, and in none of the surviving steps."""

    steps: int = 0
    backward_passes: int = 0
    seconds: float = 0.0


class Saved(msgspec.Struct, frozen=True):
    """Time saved at equal nominal steps, not at equal loss."""

    basis: Basis
    method: str
    plain_step_seconds: float
    baseline_seconds: float
    gross_seconds: float
    """Backward passes skipped x seconds of a plain step."""
    costs_seconds: float
    """What a plain loop would not have paid: prediction, bookkeeping, undone and abandoned work."""
    net_seconds: float
    """baseline_seconds - charged_seconds = gross_seconds - costs_seconds."""
    speedup: float


class Ledger(msgspec.Struct, frozen=True):
    """The account of one run."""

    nominal_steps: int
    """Of the surviving attempt."""
    backward_passes: int
    """Of all attempts."""
    backward_skipped: int
    """nominal_steps - backward_passes; below zero where abandoned work outweighs what was skipped."""
    charged_seconds: float
    phases: dict[Phase, PhaseCost]
    prediction: PredictionCost
    undone: Undone
    abandoned: Abandoned
    attempts: tuple[AttemptCost, ...]
    validation_seconds: float
    """Not charged: a plain loop pays the same."""
    checkpoint_seconds: float
    """Not charged either."""
    saved: Saved | None
    """None where no full step was timed."""


class Curve(msgspec.Struct, frozen=True):
    """What was paid by each step of the surviving path, and the losses measured along it."""

    steps: Sequence[int]
    backward: Sequence[int]
    """Backward passes of all attempts up to that step."""
    charged: Sequence[float]
    """Seconds, abandoned work included."""
    plain: Sequence[float]
    """Seconds of ``charged`` that a plain loop pays, too."""
    ema: Sequence[float]
    """Training loss EMA; NaN where it was not measured."""
    validations: tuple[tuple[int, float], ...]
    """(step, held-out loss)."""

    def index(self, step: int) -> int:
        """Of the last point at or before ``step``; -1 when there is none."""
        return bisect_right(self.steps, step) - 1


class LedgerTally:
    """Adds up rows, one at a time."""

    def __init__(self) -> None:
        self.phases: dict[Phase, PhaseCost] = {phase: PhaseCost() for phase in Phase}
        self.prediction, self.undone, self.abandoned = PredictionCost(), Undone(), Abandoned()
        self.attempts: list[AttemptCost] = [AttemptCost(0, 0, 0)]
        self.charged = self.observing = self.validation_seconds = self.checkpoint_seconds = 0.0
        self.backward = 0
        self.plain_costs: list[float] = []
        """Seconds of each full step without the predictor's share."""
        self._pending = 0.0
        """Seconds of what happened since the last step record."""
        self._flight: tuple[float, int] | None = None
        """(charged, backward) when the prediction under way began."""
        self._departed_in: PhaseCost | None = None
        """The phase of its first measured step: the snapshot was taken inside that step."""
        self._told = 0.0
        """Seconds charged when the last step was reached."""
        self._branches, self._own = Branches(), [Columns(0, 0.0)]

    def take(self, row: Row) -> None:
        """Count one row."""
        match row.record:
            case StepRecord():
                self._stepped(row.record)
            case PredictedStretch():
                self._moved(row.record)
            case AttemptStarted():
                self._went_on(row.record)
            case PhaseChanged(to_phase=Phase.PREDICT):
                self._flight, self._departed_in = (self._now, self.backward), None
            case _:
                self._paid(row.record)

    @property
    def _now(self) -> float:
        """Seconds charged, with those that wait for their step."""
        return self.charged + self._pending

    def _paid(self, record: Record) -> None:
        p = self.prediction
        match record:
            case PredictionProbed() | ProgressCompared():
                p.probes += record.seconds
                self._pending += record.seconds
            case CorrectionApplied():
                p.corrections += record.seconds or 0.0
                self._pending += record.seconds or 0.0
            case PredictionEnded():
                self._judged(record)
            case ValidationMeasured():
                self.validation_seconds += record.seconds
                self._own[-1].validations.append((record.step, record.loss))
            case CheckpointSaved():
                self.checkpoint_seconds += record.seconds
                self._branches.saved(record.name)
            case _:
                pass

    def _stepped(self, r: StepRecord) -> None:
        inside = min(self._pending, r.predict_seconds or 0.0)
        observing = (r.predict_seconds or 0.0) - inside
        own = (r.step_seconds or 0.0) - inside
        phase = self.phases[r.phase]
        if self._flight is not None and self._departed_in is None:
            self._departed_in = phase
        phase.steps += 1
        phase.seconds += own
        phase.forward_seconds += r.forward_seconds or 0.0
        phase.backward_seconds += r.backward_seconds or 0.0
        phase.optimizer_seconds += r.optimizer_seconds or 0.0
        phase.observing_seconds += observing
        phase.training_seconds += r.predictor_train_seconds or 0.0
        if TRAITS[r.phase].backward and r.step_seconds is not None:
            self.plain_costs.append(own - observing)
        self.charged += self._pending + own
        self._pending = 0.0
        self.observing += observing
        phase.backward_passes += max(0, r.backward_passes - self.backward)
        self._reached(r.step, r.backward_passes, r.loss_ema)

    def _moved(self, r: PredictedStretch) -> None:
        self.prediction.moves += r.seconds
        self._pending += r.seconds
        self.phases[Phase.PREDICT].predicted += r.last_step - r.first_step + 1
        self._reached(r.last_step, r.backward_passes, None)

    def _judged(self, r: PredictionEnded) -> None:
        snapshot, verdict = r.snapshot_seconds or 0.0, r.seconds or 0.0
        self.prediction.verdicts += verdict
        self._pending += verdict
        self._took_snapshot(snapshot)
        if not r.kept:
            began, backward = self._flight or (self._now - verdict, self.backward)
            self.undone.predictions += 1
            self.undone.steps += r.steps
            self.undone.backward_passes += self.backward - backward
            self.undone.seconds += self._now - began
        self._flight = None

    def _took_snapshot(self, seconds: float) -> None:
        """Said only now, but charged already as watching of the first step of the prediction, if there was one."""
        cost = self._departed_in
        if cost is None:
            self._pending += seconds
        else:
            seconds = min(seconds, cost.observing_seconds)
            cost.observing_seconds -= seconds
            cost.seconds -= seconds
            self.observing -= seconds
        self.prediction.snapshots += seconds

    def _reached(self, step: int, backward: int, ema: float | None) -> None:
        self._branches.shorten(step - 1)
        backward = max(self.backward, backward)
        passes, seconds = backward - self.backward, self._now - self._told
        attempt = self.attempts[-1]
        attempt.to_step = max(attempt.to_step, step)
        attempt.backward_passes += passes
        attempt.backward_skipped = attempt.to_step - attempt.from_step - attempt.backward_passes
        attempt.seconds += seconds
        self.backward, self._told = backward, self._now
        plain = self._now - self.observing - self.prediction.total
        self._own[-1].reached(step, backward, self._now, plain, math.nan if ema is None else ema)

    def _went_on(self, r: AttemptStarted) -> None:
        self._branches.begin(r.attempt, r.parent, r.checkpoint, r.step)
        self._own.append(Columns(self.backward, self._told))
        self.prediction.rollbacks += r.seconds or 0.0
        self._pending += r.seconds or 0.0
        self.attempts.append(AttemptCost(r.attempt, r.step, r.step))
        self._flight = None

    def ledger(self) -> Ledger:
        """The account so far."""
        found = (self._own[branch].last(upto) for branch, upto in reversed(self._branches.way()))
        steps = next((step for step in found if step is not None), 0)
        self._give_up()
        return Ledger(
            nominal_steps=steps,
            backward_passes=self.backward,
            backward_skipped=steps - self.backward,
            charged_seconds=self._now,
            phases=self.phases,
            prediction=self.prediction,
            undone=self.undone,
            abandoned=self.abandoned,
            attempts=tuple(self.attempts),
            validation_seconds=self.validation_seconds,
            checkpoint_seconds=self.checkpoint_seconds,
            saved=self._estimate(steps),
        )

    def _estimate(self, steps: int) -> Saved | None:
        if not self.plain_costs or self._now <= 0:
            return None
        each = statistics.median(self.plain_costs)
        method = f"nominal steps x median of {len(self.plain_costs)} full steps, without the predictor's share"
        return saved("estimate", method, each, steps, self.backward, self._now)

    def _give_up(self) -> None:
        """What does not lie on the way to the present step was abandoned."""
        upto, self.abandoned = dict(self._branches.way()), Abandoned()
        for branch, (attempt, own) in enumerate(zip(self.attempts, self._own, strict=True)):
            stands = min(max(upto.get(branch, attempt.from_step), attempt.from_step), attempt.to_step)
            attempt.abandoned_steps = attempt.to_step - stands
            passes, seconds = own.behind(upto.get(branch, -1))
            self.abandoned.steps += attempt.abandoned_steps
            self.abandoned.backward_passes += passes
            self.abandoned.seconds += seconds

    def curve(self) -> Curve:
        """The surviving path so far."""
        whole = Columns(0, 0.0)
        for branch, upto in self._branches.way():
            whole.go_on_with(self._own[branch], upto)
        return Curve(whole.steps, whole.backward, whole.charged, whole.plain, whole.ema, tuple(whole.validations))


def saved(basis: Basis, method: str, each: float, steps: int, backward: int, charged: float) -> Saved:
    """The account against a plain loop of ``steps`` steps of ``each`` seconds."""
    baseline, gross = steps * each, (steps - backward) * each
    return Saved(
        basis=basis,
        method=method,
        plain_step_seconds=each,
        baseline_seconds=baseline,
        gross_seconds=gross,
        costs_seconds=charged - backward * each,
        net_seconds=baseline - charged,
        speedup=baseline / charged,
    )
