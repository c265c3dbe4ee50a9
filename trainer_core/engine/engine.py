"""The engine: everything that happens in a step, on one screen. Knows no files, sockets or threads.

batch -> boundary (transitions that are due, with the paired tests they need; predicted stretches)
      -> the phase's step -> statistics -> record -> validation and checkpoint when due
"""

import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from trainer_core.engine import fitting, looking, predicting
from trainer_core.engine.batch_losses import BatchLosses
from trainer_core.engine.batches import Data
from trainer_core.engine.budget import Budget
from trainer_core.engine.compiling import compile_model
from trainer_core.engine.decay import with_decay_of
from trainer_core.engine.distributed import Ranks
from trainer_core.engine.flight import Flight
from trainer_core.engine.lengths import Lengths
from trainer_core.engine.measuring import Measuring
from trainer_core.engine.observing import training_state
from trainer_core.engine.pace import Pace
from trainer_core.engine.precision import Precision
from trainer_core.engine.progress import ProgressGuard
from trainer_core.engine.rates import RateWatch
from trainer_core.engine.recorder import Recorder
from trainer_core.engine.snapshot import Snapshot
from trainer_core.engine.state import restore, state_of
from trainer_core.engine.steps import STEPS, Outcome
from trainer_core.learning.confidence import Confidence
from trainer_core.learning.loss import Batch, BatchLoss, LossFn, checked_batch
from trainer_core.learning.loss_curve import Baseline, LossCurve
from trainer_core.learning.optimizers import check_optimizer, factored
from trainer_core.learning.paired import Paired, paired_test
from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors import Borrower, Predictor, checked_predictor, make_predictor
from trainer_core.learning.residuals import ResidualStore
from trainer_core.learning.schedules import Schedule
from trainer_core.learning.training_state import TrainingState
from trainer_core.spec.config import Config
from trainer_core.spec.errors import TrainingFailed
from trainer_core.spec.phases import TRAITS, Phase
from trainer_core.spec.records import Annotated, PhaseChanged, Record, StepRecord
from trainer_core.spec.signals import Signals
from trainer_core.spec.transitions import Decision, Effect, decide

_MOST_TRANSITIONS = 8
_FAR = 10**9
_MOST_UNLABELLED = 100
"""Batches without a label in a row that are no accident any more."""
Sink = Callable[[Record, int], None]


class Engine:
    """Hybrid predictive training of one model. ``sink(record, attempt)`` receives everything it says."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: LossFn,
        config: Config,
        sink: Sink,
        *,
        total_steps: int | None = None,
        predictor: Predictor | None = None,
        ranks: Ranks | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``ranks``: the processes that train it together, with equal weights from here on; None: this one alone."""
        self.model, self.optimizer, self.config, self.clock = model, optimizer, config, clock
        self.loss, self.ranks, self.data = BatchLoss(loss_fn), ranks, Data()
        check_optimizer(optimizer, model)
        self.parameters = Parameters(model, (p for group in optimizer.param_groups for p in group["params"]))
        if ranks is not None:
            ranks.share_weights(model)
        if config.training.compile:
            compile_model(model)
        self.config = with_decay_of(config, optimizer.param_groups)
        self.total_steps = total_steps
        self.schedule, self.rates = Schedule(optimizer, config), RateWatch()
        self.muon = factored(optimizer)
        """The optimizer that predicts its orthogonaliser, if one does."""
        self.precision = Precision(config.training, self.parameters.device, (p.dtype for p in self.parameters.tensors))
        self.predictor = (
            make_predictor(config.predictor_config, self.parameters, optimizer)
            if predictor is None
            else checked_predictor(predictor)
        )
        self.pace = Pace(clock, config.predictor_config)
        self.residuals = ResidualStore(self.parameters.count, config.predictor_config.residual_memory_mb)
        self.confidence, self.lengths, self.budget = Confidence(), Lengths(config), Budget()
        self.curve, self.grad_baseline, self.update_baseline = LossCurve(), Baseline(), Baseline()
        self.work_P = self.parameters.work()
        """In a full step the weights before it, then their change; between two full steps the predictor's."""
        if isinstance(self.predictor, Borrower):
            self.predictor.borrow(self.work_P)
        self.progress = ProgressGuard()
        self.recorder, self.phase = Recorder(self, sink), Phase.WARMUP
        self.step_count = self.steps_in_phase = self.batches = self.cycle = self.attempt = 0
        self.backward_passes = self.probe_at = self.state_rev = self.recoveries = 0
        self.predictions_entered = self.predictions_kept = self.predictions_undone = self.unaged = 0
        self._unlabelled, self._told_unlabelled = 0, False
        """Batches without a label in a row, the present one last; whether that was said."""
        self.forwards = 0.0
        """Forward passes over a whole batch that tests took."""
        self.separable: bool | None = None
        """Whether the losses of a part of a batch are those of its samples (see measuring); None: not seen yet."""
        self.draws: bool | None = None
        """Whether the loss draws random numbers in evaluation mode (see measuring); None: not seen yet."""
        self.last_divergence: int | None = None
        self.locked = self.corrected = False
        self.last = Signals()
        """The measured part of the signals, as the last step left it."""
        self.last_state: list[float] = []
        self.state = TrainingState()
        """What predictors see: the training after the last step."""
        self.last_batch: Batch | None = None
        self.proposed: Flight | None = None
        self.flight: Flight | None = None
        self.shadow: Flight | None = None
        """A refused proposal, to be measured once more on the next batch."""
        self.snapshot: Snapshot | None = None
        self.measuring = Measuring(self)
        self.samples = self.measuring.samples
        self.losses = BatchLosses(self.parameters, self.samples)
        self.shares: bool | None = None
        """Whether a look's forward pass may be a step's (see ahead); None: not seen yet."""
        self.shared_loss: tuple[Tensor, object] | None = None
        """A look's loss, to be compared with the coming step's own, and what else that must leave alone."""
        self.roll_back: Callable[[str], None] | None = None
        """Restores the last good checkpoint, more careful settings with it; set by whoever owns the files."""
        self.made = fitting.made(self, own=predictor is not None)
        self.schedule.apply(1)

    # -- one step ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> StepRecord:
        """Train on one batch. A prediction that is due moves the weights first, so ``step_count`` may grow by more.

        Raises UserError for a batch that cannot be used, TrainingFailed when NaN or Inf outlast every rollback.
        """
        self.parameters.check_same([p for group in self.optimizer.param_groups for p in group["params"]])
        batch = self.last_batch = checked_batch(batch, self.parameters.device)
        start = self.clock()
        self._boundary(batch)
        self.losses.forget()
        self.rates.look(self)
        between = self.clock() - start
        outcome = STEPS[self.phase](self, batch)
        self.batches += 1
        self.advance(1)
        self._learn(outcome)
        self.state = training_state(self, outcome)
        seconds = between + outcome.step_seconds
        if self.ranks is not None:
            seconds = self.ranks.roll_call(self, seconds)
        trained = self.pace.after_step(self.predictor, self.step_count, seconds)
        return self.recorder.step(outcome, between, trained)

    def _boundary(self, batch: Batch) -> None:
        """Take every transition that is due before the batch is trained on."""
        glided = False
        for _ in range(_MOST_TRANSITIONS):
            due = self._look_due()
            if due:
                forwards = self.forwards
                looking.look(self, batch)
                self.budget.looked(self.forwards - forwards)
            decision = decide(self.phase, self.signals(), self.config)
            if decision is not None:
                self.enter(decision, batch)
            elif due:
                looking.refused(self)
            if self.phase is Phase.PREDICT and not glided:
                glided = True
                predicting.glide(self)
            elif decision is None:
                return

    def _look_due(self) -> bool:
        if (
            self.phase is not Phase.FULL
            or self.locked
            or self.steps_in_phase < self.probe_at
            or self.progress.quiet(self)
        ):
            return False
        signals = self.signals()
        window = self.config.hybrid_trainer_config.divergence_window
        calm = signals.since_divergence is None or signals.since_divergence >= window
        return calm and signals.finite and self.steps_left > 1

    def enter(self, decision: Decision, batch: Batch | None) -> None:
        """Take a transition with its effect, and record it."""
        row = decision.transition
        if row.divergence:
            self.last_divergence = self.step_count
        because = "; ".join(decision.because)
        match row.effect:
            case Effect.ROLLBACK:
                return self._recover(row.source, because)
            case Effect.SNAPSHOT:
                predicting.depart(self, batch)
            case Effect.UNDO:
                predicting.undo(self, because)
                self._forget_failure()
            case Effect.JUDGE | Effect.SETTLE:
                predicting.judge(self, batch, because)
            case Effect.NONE:
                pass
        self.proposed = None
        self.change_phase(row.target, decision.because, batch)

    def change_phase(self, target: Phase, because: tuple[str, ...], batch: Batch | None) -> None:
        """Begin ``target`` and say why."""
        source, self.phase = self.phase, target
        self.steps_in_phase, self.corrected = 0, False
        self.last = msgspec.structs.replace(self.last, prediction_error=None, sign_changes=None)
        predicting.phase_entered(self, target, batch)
        self.recorder.forget_phase()
        self.record(PhaseChanged(self.step_count + 1, source, target, because, self.cycle, self.phase_budget))

    def _recover(self, source: Phase, because: str) -> None:
        """NaN, Inf or an extreme gradient outside PREDICT: last good checkpoint, learning rate / 10, clip 1.0."""
        self.recoveries += 1
        limit = self.config.divergence_config.max_recoveries
        if self.roll_back is None or self.recoveries > limit:
            raise TrainingFailed(
                f"step {self.step_count}: {because}; {limit} automatic rollbacks (max_recoveries) did not help"
            )
        self.roll_back(because)
        predicting.judge(self, None, because)  # one that was under way when its checkpoint was saved
        self.last_divergence = self.step_count
        self._forget_failure()
        if source is not Phase.FULL:
            self.phase = source
            self.change_phase(Phase.FULL, (because,), None)
        else:
            self.phase, self.steps_in_phase = Phase.FULL, 0
            predicting.phase_entered(self, Phase.FULL, None)

    def _forget_failure(self) -> None:
        self.last = Signals()

    @property
    def healthy(self) -> bool:
        """Whether no rollback is due."""
        decision = decide(self.phase, self.signals(), self.config)
        return self.last.finite and (decision is None or decision.transition.effect is not Effect.ROLLBACK)

    @property
    def good(self) -> bool:
        """Whether a rollback may go back to what is saved now: healthy, and not a model whose gradients are gone."""
        return self.healthy and not self.recorder.health.doubted

    # -- what the step needs ----------------------------------------------------------------------------------------

    def advance(self, steps: int) -> None:
        """Count nominal steps."""
        self.step_count += steps
        self.steps_in_phase += steps

    @property
    def steps_left(self) -> int:
        """Nominal steps until the end of the run; very many when it has no fixed end."""
        return _FAR if self.total_steps is None else self.total_steps - self.step_count

    @property
    def full_needed(self) -> int:
        """FULL steps before the next look: the window, and what pays for it."""
        needed = self.lengths.full_needed(self.config)
        return max(needed, self.budget.steps_to_next) if self.lengths.adaptive else needed

    @property
    def phase_budget(self) -> int | None:
        """Steps the present phase may last."""
        match self.phase:
            case Phase.WARMUP:
                return self.config.hybrid_trainer_config.warmup_steps
            case Phase.FULL:
                return self.probe_at
            case Phase.PREDICT:
                return self.flight.horizon if self.flight else None
            case Phase.CORRECT:
                return self.lengths.correct_needed(self.config)

    def compare(self, before_N: Tensor, after_N: Tensor) -> Paired:
        """The paired test of per-sample losses (N,) that ``samples`` gave: over the samples of all ranks."""
        if self.ranks is None:
            return paired_test(before_N, after_N)
        test, self.forwards = self.ranks.paired(before_N, after_N, self.forwards)
        return test

    def implied_rate(self, flight: Flight) -> float:
        """The learning rate that a prediction amounts to: rate * (1 + steps predicted / full steps before them)."""
        rate = self.schedule.planned(self.step_count + 1) * self.schedule.scale
        return rate * (1.0 + flight.taken / flight.window)

    def update_ratio(self, update_norm: float) -> float | None:
        """Update norm of one step over its baseline; None without a baseline."""
        mean = self.update_baseline.mean
        return update_norm / mean if mean else None

    def signals(self) -> Signals:
        """All that the policy may see, now."""
        confidence = self.last.confidence
        if self.phase is Phase.FULL:
            confidence = self.proposed.confidence if self.proposed else None
        return msgspec.structs.replace(
            self.last,
            step=self.step_count,
            steps_in_phase=self.steps_in_phase,
            loss_change=self.curve.relative_change,
            full_needed=self.probe_at,
            confidence=confidence,
            paying=self.progress.paying,
            since_divergence=None if self.last_divergence is None else max(0, self.step_count - self.last_divergence),
            locked=self.locked,
            horizon=self.flight.horizon if self.flight else 0,
            validated_steps=self.steps_in_phase if self.phase is Phase.CORRECT else 0,
            correct_needed=self.lengths.correct_needed(self.config),
            corrected=self.corrected,
        )

    def _learn(self, outcome: Outcome) -> None:
        """Take a measured step into the statistics and the signals."""
        if TRAITS[self.phase].backward:
            self.backward_passes += 1
            self.budget.full_step()
        if outcome.loss is None:
            return self._without_label()
        self._unlabelled = 0
        grad_norm = None if self.precision.overflowed(outcome.loss, outcome.grad_norm) else outcome.grad_norm
        finite = all(math.isfinite(x) for x in (outcome.loss, grad_norm or 0.0, outcome.update_norm))
        error = confidence = None
        deviation = self.curve.deviation(outcome.loss)
        if self.flight is not None and self.phase is Phase.PREDICT and outcome.predicted_loss is not None:
            self.flight.taken += 1
            error = self.flight.measured(outcome.loss, outcome.predicted_loss)
            confidence = self.confidence.measured(outcome.loss, outcome.predicted_loss, self.curve.sigma or 0.0)
        self.curve.update(outcome.loss)
        self.last = Signals(
            finite=finite,
            confidence=confidence,
            loss_deviation=deviation,
            update_ratio=self.update_ratio(outcome.update_norm),
            prediction_error=error,
            sign_changes=self.curve.sign_changes,
            grad_norm=grad_norm,
            grad_norm_baseline=self.grad_baseline.mean,  # before this step: a spike must not excuse itself
        )
        if grad_norm is not None and finite:
            self.grad_baseline.update(grad_norm)
            self.update_baseline.update(outcome.update_norm)

    def _without_label(self) -> None:
        """A step on a batch without a label measured nothing: the optimizer moved by what it had, or the prediction.

        Raises TrainingFailed when there is nothing but such batches.
        """
        self._unlabelled += 1
        if self._unlabelled > _MOST_UNLABELLED:
            raise TrainingFailed(
                f"step {self.step_count}: the loss of {_MOST_UNLABELLED} batches in a row was NaN and their gradient "
                "exactly 0, as where a batch has no label: look at the labels and at ignore_index"
            )
        if not self._told_unlabelled:
            self._told_unlabelled = True
            text = (
                "the batch has no label (its loss is NaN, its gradient exactly 0): nothing is measured, nothing undone"
            )
            self.record(Annotated(self.step_count, text, "trainer"))
        if self.flight is not None and self.phase is Phase.PREDICT:
            self.flight.taken += 1
        self.last = msgspec.structs.replace(self.last, loss_deviation=None, grad_norm=None)

    def record(self, record: Record) -> None:
        """Say something."""
        self.recorder.say(record)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's weights that going on bit for bit needs."""
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave. The attempt, the state_rev and the live settings are the caller's."""
        restore(self, state)
