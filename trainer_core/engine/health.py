"""Health of a run from its records: the numbers behind the warning signs. Sees no tensor, raises no alert.

slow <- slow + 0.02 (L - slow)                      what plateau and overfitting call the training loss
zeros <- zeros + 0.1 (no gradient - zeros)         of each layer that had one; dead above 0.8: twenty steps without any
implied learning rate / learning rate = 1 + horizon / window     of a kept prediction; 1 of a refused or undone one
"""

import math
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import msgspec

from trainer_core.spec.commands import ApplyRemedy, CommandState, ScaleLearningRate, SetLearningRate
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    CommandChanged,
    HealthMeasured,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    PredictionProbed,
    Record,
    StepRecord,
    ValidationMeasured,
)

_SLOW = 0.02
_ZEROS, _DEAD, _NO_GRADIENT = 0.1, 0.8, 1e-12
_FULL_SHARE_SPAN = 200
_PREDICTIONS = 20
_FEWEST_PREDICTIONS = 5
_MOST_ATTEMPTS = 1000
_TELL_EVERY = 20
_SAID_OF_THE_LIVING = ("steps_without_gain", "underfitting", "grad_param_ratio", "implied_rate")
"""Signals whose remedies raise the learning rate, which is what did the harm where a model died or its loss rose."""
_FITTED = 0.05
"""Share of the first loss at which there is next to nothing left to learn: gradients are small there, and no fault."""
_ENDS_WELL = ("horizon_reached", "asked for", "rollback")
"""How the reason of a phase change out of PREDICT begins when nothing was wrong with the prediction."""


class _Memory(msgspec.Struct):
    """Everything remembered, as plain values: it travels in checkpoints as it is."""

    slow: float | None = None
    first: float | None = None
    """The first loss."""
    best: float | None = None
    """Best smoothed loss, of which ``plateau_improvement`` was gained."""
    best_step: int = 0
    since_gain: int = 0
    baseline: float | None = None
    """Gradient baseline before the present step: a spike must not excuse itself."""
    all_learn: bool = False
    """Every layer has had a gradient."""
    zeros: list[float] = []
    """By layer: share of the last steps without a gradient, -1 before it had one; empty while all have one."""
    dead: bool = False
    """Whether more layers are dead than ``dead_layers_limit``."""
    doubted: bool = False
    """Whether so many had no gradient of late: they may be dying."""
    full_share: float = 0.0
    full_since: int = 0
    """Step from which the present FULL window counts."""
    window: int = 1
    """FULL steps before the last prediction."""
    learning_rate: float | None = None
    """Of the last step that had one."""
    left_well: bool | None = None
    """Whether PREDICT ended as planned; None: the verdict on it is not awaited."""
    verdict: tuple[int, bool] | None = None
    """(predicted steps, kept) of a prediction whose phase has not ended yet."""
    predictions: list[tuple[int, bool]] = []
    """(predicted steps, diverged) of the last predictions."""
    implied: list[float] = []
    """Implied learning rate / learning rate of the last attempts."""
    probed: bool = False
    """A proposal was probed and is neither entered nor known to be refused."""
    best_validation: float | None = None
    train_then: float | None = None
    """Smoothed training loss at the best validation."""
    flat_validation: float | None = None
    flat_train: float | None = None
    """Both losses when one of them last improved."""
    overfitting: int = 0
    underfitting: int = 0
    gap: float | None = None
    validation: float | None = None
    """A validation that has not been weighed yet."""
    told_at: int = 0
    """Step of the last HealthMeasured."""


class Health:
    """Feed it every record with ``hear``, and the signals of each measured step come out of ``signals``."""

    def __init__(self) -> None:
        self._memory = _Memory()
        self._derived: tuple[int, float | None, int, float | None] | None = None
        """(attempts, divergence rate, in a row, implied rate) until another prediction ends."""
        self._fitted: tuple[str, ...] = ()
        """Signals of the present step that are low because the model is fitted."""

    def hear(self, record: Record) -> None:
        """Take in what was said; step records are taken by ``signals``."""
        m = self._memory
        match record:
            case PhaseChanged():
                self._phase(record)
            case PredictedStretch(first_step=first, last_step=last):
                m.full_share *= (1 - 1 / _FULL_SHARE_SPAN) ** (last - first + 1)
            case PredictionProbed(shadow=False):
                self._refused()  # the one before was not entered
                m.probed = True
            case PredictionEnded():
                self._ended(record)
            case ValidationMeasured(loss=loss):
                m.validation = loss
            case CommandChanged(state=CommandState.APPLIED, command=command):
                if isinstance(command, SetLearningRate | ScaleLearningRate | ApplyRemedy):
                    self._begin_anew(record.step)
            case _:
                pass

    def _phase(self, change: PhaseChanged) -> None:
        m = self._memory
        if change.to_phase is Phase.PREDICT:
            m.window, m.probed = max(1, change.step - m.full_since), False
        if change.from_phase is Phase.PREDICT:
            m.left_well = bool(change.because) and change.because[0].startswith(_ENDS_WELL)
            self._settle()
        if change.to_phase is Phase.FULL:
            m.full_since = change.step

    def _ended(self, ended: PredictionEnded) -> None:
        m = self._memory
        m.probed, m.verdict = False, (ended.steps, ended.kept)
        implied = 1.0 + ended.steps / m.window
        if ended.implied_rate is not None and m.learning_rate:
            implied = ended.implied_rate / m.learning_rate
        self._attempted(implied if ended.kept else 1.0)
        self._settle()

    def _settle(self) -> None:
        """The end of the phase and the verdict come in either order; undone or ended early, it has diverged."""
        m = self._memory
        if m.verdict is None or m.left_well is None:
            return
        (steps, kept), well = m.verdict, m.left_well
        m.predictions = [*m.predictions, (max(1, steps), not (kept and well))][-_PREDICTIONS:]
        m.verdict = m.left_well = None
        self._derived = None

    def _refused(self) -> None:
        if self._memory.probed:
            self._attempted(1.0)
        self._memory.probed = False

    def _attempted(self, implied: float) -> None:
        self._memory.implied = [*self._memory.implied, implied][-_MOST_ATTEMPTS:]
        self._derived = None

    def _begin_anew(self, step: int) -> None:
        """Another learning rate: what was seen under the old one is no evidence against it."""
        m = self._memory
        m.implied, m.predictions, self._derived = [], [], None
        m.best, m.best_step, m.since_gain = m.slow, step, 0
        m.overfitting = m.underfitting = 0
        m.flat_validation = m.flat_train = None

    def signals(self, record: StepRecord, config: Config, locked: bool) -> dict[str, float | None]:
        """Take in one measured step; every signal of ``spec.ladders.HEALTH_SIGNALS``, None: no evidence."""
        m = self._memory
        self._train(record, config)
        if m.validation is not None:
            self._validated(m.validation, config)
            m.validation = None
        grown = None
        if record.grad_norm is not None:
            grown = record.grad_norm / m.baseline if m.baseline else None
            m.baseline = record.grad_norm_baseline
        m.learning_rate = record.learning_rate if record.learning_rate is not None else m.learning_rate
        full = 1.0 if record.phase is Phase.FULL else 0.0
        m.full_share += (full - m.full_share) / _FULL_SHARE_SPAN
        dead = self._dead(record)
        limit = config.health.dead_layers_limit
        m.dead = m.dead if dead is None else dead > limit
        m.doubted = sum(past > 0 for past in m.zeros) > limit * len(m.zeros)
        self._fitted = self._small_when_fitted(record, config)
        layers, attempts = record.layer_grad_norms, config.health.implied_rate_attempts
        if self._derived is None or self._derived[0] != attempts:
            self._derived = attempts, self._divergence_rate(), self._in_a_row(), self._implied(attempts)
        _, rate, in_a_row, implied = self._derived
        return {
            "grad_growth": grown,
            "layer_norm_high": max(layers) if layers else None,
            "layer_norm_low": min(layers) if layers else None,
            "dead_layers": dead,
            "loss_rise": self._rise(),
            "steps_without_gain": m.since_gain,
            "divergence_rate": rate,
            "divergences_in_a_row": in_a_row,
            "full_share": None if locked else m.full_share,
            "overfitting": m.overfitting,
            "validation_gap": m.gap,
            "underfitting": m.underfitting,
            "implied_rate": implied,
        }

    def told(self, step: int, signals: Mapping[str, float | None]) -> HealthMeasured | None:
        """What is to be said of the signals of a measured step: all that have evidence, every 20 steps."""
        m = self._memory
        if step // _TELL_EVERY == m.told_at // _TELL_EVERY:
            return None
        m.told_at = step
        return HealthMeasured(step, {name: float(value) for name, value in signals.items() if value is not None})

    @property
    def dead(self) -> bool:
        """Whether the model was dead at the last step that could tell."""
        return self._memory.dead

    @property
    def doubted(self) -> bool:
        """Whether it is dead or may be dying, which takes twenty steps to tell: what is saved now is nothing to go back
        to."""
        return self._memory.dead or self._memory.doubted

    def judged(self, signals: Mapping[str, float | None], config: Config, locked: bool) -> dict[str, float | None]:
        """The signals that rules look at: what is so for another reason, which has a rule of its own, is left out."""
        ignored = ["confidence"] if locked else []
        risen = (signals["loss_rise"] or 0.0) > config.health.loss_rise_limit
        ignored += _SAID_OF_THE_LIVING if self.dead or risen else ()
        ignored += ["grad_norm"] if self.dead else self._fitted
        return {**signals, **dict.fromkeys(ignored)}

    def _small_when_fitted(self, record: StepRecord, config: Config) -> tuple[str, ...]:
        """What is small, or stands still, where the loss has next to nothing left of what it was at first."""
        m, limits = self._memory, config.divergence_config
        if record.loss is None or not m.first or not 0.0 <= record.loss <= _FITTED * m.first:
            return ()
        small = ["layer_norm_low"]
        small += ["grad_norm"] if (record.grad_norm or 0.0) < limits.gradient_norm_low else []
        small += ["grad_param_ratio"] if (record.grad_param_ratio or 0.0) < config.health.grad_param_ratio_low else []
        small += ["steps_without_gain"] if m.slow is not None and m.slow <= _FITTED * m.first else []
        return tuple(small)

    def _dead(self, record: StepRecord) -> float | None:
        """Share of the layers that had a gradient and have none, while the loss does not fall; None: no evidence."""
        m, layers = self._memory, record.layer_grad_norms
        if not layers or record.loss is None:
            return None
        if not m.zeros and min(layers) > _NO_GRADIENT:  # nearly always
            m.all_learn = True
            return 0.0
        if len(m.zeros) != len(layers):
            m.zeros = [0.0 if m.all_learn else -1.0] * len(layers)
        m.zeros = [
            (0.0 if norm > _NO_GRADIENT else -1.0) if past < 0 else past + _ZEROS * ((norm <= _NO_GRADIENT) - past)
            for past, norm in zip(m.zeros, layers, strict=True)
        ]
        gains = m.since_gain == 0 and record.phase is not Phase.WARMUP
        found = 0.0 if gains or record.loss == 0.0 else sum(past > _DEAD for past in m.zeros) / len(layers)
        if max(m.zeros) < _ZEROS / 10 and min(m.zeros) >= 0:
            m.zeros = []
        return found

    def _rise(self) -> float | None:
        """By what share of the first loss the smoothed one lies above it; 0 where it does not."""
        m = self._memory
        if m.slow is None or not m.first:
            return None
        return max(0.0, (m.slow - m.first) / abs(m.first))

    def _train(self, record: StepRecord, config: Config) -> None:
        m, loss = self._memory, record.loss
        if loss is None or not math.isfinite(loss):
            return
        m.first = loss if m.first is None and m.best is None else m.first  # older checkpoints have a best alone
        m.slow = loss if m.slow is None else m.slow + _SLOW * (loss - m.slow)
        warming = record.phase is Phase.WARMUP
        if m.best is None or warming or m.slow < m.best - config.health.plateau_improvement * abs(m.best):
            m.best, m.best_step = m.slow, record.step
        m.since_gain = record.step - m.best_step

    def _validated(self, loss: float, config: Config) -> None:
        """Weigh one validation against the best so far and the training loss then and now."""
        m, c = self._memory, config.health
        if m.slow is None or not math.isfinite(loss):
            return
        m.gap = loss - m.slow
        if m.best_validation is None or m.train_then is None or loss <= m.best_validation:
            m.best_validation, m.train_then, m.overfitting = loss, m.slow, 0
        else:
            rises = loss > m.best_validation + c.overfitting_margin * abs(m.best_validation)
            falls = m.slow < m.train_then - c.overfitting_margin * abs(m.train_then)
            m.overfitting = m.overfitting + 1 if rises and falls else 0
        if m.flat_validation is None or m.flat_train is None:
            m.flat_validation, m.flat_train = loss, m.slow
            return
        gained = any(
            new < old - c.plateau_improvement * abs(old)
            for new, old in ((loss, m.flat_validation), (m.slow, m.flat_train))
        )
        m.flat_validation, m.flat_train = min(loss, m.flat_validation), min(m.slow, m.flat_train)
        high = min(loss, m.slow) > c.underfitting_loss
        m.underfitting = m.underfitting + 1 if high and not gained else 0

    def _divergence_rate(self) -> float | None:
        """Divergences per 100 predicted steps, over the last 20 predictions; None with fewer than 5."""
        last = self._memory.predictions
        if len(last) < _FEWEST_PREDICTIONS:
            return None
        return 100.0 * sum(diverged for _, diverged in last) / sum(steps for steps, _ in last)

    def _in_a_row(self) -> int:
        """Predictions that diverged since the last that did not."""
        return sum(1 for _ in takewhile(lambda p: p[1], reversed(self._memory.predictions)))

    def _implied(self, attempts: int) -> float | None:
        """Mean implied rate over the last ``attempts``; None before there are so many."""
        last = self._memory.implied[-attempts:]
        return sum(last) / len(last) if len(last) >= attempts else None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(self._memory)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._memory, self._derived = msgspec.convert(state, _Memory), None
