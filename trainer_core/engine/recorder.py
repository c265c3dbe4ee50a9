"""Outcome -> record -> sink, and the alerts that records raise. Moves no weights; a failing sink is its own affair."""

from typing import TYPE_CHECKING, Any

from trainer_core.engine.alarms import Alarms
from trainer_core.engine.checklists import Checklists
from trainer_core.engine.health import Health
from trainer_core.engine.steps import Outcome
from trainer_core.spec.phases import TRAITS, Phase
from trainer_core.spec.records import (
    CalibrationMeasured,
    Explained,
    PhaseChanged,
    Record,
    ReliabilityBin,
    StepRecord,
)
from trainer_core.spec.transitions import explain, holding

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine, Sink

_EXPLAIN_EVERY = 20


class Recorder:
    """One run's mouth."""

    def __init__(self, engine: "Engine", sink: "Sink") -> None:
        self._engine = engine
        self._sink = sink
        self.health, self.checklists = Health(), Checklists()
        self.alarms = Alarms(self.say, lambda: engine.attempt)
        self.all_alarms = [self.alarms]
        """Its own, and the machine's when somebody watches that."""
        self._explained: tuple[bool, ...] | None = None
        self._since_explained = 0

    def say(self, record: Record) -> None:
        """Hand a record to the sink with the present attempt."""
        self._sink(record, self._engine.attempt)
        self.health.hear(record)
        if isinstance(record, PhaseChanged):
            checklist = self.checklists.phase(record, self._engine.config)
            if checklist is not None:
                self.say(checklist)

    def calibration(self, every: int = 1) -> None:
        """The reliability of the confidence so far, when there are outcomes and their number divides by ``every``."""
        found = self._engine.confidence.reliability
        if found.brier is None or found.outcomes % every:
            return
        bins = tuple(
            ReliabilityBin(n, better, stated / n if n else None)
            for n, better, stated in zip(found.counts, found.better, found.stated, strict=True)
        )
        self.say(CalibrationMeasured(self._engine.step_count, found.outcomes, found.brier, bins))

    def step(self, outcome: Outcome, between_seconds: float, trained: float | None = None) -> StepRecord:
        """Record a measured step; ``between_seconds`` went into probes and transitions before it.

        ``trained``: seconds of the predictor's own training after it; None when there was none.
        """
        record = self._step_record(outcome, between_seconds + (trained or 0.0), trained)
        self.say(record)
        self._explain()
        self._judge_health(record)
        return record

    def _judge_health(self, record: StepRecord) -> None:
        config, finite = self._engine.config, self._engine.last.finite
        signals = self.health.signals(record, config, self._engine.locked)
        self.alarms.check(record, finite, config, self.health.judged(signals, config, self._engine.locked))
        told = self.health.told(record.step, signals)
        if told is not None:
            self.say(told)
        checklist = self.checklists.step(record, config, finite)
        if checklist is not None:
            self.say(checklist)

    def _step_record(self, outcome: Outcome, between_seconds: float, trained: float | None) -> StepRecord:
        e = self._engine
        signals = e.last
        backward = TRAITS[e.phase].backward
        ratio = outcome.grad_norm / outcome.param_norm if outcome.grad_norm is not None and outcome.param_norm else None
        return StepRecord(
            step=e.step_count,
            batch=e.batches,
            phase=e.phase,
            cycle=e.cycle,
            step_in_phase=e.steps_in_phase,
            phase_budget=e.phase_budget,
            loss=outcome.loss,
            loss_ema=e.curve.ema,
            loss_sigma=e.curve.sigma,
            loss_deviation=signals.loss_deviation,
            predicted_loss=outcome.predicted_loss,
            predicted_low=outcome.predicted_low,
            predicted_high=outcome.predicted_high,
            prediction_error=signals.prediction_error,
            relative_error=outcome.relative_error,
            confidence=signals.confidence if e.phase is Phase.PREDICT else e.confidence.displayed,
            grad_norm=outcome.grad_norm,
            grad_norm_baseline=e.grad_baseline.mean,
            grad_param_ratio=ratio,
            grad_variance=e.grad_baseline.variance if backward else None,
            update_norm=outcome.update_norm,
            update_norm_baseline=e.update_baseline.mean,
            param_norm=outcome.param_norm,
            learning_rate=outcome.learning_rate,
            sign_changes=signals.sign_changes,
            step_seconds=outcome.step_seconds + between_seconds,
            forward_seconds=outcome.forward_seconds,
            backward_seconds=outcome.backward_seconds,
            optimizer_seconds=outcome.optimizer_seconds,
            predict_seconds=outcome.predict_seconds + between_seconds,
            predictor_train_seconds=trained,
            backward_passes=e.backward_passes,
            loss_change=e.curve.relative_change,
            update_ratio=signals.update_ratio,
            horizon=e.flight.horizon if e.flight else e.lengths.horizon(e.config),
            full_needed=e.probe_at,
            since_divergence=None if e.last_divergence is None else max(0, e.step_count - e.last_divergence),
            refusals=e.lengths.refusals,
            predictions_kept=e.predictions_kept,
            predictions_undone=e.predictions_undone,
            brier=e.confidence.brier,
            residuals=len(e.residuals),
            micro_batches=outcome.micro_batches,
            micro_grad_variance=outcome.micro_grad_variance,
            micro_grad_snr=outcome.micro_grad_snr,
            orthogonaliser_confidence=outcome.orthogonaliser_confidence,
            orthogonaliser_predicted=outcome.orthogonaliser_predicted,
            slowest_rank=None if e.ranks is None else e.ranks.slowest,
            rank_spread_seconds=None if e.ranks is None else e.ranks.spread_seconds,
            layer_grad_norms=outcome.layer_grad_norms,
        )

    def _explain(self) -> None:
        """The checklist of guards, when one flips and every 20 steps."""
        e = self._engine
        signals = e.signals()
        holds = holding(e.phase, signals, e.config)
        self._since_explained += 1
        if holds != self._explained or self._since_explained >= _EXPLAIN_EVERY:
            self.say(Explained(e.step_count, e.phase, explain(e.phase, signals, e.config)))
            self._explained, self._since_explained = holds, 0

    def forget_phase(self) -> None:
        """A phase begins: its checklist is told anew."""
        self._explained = None

    def state_dict(self) -> dict[str, Any]:
        return {"explained": self._explained and list(self._explained), "since": self._since_explained,
                "alarms": self.alarms.state_dict(), "health": self.health.state_dict(),
                "checklists": self.checklists.state_dict()}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._explained = tuple(state["explained"]) if state["explained"] is not None else None
        self._since_explained = state["since"]
        self.alarms.load_state_dict(state["alarms"])
        self.health.load_state_dict(state["health"])
        self.checklists.load_state_dict(state["checklists"])
